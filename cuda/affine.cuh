// A pending normalisation inside a kernel, and constants that belong to a channel.
#pragma once

#include "backend/types.h"
#include "pack.cuh"

namespace rn50::cuda {

/// x * scale + shift, each rounded, so that forward and backward clip the same elements; null: x itself.
struct Affine {
    const float *scale, *shift;
};

inline const float* floats(const Tensor& tensor) {
    return tensor ? tensor.as<float>() : nullptr;
}
inline Affine affine_of(const Norm& norm) {
    return {floats(norm.scale), floats(norm.shift)};
}

/// The affine of n neighbouring channels, read once.
template <int n>
struct ChannelAffine {
    float scale[n], shift[n];
    bool present;

    __device__ ChannelAffine(const Affine& affine, int64_t channel, bool active) : present(affine.scale != nullptr) {
        if (present && active) {
            load(affine.scale + channel, scale);
            load(affine.shift + channel, shift);
        }
    }
    __device__ float operator()(float x, int i) const {
        return present ? __fadd_rn(__fmul_rn(x, scale[i]), shift[i]) : x;
    }
};

/// max(x, 0) that keeps NaN.
__device__ inline float clip(float x) {
    return x < 0.0f ? 0.0f : x;
}

}  // namespace rn50::cuda
