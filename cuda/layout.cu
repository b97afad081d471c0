#include "layout.h"

#include "affine.cuh"
#include "tiling.cuh"

namespace rn50::cuda {

namespace {

/// Whole packs of dense memory; n divides count, and both addresses are multiples of n elements. Reads src and writes
/// dst once (and reads dst, when added to).
template <class S, class D, int n>
__global__ void __launch_bounds__(block_threads)
    convert_kernel(const S* __restrict__ src, D* __restrict__ dst, int64_t count, bool add) {
    const int64_t step = int64_t{gridDim.x} * blockDim.x * n;
    for (int64_t i = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * n; i < count; i += step) {
        float v[n], before[n];
        load(src + i, v);
        if (add) {
            load(dst + i, before);
#pragma unroll
            for (int k = 0; k < n; ++k)
                v[k] += before[k];
        }
        store(dst + i, v);
    }
}

/// Element by element, for the few tensors whose channels are no whole packs (the stem, a classifier): reads src and
/// writes dst once, a warp's elements side by side.
template <class S, class D>
__global__ void __launch_bounds__(block_threads)
    pad_kernel(const S* __restrict__ src, int64_t src_rows, int64_t src_channels, D* __restrict__ dst,
               int64_t dst_channels, int64_t count, bool add) {
    const int64_t step = int64_t{gridDim.x} * blockDim.x;
    for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
        const int64_t row = i / dst_channels, channel = i % dst_channels;
        const bool has = row < src_rows && channel < src_channels;
        const float v = has ? to_float(src[row * src_channels + channel]) : 0.0f;
        dst[i] = from_float<D>(add ? to_float(dst[i]) + v : v);
    }
}

/// weights {K, taps, C} f32 to dst {K', taps, C'}: reads 4 bytes and writes one element a weight, once an evaluation.
template <class D>
__global__ void __launch_bounds__(block_threads)
    fold_kernel(const float* __restrict__ weights, const float* __restrict__ scale, int64_t out_channels, int64_t taps,
                int64_t channels, D* __restrict__ dst, int64_t dst_channels, int64_t count) {
    const int64_t step = int64_t{gridDim.x} * blockDim.x;
    for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
        const int64_t channel = i % dst_channels, row = i / dst_channels, k = row / taps;
        const bool has = k < out_channels && channel < channels;
        dst[i] = from_float<D>(has ? weights[row * channels + channel] * scale[k] : 0.0f);
    }
}

/// Reads src and the residual, where there is one, and writes dst once.
template <class T, int n>
__global__ void __launch_bounds__(block_threads, 2)
    bias_kernel(const T* __restrict__ src, int64_t stride, const float* bias, const T* residual, bool relu, T* dst,
                int64_t rows, int64_t channels, int64_t rows_per_tile) {
    const Walk<n> walk(rows, rows_per_tile);
    if (walk.channel >= channels) return;
    float b[n];
    load(bias + walk.channel, b);
    struct Read {
        Pack<T, n> x, residual;
    };
    for_rows(
        walk,
        [&](int64_t row) {
            Read read{load_pack<n>(src + row * stride + walk.channel), {}};
            if (residual) read.residual = load_pack<n>(residual + row * channels + walk.channel);
            return read;
        },
        [&](int64_t row, const Read& read) {
            float x[n];
#pragma unroll
            for (int i = 0; i < n; ++i) {
                x[i] = to_float(read.x.v[i]) + (b[i] + (residual ? to_float(read.residual.v[i]) : 0.0f));
                if (relu) x[i] = clip(x[i]);
            }
            store(dst + row * channels + walk.channel, x);
        });
}

constexpr int64_t most_blocks = 1 << 14;

/// Whether packs of n elements may be read and written at `data`, which may be a slice of something.
template <int n, class T>
bool begins_pack(const T* data) {
    return reinterpret_cast<uintptr_t>(data) % (sizeof(T) * n) == 0;
}

template <class S, class D>
void copy_typed(cudaStream_t stream, const Matrix& src, const Matrix& dst, bool add) {
    const S* const from = static_cast<const S*>(src.data);
    D* const to = static_cast<D*>(dst.data);
    const int64_t count = dst.rows * dst.channels;
    const dim3 block(block_threads);
    constexpr int n = whole_pack < D >> whole_pack<S> ? whole_pack<S> : whole_pack<D>;
    if (src.channels != dst.channels || src.rows != dst.rows)
        launch<pad_kernel<S, D>>(grid_of(count, most_blocks), block, stream, from, src.rows, src.channels, to,
                                 dst.channels, count, add);
    else if (count % n == 0 && begins_pack<n>(from) && begins_pack<n>(to))
        launch<convert_kernel<S, D, n>>(grid_of(count / n, most_blocks), block, stream, from, to, count, add);
    else
        launch<convert_kernel<S, D, 1>>(grid_of(count, most_blocks), block, stream, from, to, count, add);
}

}  // namespace

void copy_matrix(cudaStream_t stream, const Matrix& src, const Matrix& dst, Write write) {
    const bool add = write == Write::add;
    with_act(src.dtype, [&](auto from) {
        using S = decltype(from);
        if (dst.dtype == DType::f32)
            copy_typed<S, float>(stream, src, dst, add);
        else if (dst.dtype == src.dtype)
            copy_typed<S, S>(stream, src, dst, add);
        else if (src.dtype == DType::f32)
            with_act(dst.dtype, [&](auto to) { copy_typed<float, decltype(to)>(stream, src, dst, add); });
        else
            RN50_REQUIRE(false, "a copy from ", name_of(src.dtype), " to ", name_of(dst.dtype));
    });
}

void fold_scale(cudaStream_t stream, const Tensor& weights, const Tensor& scale, const Matrix& dst, int64_t taps) {
    with_act(dst.dtype, [&](auto element) {
        using D = decltype(element);
        const int64_t count = dst.rows * dst.channels;
        launch<fold_kernel<D>>(grid_of(count, most_blocks), dim3(block_threads), stream, weights.as<float>(),
                               scale.as<float>(), weights.shape[0], taps, weights.shape[3], static_cast<D*>(dst.data),
                               dst.channels, count);
    });
}

void add_bias(cudaStream_t stream, const void* src, int64_t stride, const float* bias, const void* residual, bool relu,
              void* dst, DType dtype, int64_t rows, int64_t channels) {
    with_packs(dtype, channels, [&](auto element, auto width) {
        using T = decltype(element);
        constexpr int n = decltype(width)::value;
        const Tiling tiling = tile(rows, channels, n);
        launch<bias_kernel<T, n>>(tiling.grid(), tiling.block(), stream, static_cast<const T*>(src), stride, bias,
                                  static_cast<const T*>(residual), relu, static_cast<T*>(dst), rows, channels,
                                  tiling.rows_per_tile);
    });
}

}  // namespace rn50::cuda
