// Augmentation of whole batches of pictures. The arithmetic of a pixel is base/pixel_ops.h's, which the CPU runs too.
#include "augment.h"

#include "base/error.h"
#include "tiling.cuh"

namespace rn50::cuda {

namespace {

constexpr unsigned most_pixel_blocks = 64;  // of a picture

/// The mean grey that contrast needs: sums[picture] = the sum over its pixels of the grey that the jitters before
/// contrast leave. A block takes a picture.
__global__ void __launch_bounds__(block_threads)
    gray_sum_kernel(const uint8_t* __restrict__ src, const pixel::Changes* __restrict__ changes,
                    int64_t* __restrict__ sums, int64_t pixels, int channels) {
    RN50_SHARED(int64_t, shared, block_threads / 32);
    const pixel::Changes& change = changes[blockIdx.x];
    const uint8_t* const picture = src + int64_t{blockIdx.x} * pixels * channels;
    int64_t sum = 0;
    if (change.factors[pixel::contrast] != pixel::one) {
        for (int64_t i = threadIdx.x; i < pixels; i += blockDim.x) {
            uint8_t p[3] = {};
            for (int c = 0; c < channels; ++c)
                p[c] = picture[i * channels + c];
            for (int step = 0; step < 3 && change.order[step] != pixel::contrast; ++step)
                pixel::jitter(p, channels, change.order[step], change.factors[change.order[step]], 0);
            sum += pixel::gray_of(p, channels);
        }
    }
    for (int by = 16; by > 0; by /= 2)
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, by);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    int64_t total = 0;
    for (unsigned warp = 0; warp < block_threads / 32; ++warp)
        total += shared[warp];
    sums[blockIdx.x] = total;
}

/// blockIdx.x is the picture; the blocks of blockIdx.y share its pixels.
__global__ void __launch_bounds__(block_threads)
    augment_kernel(const uint8_t* __restrict__ src, const pixel::Changes* __restrict__ changes,
                   const int64_t* __restrict__ sums, uint8_t* __restrict__ dst, int64_t size, int channels) {
    const pixel::Changes& change = changes[blockIdx.x];
    const int64_t pixels = size * size, begin = int64_t{blockIdx.x} * pixels * channels;
    const int32_t mean = pixel::mean_of(sums[blockIdx.x], pixels);
    const int64_t step = int64_t{gridDim.y} * blockDim.x;
    for (int64_t i = int64_t{blockIdx.y} * blockDim.x + threadIdx.x; i < pixels; i += step) {
        const int64_t y = i / size, x = i % size;
        uint8_t p[3] = {};
        if (pixel::inside(change.erased, y, x)) {
            pixel::erase(change, size, channels, y, x, p);
        } else {
            const uint8_t* const from = src + begin + pixel::source_of(change, size, y, x) * channels;
            for (int c = 0; c < channels; ++c)
                p[c] = from[c];
            for (const uint8_t kind : change.order)
                pixel::jitter(p, channels, kind, change.factors[kind], mean);
        }
        for (int c = 0; c < channels; ++c)
            dst[begin + i * channels + c] = p[c];
    }
}

}  // namespace

void augment_pictures(cudaStream_t stream, const uint8_t* src, const pixel::Changes* changes, int64_t* sums,
                      uint8_t* dst, int64_t n, int64_t size, int channels) {
    RN50_REQUIRE(n > 0 && size > 0 && size <= 65536, n, " pictures of ", size, " pixels a side");
    RN50_REQUIRE(channels == 1 || channels == 3, channels, " channels");
    RN50_REQUIRE(src != dst, "the pictures are changed out of place");
    const int64_t pixels = size * size;
    const auto pictures = static_cast<unsigned>(n);
    const auto blocks = static_cast<unsigned>(std::min<int64_t>(ceil_div(pixels, block_threads), most_pixel_blocks));
    launch<gray_sum_kernel>(dim3(pictures), dim3(block_threads), stream, src, changes, sums, pixels, channels);
    launch<augment_kernel>(dim3(pictures, blocks), dim3(block_threads), stream, src, changes, sums, dst, size,
                           channels);
}

}  // namespace rn50::cuda
