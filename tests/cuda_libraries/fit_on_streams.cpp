#include "fit_on_streams.h"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace rn50::fake {

namespace {

constexpr int64_t batch = 2;

/// Without times, and what is measured by them, which goes to `left`, too.
void take_lines(const std::string& folder, Left& left) {
    std::ifstream in(folder + "/metrics.jsonl");
    for (std::string line; std::getline(in, line);) {
        nlohmann::json json = nlohmann::json::parse(line);
        if (json.at("event") == "step")
            left.seconds.push_back(static_cast<double>(batch) / json.at("images_per_s").get<double>());
        for (const char* const timed : {"images_per_s", "data_wait"})
            json.erase(timed);
        left.lines.push_back(json.dump());
    }
}

LoaderOptions loading(const Run& how) {
    LoaderOptions options;
    options.batch_size = batch;
    options.accumulate = how.accumulate;
    options.workers = 1;
    options.read_patience_s = 0.1;
    options.pictures.image_size = 32;
    if (how.comm != nullptr) {
        options.rank = how.comm->rank();
        options.ranks = how.comm->size();
    }
    return options;
}

}  // namespace

Folder::Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "rn50_streams_XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
}

Folder::~Folder() {
    std::filesystem::remove_all(path_);
}

Left fit_on_streams(const Run& how, const std::function<void(cudaStream_t)>& connect) {
    const Folder own;
    const bool leads = how.comm == nullptr || how.comm->rank() == 0;
    const std::string path = how.folder.empty() ? own.path() : how.folder;
    StreamBackend backend(how.touch);
    if (connect) connect(backend.stream());
    TrainerOptions options;
    options.net.model = "resnet18";
    options.net.classes = 2;
    options.net.image_size = 32;
    options.net.batch = batch;
    options.net.accumulate = how.accumulate;
    options.loss_scale = how.loss_scale;
    if (how.weighted) options.class_weights = {0.5f, 1.5f};
    options.comm = how.comm;
    options.sync_norm = how.sync_norm;
    options.bucket_bytes = 4 << 20;
    Left left;
    {
        Arena arena(backend.memory(), plan_memory(backend, options).peak);
        Trainer trainer(backend, arena, options);
        trainer.initialize();
        CheckpointInfo info;
        info.model = options.net.model;
        info.classes = {"a", "b"};
        info.precision = "fp32";
        FitState state;
        const Dots dots(how.before_read ? how.before_read : [](int64_t) {}), val_dots;
        state.pictures = dots.size();
        const bool goes_on = std::filesystem::exists(path + "/state.safetensors");
        if (goes_on) state = load_state(path + "/state.safetensors", trainer, info);
        trainer.follow_rank_0();
        LoaderOptions pictures = loading(how);
        Loader val(val_dots, pictures, backend.host_memory());
        pictures.shuffle = pictures.drop_last = pictures.replace_bad = true;
        Loader train(dots, pictures, backend.host_memory());
        RunDir run = !leads    ? RunDir::of_rank_0(path)
                     : goes_on ? RunDir::resume(path, state.step)
                               : RunDir::create(path);
        FitOptions fitting;
        fitting.epochs = how.epochs;
        fitting.max_steps = how.max_steps;
        fitting.save_seconds = how.save_seconds;
        fitting.schedule.base_lr = how.lr;
        fitting.schedule.total_steps = how.epochs * train.batches_per_epoch() / how.accumulate;
        fitting.late = how.late;
        FitObserver watch;
        watch.step = [&](int64_t, int64_t step, double, double, double) {
            if (how.after_line) how.after_line(step);
        };
        watch.evaluating = [](int64_t) {};
        watch.epoch = [](const EpochSummary&, bool) {};
        const int waits_before = backend.journal.waits;
        try {
            fit(trainer, train, val, run, info, fitting, std::move(state), watch);
        } catch (const Error& error) {
            left.failed = error.what();
        }
        left.waits = backend.journal.waits - waits_before;
        const Tensor& parameters = trainer.net().state().parameters;
        left.parameters.resize(static_cast<size_t>(parameters.count()));
        backend.copy_out(trainer.context(), parameters, left.parameters.data());
    }
    if (leads) take_lines(path, left);
    left.when_read = backend.journal.when_read;
    left.when_done = backend.journal.when_done;
    return left;
}

int read_late(const Left& left) {
    int late = 0;
    for (size_t step = 0; step < left.when_read.size(); ++step)
        late += left.when_read[step] == static_cast<int>(step) + 2;
    return late;
}

int done_early(const Left& left) {
    int early = 0;
    for (size_t step = 0; step < left.when_done.size(); ++step)
        early += left.when_done[step] > static_cast<int>(step) + 1;
    return early;
}

LateScene::LateScene() {
    world = {};
}

LateScene::~LateScene() {
    for (const std::string& fault : world.faults)
        FAIL_CHECK(fault);
    CHECK(world.live_streams == 0);
    CHECK(world.live_events == 0);
}

}  // namespace rn50::fake
