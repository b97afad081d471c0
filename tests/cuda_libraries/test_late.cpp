// Training whose device is never left without work: on streams that are threads (stream_backend.h), a step is launched
// before the result of the one before it is waited for, and the numbers stay those of a run that waits.
#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "fake.h"
#include "fit_on_streams.h"
#include "upload.h"

using namespace rn50;
using fake::done_early;
using fake::fit_on_streams;
using fake::Left;
using fake::read_late;
using fake::Run;
using fake::StreamBackend;
using fake::world;
using std::chrono::milliseconds;

namespace {

constexpr int steps_an_epoch = 12;  // of 24 pictures, 2 a batch

/// A device that takes so long in the middle of each step.
StreamBackend::Touch slow(int ms) {
    return [ms](int, const std::string& what, const Tensor&) {
        if (what == "loss") std::this_thread::sleep_for(milliseconds(ms));
    };
}

void check_same(const Left& one, const Left& other) {
    CHECK(one.parameters == other.parameters);
    CHECK(one.lines == other.lines);
    CHECK(one.failed == other.failed);
}

}  // namespace

TEST_CASE("download: the host waits for its copies and for nothing after them, and no slot is overwritten early") {
    const fake::LateScene scene;
    cudaStream_t compute = nullptr;
    cudaStreamCreateWithFlags(&compute, cudaStreamNonBlocking);
    {
        constexpr int rounds = 20;
        std::vector<uint8_t> device(4096), host[2];
        std::unique_ptr<Download> downloads[2];
        for (int i = 0; i < 2; ++i) {
            host[i].resize(device.size());
            downloads[i] = cuda::make_download(compute);
        }
        std::atomic<int> computed{0};
        const auto launch = [&](int step) {
            fake::push(compute, [&, step] {
                std::this_thread::sleep_for(milliseconds(5));
                std::fill(device.begin(), device.end(), static_cast<uint8_t>(step));
                ++computed;
            });
            // In two parts, as a result has several.
            const Tensor first{device.data(), DType::u8, {2048}}, second{device.data() + 2048, DType::u8, {2048}};
            downloads[step % 2]->begin(first, host[step % 2].data());
            downloads[step % 2]->begin(second, host[step % 2].data() + 2048);
        };
        launch(0);
        int ahead = 0;
        for (int step = 0; step < rounds; ++step) {
            launch(step + 1);
            downloads[step % 2]->wait();
            ahead += computed == step + 1;  // and not yet the one launched after it
            const std::vector<uint8_t>& found = host[step % 2];
            CHECK(std::count(found.begin(), found.end(), static_cast<uint8_t>(step)) == 4096);
        }
        CHECK(ahead > rounds / 2);
    }
    cudaStreamDestroy(compute);
    world.failing = {{"cudaEventCreate", cudaErrorUnknown}};
    CHECK_THROWS_AS(cuda::make_download(nullptr), Error);
}

TEST_CASE("late: each step but the first is launched before the result of the one before it is waited for") {
    const fake::LateScene scene;
    Run how;
    const Left late = fit_on_streams(how);
    how.late = false;
    const Left waiting = fit_on_streams(how);
    CHECK(late.lines.size() == 1 + 2 * (steps_an_epoch + 1));
    check_same(late, waiting);
    // The loader may be late for a step now and then; the epoch's last steps have none after them.
    CHECK(read_late(late) > steps_an_epoch);
    CHECK(read_late(late) <= 2 * (steps_an_epoch - 1));
    CHECK(read_late(waiting) == 0);
    CHECK(done_early(waiting) == 0);
    for (const int launched : late.when_read)
        CHECK(launched > 0);
}

TEST_CASE("late: a host that is slow between two steps does not keep the device waiting") {
    const fake::LateScene scene;
    Run how;
    how.epochs = 1;
    how.touch = slow(150);
    std::vector<std::chrono::steady_clock::time_point> lines;
    how.after_line = [&](int64_t) {
        lines.push_back(std::chrono::steady_clock::now());
        std::this_thread::sleep_for(milliseconds(60));
    };
    const Left late = fit_on_streams(how);
    CHECK(done_early(late) >= steps_an_epoch - 4);
    // A step's time is that from result to result, whatever the host does meanwhile: together they are all of the time.
    REQUIRE(late.seconds.size() == steps_an_epoch);
    REQUIRE(lines.size() == steps_an_epoch);
    const double together = std::accumulate(late.seconds.begin() + 1, late.seconds.end(), 0.0);
    const double passed = std::chrono::duration<double>(lines.back() - lines.front()).count();
    CAPTURE(passed);
    CHECK(together > passed - 0.3);
    CHECK(together < passed + 0.3);
}

