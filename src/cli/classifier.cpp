#include "cli/classifier.h"

#include <filesystem>

#include "base/error.h"
#include "cli/inference.h"
#include "cli/training_setup.h"
#include "train/checkpoint.h"

namespace rn50 {

namespace {

/// A run directory stands for its best checkpoint.
std::string file_of(const std::string& path) {
    std::error_code unknown;
    if (!std::filesystem::is_directory(path, unknown)) return path;
    const std::string best = path + (path.back() == '/' ? "" : "/") + "best.safetensors";
    if (!std::filesystem::exists(best, unknown))
        throw Error(Exit::data, cat(path, " holds no best.safetensors"), "name the folder of a run, or a checkpoint");
    return best;
}

}  // namespace

struct Classifier::State {
    State(const Options& options, int64_t batch)
        : file(file_of(options.checkpoint)), info(read_checkpoint_info(file)), backend(open_backend(options)) {
        pictures.image_size = info.image_size;
        pictures.resize = info.resize;
        pictures.channels = info.channels;
        pictures.bits = info.bits;
        pictures.augment = Augment::none;
        desc.model = info.model;
        desc.classes = static_cast<int64_t>(info.classes.size());
        desc.image_size = info.image_size;
        desc.channels = info.channels;
        desc.batch = desc.eval_batch = batch;
        desc.precision = resolve_precision(options.precision, backend->info());
        desc.training = false;
        std::copy(info.mean.begin(), info.mean.end(), desc.mean);
        std::copy(info.std.begin(), info.std.end(), desc.std);

        arena = std::make_unique<Arena>(backend->memory(), Inference::plan(*backend, desc));
        inference = std::make_unique<Inference>(*backend, *arena, desc);
        load_checkpoint(file, *backend, inference->context(), inference->net());
        inference->begin();
        logits.resize(static_cast<size_t>(batch * desc.classes));
    }

    SafetensorsReader file;
    CheckpointInfo info;
    std::unique_ptr<Backend> backend;
    PictureOptions pictures;
    NetDesc desc;
    std::unique_ptr<Arena> arena;
    std::unique_ptr<Inference> inference;
    std::vector<float> logits;
};

Classifier::Classifier(const Options& options, int64_t batch) : state_(std::make_unique<State>(options, batch)) {}
Classifier::~Classifier() = default;

std::string Classifier::describe() const {
    return cat(state_->info.model, ", ", state_->info.classes.size(), " classes, ", state_->info.image_size, " px, ",
               name_of(state_->desc.precision), " on ", state_->backend->info().name);
}

const std::string& Classifier::path() const {
    return state_->file.path();
}

const std::vector<std::string>& Classifier::classes() const {
    return state_->info.classes;
}

const PictureOptions& Classifier::pictures() const {
    return state_->pictures;
}

const std::array<float, 3>& Classifier::mean() const {
    return state_->info.mean;
}

const std::array<float, 3>& Classifier::std_dev() const {
    return state_->info.std;
}

bool Classifier::on_cpu() const {
    return state_->backend->info().kind == "cpu";
}

Memory& Classifier::host_memory() {
    return state_->backend->host_memory();
}

const float* Classifier::logits(const Batch& batch) {
    state_->inference->run(batch.images.data, batch.count, state_->logits.data());
    return state_->logits.data();
}

}  // namespace rn50
