// The filter of antialiased bilinear resampling, in fixed point: what the CPU's and the GPU's resampling share.
#pragma once

#include <cstdint>
#include <vector>

namespace rn50 {

/// For each output position along one axis: its first input, how many inputs, and their weights. A triangle whose
/// support grows with the reduction, as Pillow's BILINEAR.
struct ResampleFilter {
    int64_t taps = 0;  ///< stride of `weights`; a multiple of 4
    int shift = 0;     ///< the weights of a position add up to 1 << shift
    std::vector<int32_t> first, count;
    std::vector<int16_t> weights;

    /// For out_size positions over [in0, in1) of in_size inputs, 0 <= in0 < in1 <= in_size. Sums of bytes times weights
    /// fit 32 bits. Reuses the memory of the filter before it.
    void make(int64_t in_size, double in0, double in1, int64_t out_size);

  private:
    std::vector<double> exact_;
};

}  // namespace rn50
