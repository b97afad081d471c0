// What a run of several ranks tells of the time that it waits for pictures: a rank that starves holds up all.
#include <doctest/doctest.h>
#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "rank_support.h"
#include "train/fit.h"

using namespace rn50;
using std::chrono::milliseconds;

namespace {

/// Pictures of 8 x 8 in two classes, each read after a pause.
class Pausing final : public Source {
  public:
    explicit Pausing(int pause_ms) : pause_ms_(pause_ms) {}
    int64_t size() const override { return 20; }
    int32_t label(int64_t i) const override { return static_cast<int32_t>(i % 2); }
    std::string name(int64_t i) const override { return cat("picture ", i); }
    void read(int64_t i, std::vector<uint8_t>& bytes) const override {
        std::this_thread::sleep_for(milliseconds(pause_ms_));
        std::string text = "P5 8 8 255\n";
        for (int p = 0; p < 64; ++p)
            text += static_cast<char>(i * 37 + p * 5);
        bytes.assign(text.begin(), text.end());
    }
    const std::vector<std::string>& classes() const override { return classes_; }

  private:
    int pause_ms_;
    std::vector<std::string> classes_ = {"a", "b"};
};

struct Folder {
    Folder() {
        std::string pattern = (std::filesystem::temp_directory_path() / "rn50_waits_XXXXXX").string();
        REQUIRE(mkdtemp(pattern.data()) != nullptr);
        path = pattern;
    }
    ~Folder() { std::filesystem::remove_all(path); }
    std::string path;
};

}  // namespace

TEST_CASE("ranks: the wait for pictures is that of the rank which waits longest, by name") {
    if (gloo_version().empty()) return;
    constexpr int64_t batch = 2, steps = 5;
    const Folder folder;
    double own[2] = {}, told[2] = {};  // by rank: of its loader, and what it is told of all
    std::mutex mutex;
    std::vector<EpochSummary> summaries;
    in_ranks(2, milliseconds(60000), [&](Communicator& comm) {
        const auto rank = static_cast<size_t>(comm.rank());
        const std::unique_ptr<Backend> backend = make_backend("cpu", 1);
        TrainerOptions options;
        options.net.model = "resnet18";
        options.net.classes = 2;
        options.net.image_size = 32;
        options.net.batch = batch;
        options.comm = &comm;
        Arena arena(backend->memory(), plan_memory(*backend, options).peak);
        Trainer trainer(*backend, arena, options);
        trainer.initialize();
        trainer.follow_rank_0();
        LoaderOptions loading;
        loading.batch_size = batch;
        loading.workers = 1;
        loading.slots = 2;
        loading.rank = comm.rank();
        loading.ranks = 2;
        loading.pictures.image_size = 32;
        const Pausing fast(0), slow(150);
        Loader val(fast, loading, backend->host_memory());
        loading.shuffle = loading.drop_last = loading.replace_bad = true;
        Loader train(rank == 1 ? slow : fast, loading, backend->host_memory());
        RunDir run = rank == 0 ? RunDir::create(folder.path) : RunDir::of_rank_0(folder.path);
        CheckpointInfo info;
        info.model = options.net.model;
        info.classes = {"a", "b"};
        info.precision = "fp32";
        FitOptions how;
        how.schedule.total_steps = steps;
        FitState state;
        state.pictures = fast.size();
        FitObserver watch;
        watch.step = [&](int64_t, int64_t, double, double, double wait) { told[rank] += wait; };
        watch.evaluating = [](int64_t) {};
        watch.epoch = [&](const EpochSummary& summary, bool) {
            const std::lock_guard<std::mutex> lock(mutex);
            summaries.push_back(summary);
        };
        fit(trainer, train, val, run, info, how, std::move(state), watch);
        own[rank] = train.wait_seconds();
        comm.leave();
    });
    CHECK(own[1] > own[0]);
    CHECK(told[0] >= own[1] * 0.999);
    CHECK(told[0] == told[1]);
    REQUIRE(summaries.size() == 2);
    for (const EpochSummary& summary : summaries) {
        CHECK(summary.slowest_rank == 1);
        CHECK(summary.data_wait * summary.seconds == doctest::Approx(told[0]));
    }
    double logged = 0;
    std::ifstream lines(folder.path + "/metrics.jsonl");
    for (std::string line; std::getline(lines, line);) {
        const nlohmann::json json = nlohmann::json::parse(line);
        if (json.at("event") == "step")
            logged += json.at("data_wait").get<double>() * 2 * batch / json.at("images_per_s").get<double>();
    }
    CHECK(logged == doctest::Approx(told[0]).epsilon(0.01));
}
