// The inner loops of the CPU twin: plain functions over rows of channels ({rows, C} with C innermost, as NHWC is).
// kernels.cpp is compiled once for each instruction set; kernels() picks the best this CPU has. Each gives the same bits:
// lanes hold channels, so no sum depends on the width of a vector, and nothing is contracted to a fused multiply-add.
#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace rn50::cpu {

/// One norm's sums over the rows of a tile: sum(dz) and sum(dz * (raw - mean)), {C} each, overwritten.
struct TileSums {
    const void* raw = nullptr;
    const float* mean = nullptr;
    float* dz = nullptr;
    float* dz_centered = nullptr;
};

/// The arguments of Kernels::diff_src; see DiffSrc in backend/types.h.
struct DiffTile {
    const void* g = nullptr;   ///< gradient made by the op; may be `diff` itself
    int64_t g_stride = 0;      ///< elements from row to row of g: C, or 0 when all rows share one gradient
    void* diff = nullptr;
    bool add = false;
    const void* at = nullptr;  ///< raw tensor whose ReLU clips; null: none
    const float* scale = nullptr;  ///< null: `at` is the value itself
    const float* shift = nullptr;
    TileSums norms[2];
    int norm_count = 0;
    int64_t rows = 0, channels = 0;
};

struct AdamStep {
    float lr, decay, beta1, beta2, eps, multiplier;  ///< decay = lr * weight_decay, 0 where nothing decays
    float correction1, correction2_sqrt;             ///< 1 - beta1^t and sqrt(1 - beta2^t)
};
struct SgdStep {
    float lr, weight_decay, momentum, multiplier;
    bool nesterov, first;
};

/// dtypes: f32 and bf16 (u8 too as the source of apply). All pointers of one call share `dtype` unless said otherwise.
struct Kernels {
    const char* name;
    /// dst = src * scale + shift, clipped at 0 if relu; scale null: a conversion.
    void (*apply)(const void* src, DType src_dtype, void* dst, DType dst_dtype, int64_t rows, int64_t channels,
                  const float* scale, const float* shift, bool relu);
    /// Of each channel over the rows: out {3, C} f32 = a value near the mean, the mean less that value, and M2. In one f32
    /// the mean of a flat picture would be rounded by as much as the means of its tiles differ.
    void (*stats)(const void* x, DType dtype, int64_t rows, int64_t channels, float* out);
    /// dst = factor * (dz - mean_dz - (raw - mean) * slope)
    void (*norm_gradient)(const void* dz, const void* raw, void* dst, DType dtype, int64_t rows, int64_t channels,
                          const float* factor, const float* mean_dz, const float* slope, const float* mean);
    void (*diff_src)(const DiffTile& tile, DType dtype);
    /// dst = max(a * scale_a + shift_a + (b * scale_b + shift_b), 0); a null scale means the tensor itself.
    void (*join)(const void* a, const float* scale_a, const float* shift_a, const void* b, const float* scale_b,
                 const float* shift_b, void* dst, DType dtype, int64_t rows, int64_t channels);
    /// 3x3 stride 2 padding 1 maximum of one output row: src {H, W, C} of one picture, out_row in [0, (H + 1) / 2).
    void (*max_pool_row)(const void* src, DType dtype, int64_t height, int64_t width, int64_t channels,
                         const float* scale, const float* shift, bool relu, int64_t out_row, void* dst);
    /// Adds diff_dst of one picture {H', W', C} to the f32 picture diff {H, W, C} at each window's first maximum.
    void (*max_pool_scatter)(const void* src, DType dtype, int64_t height, int64_t width, int64_t channels,
                             const float* scale, const float* shift, bool relu, const void* diff_dst, float* diff);
    /// dst {C} = mean over the rows.
    void (*mean_rows)(const void* src, DType dtype, int64_t rows, int64_t channels, void* dst);
    /// dst = src, from f32 to f16 or bf16 or back.
    void (*convert)(const void* src, DType src_dtype, void* dst, DType dst_dtype, int64_t n);
    /// dst += src, f32.
    void (*add)(const float* src, float* dst, int64_t n);
    /// Sum of squares of finite f32 numbers in double; inf or NaN when one of them is not finite.
    double (*sum_squares)(const float* x, int64_t n);
    void (*adamw)(const AdamStep& step, float* p, const float* g, float* m, float* v, int64_t n);
    void (*sgd)(const SgdStep& step, float* p, const float* g, float* buffer, int64_t n);
};

/// The table for this CPU; RN50_ISA=v2|v3|v4 in the environment asks for a lower one (tests compare them).
const Kernels& kernels();
/// The table of one instruction set, or null when this CPU lacks it.
const Kernels* kernels_for(const char* isa);

}  // namespace rn50::cpu
