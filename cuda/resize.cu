// Antialiased bilinear resampling of one picture, for decoded JPEGs. All in integers, as src/pipeline/kernels.cpp.
#include "resize.h"

#include "base/error.h"
#include "tiling.cuh"

namespace rn50::cuda {

namespace {

__device__ uint8_t rounded(int32_t sum, int shift) {
    sum >>= shift;
    return static_cast<uint8_t>(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/// A thread makes a pixel of `rows`.
__global__ void __launch_bounds__(block_threads)
    resize_rows_kernel(const uint8_t* __restrict__ src, int64_t src_w, DeviceFilter filter, uint8_t* __restrict__ rows,
                       int64_t pixels, int64_t dst_w) {
    const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i >= pixels) return;
    const int64_t y = i / dst_w, x = i % dst_w;
    const uint8_t* from = src + (y * src_w + filter.first[x]) * 3;
    const int16_t* const weights = filter.weights + x * filter.taps;
    const int count = filter.count[x];
    const int32_t half = 1 << (filter.shift - 1);
    int32_t r = half, g = half, b = half;
    for (int t = 0; t < count; ++t, from += 3) {
        const int32_t weight = weights[t];
        r += from[0] * weight;
        g += from[1] * weight;
        b += from[2] * weight;
    }
    rows[i * 3] = rounded(r, filter.shift);
    rows[i * 3 + 1] = rounded(g, filter.shift);
    rows[i * 3 + 2] = rounded(b, filter.shift);
}

/// A thread makes a byte of dst.
__global__ void __launch_bounds__(block_threads)
    resize_columns_kernel(const uint8_t* __restrict__ rows, int64_t row_bytes, DeviceFilter filter,
                          uint8_t* __restrict__ dst, int64_t bytes) {
    const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i >= bytes) return;
    const int64_t y = i / row_bytes;
    const uint8_t* from = rows + filter.first[y] * row_bytes + i % row_bytes;
    const int16_t* const weights = filter.weights + y * filter.taps;
    const int count = filter.count[y];
    int32_t sum = 1 << (filter.shift - 1);
    for (int t = 0; t < count; ++t, from += row_bytes)
        sum += *from * weights[t];
    dst[i] = rounded(sum, filter.shift);
}

}  // namespace

void resize_picture(cudaStream_t stream, const uint8_t* src, int64_t src_h, int64_t src_w,
                    const DeviceFilter& horizontal, const DeviceFilter& vertical, uint8_t* rows, uint8_t* dst,
                    int64_t dst_h, int64_t dst_w) {
    RN50_REQUIRE(src_h > 0 && src_w > 0 && dst_h > 0 && dst_w > 0, "resize from ", src_w, "x", src_h, " to ", dst_w,
                 "x", dst_h);
    const int64_t pixels = src_h * dst_w, row_bytes = dst_w * 3, bytes = dst_h * row_bytes;
    launch<resize_rows_kernel>(grid_of(pixels), dim3(block_threads), stream, src, src_w, horizontal, rows, pixels,
                               dst_w);
    launch<resize_columns_kernel>(grid_of(bytes), dim3(block_threads), stream, rows, row_bytes, vertical, dst, bytes);
}

}  // namespace rn50::cuda
