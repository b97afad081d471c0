// Passes over {rows, C} matrices that apply what is pending and gather sums by channel: everything between the
// libraries' products. Partial sums are one row a tile and are merged in a fixed order (sums.cuh), so the same call
// gives the same bits. Memory traffic is said for each; nothing here reads an element twice.
#pragma once

#include "backend/types.h"
#include "portable.h"

namespace rn50::cuda {

/// dst {rows, dst_channels} = the pending value of src {rows, channels}; channels that src lacks become 0.
/// Reads and writes each element once.
void apply_pending(cudaStream_t stream, const Activation& src, void* dst, DType dst_dtype, int64_t dst_channels);

/// dst {rows, dst_channels} = factor * (dz - mean_dz - (raw - mean) * slope), padded with 0 likewise.
/// Two reads and one write an element.
void norm_gradient(cudaStream_t stream, const DiffDst& diff_dst, void* dst, int64_t dst_channels);

/// stats {2, C} f32 = mean and M2 by channel of data {rows, C}. One read an element.
void gather_stats(cudaStream_t stream, const void* data, DType dtype, int64_t rows, int64_t channels, void* workspace,
                  const Tensor& stats);
int64_t stats_workspace_bytes(int64_t rows, int64_t channels);

/// Where the gradient comes from that is left as DiffSrc says. One of:
struct PlainGradient {  ///< {rows, stride} of the activation dtype
    const void* g;
    int64_t stride;
};
struct MeanGradient {  ///< g {N, C} / pixels at every pixel
    const void* g;
    int64_t pixels;
};
struct MaxPoolGradient {  ///< at each window's first maximum; index {N, OH, OW, C} u8 = its place in the window, 0 to 8
    const void* g;
    const uint8_t* index;
    int64_t height, width;
};
/// Reads g, what it is added to, the clipping tensor and each norm's raw tensor once (a tensor that serves twice is
/// read once), writes diff once.
void leave_gradient(cudaStream_t stream, const PlainGradient& source, const DiffSrc& target, void* workspace);
void leave_gradient(cudaStream_t stream, const MeanGradient& source, const DiffSrc& target, void* workspace);
void leave_gradient(cudaStream_t stream, const MaxPoolGradient& source, const DiffSrc& target, void* workspace);
int64_t leave_workspace_bytes(int64_t rows, int64_t channels);

}  // namespace rn50::cuda
