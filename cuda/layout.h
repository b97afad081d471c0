// Copies that change dtype or width: weights to the activation dtype, channels padded to what Tensor Cores take and
// back, a norm folded into weights. A matrix is {rows, channels}, dense.
#pragma once

#include "backend/types.h"
#include "portable.h"

namespace rn50::cuda {

struct Matrix {
    void* data;
    DType dtype;
    int64_t rows, channels;
};

/// dst = or += src where both have an element; where src has none, dst becomes 0 (or stays, when added to).
/// f32 to f32 or any activation dtype, and any activation dtype to f32 or itself.
void copy_matrix(cudaStream_t stream, const Matrix& src, const Matrix& dst, Write write = Write::overwrite);

/// dst {K, rest} = src {K, rest} f32 * scale {K}: the weights of a convolution whose norm is folded in. `inner` is the
/// innermost dimension of rest, padded with 0 from src_inner to dst_inner; rows of dst beyond K become 0.
void fold_scale(cudaStream_t stream, const Tensor& weights, const Tensor& scale, const Matrix& dst, int64_t taps);

/// dst {rows, K} = max(src {rows, stride} + bias {K} (+ residual {rows, K}), 0 if relu). dst may be the residual.
void add_bias(cudaStream_t stream, const void* src, int64_t stride, const float* bias, const void* residual, bool relu,
              void* dst, DType dtype, int64_t rows, int64_t channels);

}  // namespace rn50::cuda
