// One backend with the inputs and outputs of one op of the self-test.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "base/pixel_ops.h"

namespace rn50::doctor {

class Side {
  public:
    Side(Backend& on, Precision in);

    /// Multiples of 1/128 in [-1, 1]: f16 and bf16 hold them as they are. The same shape and seed give the same values.
    Tensor input(const Shape& shape, uint64_t seed);
    /// The same times a power of two, in f32: weights, which 16-bit products round.
    Tensor weights(const Shape& shape, uint64_t seed, float scale);
    Tensor input_f32(const Shape& shape, uint64_t seed, double low, double high);
    Tensor picture(const Shape& shape, uint64_t seed);
    Tensor labels(const std::vector<int32_t>& values);
    Tensor put(const StepState& state);
    Tensor put(const std::vector<pixel::Changes>& changes);
    /// Full of NaN, so that an element which nobody wrote shows.
    Tensor output(DType dtype, const Shape& shape);
    Norm norm(int64_t channels, uint64_t seed);
    Norm output_norm(int64_t channels);

    /// Takes an output to the host, for the comparison.
    void give(const Tensor& tensor);
    void give(const Norm& norm);
    /// Each number of a state is an output of its own: they differ in size.
    void give_state(const Tensor& tensor);

    Backend& backend;
    DType act;
    bool tf32;

  private:
    Arena arena_;

  public:
    Context ctx;
    std::vector<std::vector<double>> outputs;

  private:
    Tensor put(const std::vector<float>& values, DType dtype, const Shape& shape);
    Tensor put_bytes(const void* host, DType dtype, const Shape& shape);
};

}  // namespace rn50::doctor
