// A small run of training on a StreamBackend, and what it leaves.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "comm/comm.h"
#include "environment.h"
#include "pipeline/source.h"
#include "stream_backend.h"
#include "train/fit.h"

namespace rn50::fake {

/// Pictures of 8 x 8 in two classes. `read` is told the index before each is read.
class Dots final : public Source {
  public:
    explicit Dots(std::function<void(int64_t)> read = [](int64_t) {}) : read_(std::move(read)) {}
    int64_t size() const override { return 24; }
    int32_t label(int64_t i) const override { return static_cast<int32_t>(i % 2); }
    std::string name(int64_t i) const override { return "picture " + std::to_string(i); }
    void read(int64_t i, std::vector<uint8_t>& bytes) const override {
        read_(i);
        std::string text = "P5 8 8 255\n";
        for (int p = 0; p < 64; ++p)
            text += static_cast<char>(i * 37 + p * (5 + i % 2));
        bytes.assign(text.begin(), text.end());
    }
    const std::vector<std::string>& classes() const override { return classes_; }

  private:
    std::function<void(int64_t)> read_;
    std::vector<std::string> classes_ = {"a", "b"};
};

/// A folder for one run, removed at the end.
class Folder {
  public:
    Folder();
    ~Folder();
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    const std::string& path() const { return path_; }

  private:
    std::string path_;
};

struct Run {
    bool late = true;
    int64_t epochs = 2, accumulate = 1, max_steps = 0;
    double save_seconds = 0, lr = 1e-3;
    bool weighted = false, sync_norm = false;
    float loss_scale = 0;
    Communicator* comm = nullptr;
    StreamBackend::Touch touch = {};                ///< on the device
    std::function<void(int64_t)> after_line = {};   ///< on the host; the step
    std::function<void(int64_t)> before_read = {};  ///< by a worker; the picture
    std::string folder;                             ///< of a run to go on with; "": a new one, of no name
};

struct Left {
    std::vector<float> parameters;
    std::vector<std::string> lines;  ///< of metrics.jsonl, without what depends on time
    std::vector<double> seconds;     ///< a step, as these lines have it
    std::vector<int> when_read, when_done;
    int waits = 0;       ///< of the host for all of the device's work
    std::string failed;  ///< what the run threw
};

/// `connect` is told of the backend's stream, for an engine of ranks, before the trainer is made.
Left fit_on_streams(const Run& how, const std::function<void(cudaStream_t)>& connect = {});

/// Results for which the host waited when one step more was launched.
int read_late(const Left& left);
/// Steps after which the device found the next one launched.
int done_early(const Left& left);

/// A fresh world; at the end no call may have broken the documentation, and all is given back.
struct LateScene {
    LateScene();
    ~LateScene();
    const test::ArenaMode arena{"shared"};  ///< on a device, memory that goes back to an arena is not gone
};

}  // namespace rn50::fake
