// A trained net ready to answer: what eval and predict share.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "cli/options.h"
#include "pipeline/loader.h"
#include "tensor/arena.h"

namespace rn50 {

class Classifier {
  public:
    /// Opens options.checkpoint (a .safetensors file, or a run directory for its best) on options.device in
    /// options.precision, for batches of at most `batch`. Throws Error(Exit::data) for a file that is missing, damaged
    /// or of another kind, Error(Exit::device) when the device or its memory does not suffice.
    Classifier(const Options& options, int64_t batch);
    ~Classifier();
    Classifier(const Classifier&) = delete;
    Classifier& operator=(const Classifier&) = delete;

    /// "resnet50, 8 classes, 64 px, fp32 on AMD EPYC"
    std::string describe() const;
    const std::string& path() const;  ///< of the file that was read
    const std::vector<std::string>& classes() const;
    const PictureOptions& pictures() const;    ///< how it was trained to see
    const std::array<float, 3>& mean() const;  ///< of pixels in [0, 1], by channel
    const std::array<float, 3>& std_dev() const;
    Memory& host_memory();
    bool on_cpu() const;

    /// Logits {batch.count, classes}, valid until the next call.
    const float* logits(const Batch& batch);

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace rn50
