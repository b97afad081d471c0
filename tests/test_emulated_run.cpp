// A whole run on the emulated GPU, whose memory the host cannot touch: whatever the trainer, evaluation, checkpoints
// and a resumed run do with tensors, they do by the backend.
#include <doctest/doctest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/error.h"
#include "environment.h"
#include "simt_backend.h"
#include "train/fit.h"

using namespace rn50;
using namespace rn50::test;

namespace {

/// Pictures of 8 x 8 in two classes.
class FewPictures final : public Source {
  public:
    int64_t size() const override { return 5; }
    int32_t label(int64_t i) const override { return static_cast<int32_t>(i % 2); }
    std::string name(int64_t i) const override { return cat("picture ", i); }
    void read(int64_t i, std::vector<uint8_t>& bytes) const override {
        std::string text = "P6 8 8 255\n";
        for (int p = 0; p < 3 * 64; ++p)
            text += static_cast<char>(i * 37 + p * 5);
        bytes.assign(text.begin(), text.end());
    }
    const std::vector<std::string>& classes() const override { return classes_; }

  private:
    std::vector<std::string> classes_ = {"a", "b"};
};

struct Folder {
    Folder() {
        std::string pattern = (std::filesystem::temp_directory_path() / "rn50_emulated_XXXXXX").string();
        REQUIRE(mkdtemp(pattern.data()) != nullptr);
        path = pattern;
    }
    ~Folder() { std::filesystem::remove_all(path); }
    std::string path;
};

/// Trains in fp16 to the end of epoch `epochs`, from the state in `run`'s folder where there is one. The last loss.
double train(RunDir run, int64_t epochs, bool resumed) {
    const std::unique_ptr<Backend> backend = make_emulated_backend();
    TrainerOptions options;
    options.net.model = "resnet18";
    options.net.classes = 2;
    options.net.image_size = 32;
    options.net.batch = 2;
    options.net.precision = Precision::fp16;
    options.net.dropout = 0.3f;
    options.changes = true;
    options.class_weights = {1, 3};
    Arena arena(backend->memory(), plan_memory(*backend, options).peak);
    Trainer trainer(*backend, arena, options);
    trainer.initialize();
    LoaderOptions loading;
    loading.batch_size = options.net.batch;
    loading.workers = 1;
    loading.slots = 2;
    loading.pictures.image_size = options.net.image_size;
    const FewPictures pictures;
    Loader val(pictures, loading, backend->host_memory());
    loading.pictures.augment = Augment::crop;
    loading.pictures.jitter_contrast = 0.5f;
    loading.shuffle = loading.drop_last = loading.replace_bad = loading.changes_apart = true;
    Loader train(pictures, loading, backend->host_memory());
    CheckpointInfo info;
    info.model = options.net.model;
    info.classes = pictures.classes();
    info.precision = "fp16";
    FitOptions how;
    how.epochs = epochs;
    how.schedule.total_steps = 4;
    FitState state;
    state.pictures = pictures.size();
    if (resumed) state = load_state(run.file("state.safetensors"), trainer, info);
    double last = 0;
    FitObserver watch;
    watch.step = [&](int64_t, int64_t, double loss, double, double) { last = loss; };
    watch.evaluating = [](int64_t) {};
    watch.epoch = [](const EpochSummary& summary, bool) { CHECK(summary.val_loss > 0); };
    fit(trainer, train, val, run, info, how, std::move(state), watch);
    return last;
}

std::string contents_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    REQUIRE_MESSAGE(file.good(), path);
    return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("emulated GPU: a run trains, evaluates, saves and is resumed, and the host touches none of its memory" *
          doctest::skip(!trains_emulated())) {
    set_emulator_order(EmulatorOrder::forward);
    const Folder whole, parts;
    const double loss = train(RunDir::create(whole.path + "/run"), 2, false);
    CHECK(loss > 0);
    train(RunDir::create(parts.path + "/run"), 1, false);
    CHECK(train(RunDir::resume(parts.path + "/run", 2), 2, true) == loss);
    CHECK(contents_of(whole.path + "/run/last.safetensors") == contents_of(parts.path + "/run/last.safetensors"));
}