TEST_CASE("late: with class weights, with steps of several batches, with saves, in parts: the same bits") {
    const fake::LateScene scene;
    const auto both = [](Run how) {
        const Left late = fit_on_streams(how);
        if (how.accumulate == 1) CHECK(read_late(late) > 0);  // else it is the first batch that is launched ahead
        how.late = false;
        check_same(late, fit_on_streams(how));
        return late;
    };
    Run how;
    how.epochs = 1;
    how.weighted = true;
    both(how);
    how.accumulate = 3;
    both(how);
    how.accumulate = 1;
    how.weighted = false;
    const Left whole = both(how);

    const fake::Folder saves;
    std::filesystem::remove(saves.path());
    Run saving = how;
    saving.folder = saves.path();
    saving.save_seconds = 1e-6;
    saving.after_line = [&](int64_t step) {
        if (step == 4) CHECK(saved_step(saves.path() + "/state.safetensors").value_or(0) >= 2);
    };
    saving.max_steps = 5;
    const Left saved = fit_on_streams(saving);
    CHECK(saved.lines == std::vector<std::string>(whole.lines.begin(), whole.lines.begin() + 1 + 5));
    CHECK(read_late(saved) > 0);

    const fake::Folder folder;
    Run part = how;
    part.folder = folder.path();
    std::filesystem::remove(folder.path());
    part.max_steps = 5;
    CHECK(fit_on_streams(part).lines.size() == 1 + 5);
    part.max_steps = 0;
    const Left resumed = fit_on_streams(part);
    CHECK(resumed.parameters == whole.parameters);
    std::vector<std::string> steps;
    for (const std::string& line : resumed.lines)
        if (line.find("\"step\"") != std::string::npos && line.find("\"start\"") == std::string::npos)
            steps.push_back(line);
    CHECK(steps == std::vector<std::string>(whole.lines.begin() + 1, whole.lines.end()));
}

TEST_CASE("late: within an epoch the host waits for results alone") {
    const fake::LateScene scene;
    Run how;
    how.epochs = 1;
    how.max_steps = 3;
    const int few = fit_on_streams(how).waits;
    how.max_steps = 9;
    CHECK(fit_on_streams(how).waits == few);
}

TEST_CASE("late: pictures that cannot be read end the run after the line of the last step, whose state is saved") {
    const fake::LateScene scene;
    Run how;
    how.epochs = 1;
    const Left whole = fit_on_streams(how);
    for (const bool late : {true, false}) {
        const fake::Folder folder;
        std::filesystem::remove(folder.path());
        how.late = late;
        how.folder = folder.path();
        std::atomic<int> read{0};
        how.before_read = [&](int64_t) {
            if (++read > 14) throw ReadError("the disk is gone", EIO);
        };
        const Left left = fit_on_streams(how);
        CHECK(left.failed == "the disk is gone");
        CHECK(left.lines.size() == 1 + 7);
        CHECK(saved_step(folder.path() + "/state.safetensors") == 7);
        how.before_read = {};
        CHECK(fit_on_streams(how).parameters == whole.parameters);
    }
}

TEST_CASE("late: a run that diverges is told of by its own step, though the next one is under way") {
    const fake::LateScene scene;
    Run how;
    how.lr = 1e30;
    const Left late = fit_on_streams(how);
    how.late = false;
    const Left waiting = fit_on_streams(how);
    MESSAGE(late.failed);
    CHECK(late.failed.find("diverged: the loss is not a number at step ") != std::string::npos);
    CHECK(late.failed.find("not finite first: ") != std::string::npos);
    check_same(late, waiting);

    // One loss, whose step is followed by a sound one.
    how.lr = 1e-3;
    how.epochs = 1;
    for (const bool of_norm : {true, false}) {
        how.touch = [of_norm](int step, const std::string& what, const Tensor& tensor) {
            if (step == 4 && what == (of_norm ? "observed" : "loss")) tensor.as<float>()[1] = NAN;
            if (step == 4 && what == "loss") tensor.as<float>()[0] = NAN;
        };
        how.late = true;
        const Left one = fit_on_streams(how);
        CHECK(one.when_read[4] == 6);
        CHECK(one.failed == cat("diverged: the loss is not a number at step 5 (epoch 1); not finite first: ",
                                of_norm ? "the activations before bn1" : "the output of the classifier"));
        how.late = false;
        const Left waited = fit_on_streams(how);
        CHECK(one.failed == waited.failed);
        CHECK(one.lines == waited.lines);
    }
    how.touch = {};

    how.late = true;
    how.loss_scale = 3e38f;  // every gradient overflows
    how.epochs = 6;
    const Left skipping = fit_on_streams(how);
    CHECK(skipping.failed.find("gradients were not finite for 50 steps in a row at step 50") != std::string::npos);
    CHECK(skipping.failed.find("not finite first: the gradient of ") != std::string::npos);
    CHECK(skipping.when_read.back() == 50);  // none was launched beside it
    CHECK(skipping.when_read[48] == 50);
}
