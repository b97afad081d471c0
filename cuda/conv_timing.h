// How long one way to compute a convolution takes on this GPU.
#pragma once

#include <functional>
#include <limits>
#include <vector>

#include "products.h"

namespace rn50::cuda {

/// Device memory for the time of a measurement.
class Scratch {
  public:
    explicit Scratch(int64_t bytes);
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    void* data() const { return data_; }
    bool failed() const { return failed_; }

  private:
    void* data_ = nullptr;
    bool failed_ = false;
};

/// Buffers as large as a problem's tensors. What they hold matters: a GPU clocks by its power, and zeros or one number
/// all over would let it run faster than it will.
class Problem {
  public:
    /// `weights`: the dtype of w or dw; `workspace`: bytes.
    Problem(const ConvShape& shape, DType weights, int64_t workspace);
    bool fits() const { return !image_.failed() && !weights_.failed() && !output_.failed() && !workspace_.failed(); }
    void fill(cudaStream_t stream) const;
    void* image() const { return image_.data(); }
    void* weights() const { return weights_.data(); }
    void* output() const { return output_.data(); }
    void* workspace() const { return workspace_.data(); }

  private:
    void fill(const Scratch& memory, int64_t bytes, cudaStream_t stream) const;

    int64_t image_bytes_, weights_bytes_, output_bytes_;
    Scratch image_, weights_, output_, workspace_;
    std::vector<uint16_t> numbers_;  // the device reads them for as long as this lives
};

constexpr float cannot_run = std::numeric_limits<float>::infinity();

/// Milliseconds of one run, which `run` gives to `stream`; cannot_run when it ever answers false. The least of several
/// rounds, since everything else on the machine only adds. What is far behind `record` is not measured closely; the
/// first round, a single run, errs by more than the others.
float time_of(const std::function<bool()>& run, cudaStream_t stream, float record);

}  // namespace rn50::cuda
