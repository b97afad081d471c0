#include "tiles.h"

#include "affine.cuh"
#include "sums.cuh"
#include "tiling.cuh"

namespace rn50::cuda {

namespace {

// --- elementwise

/// The channels of dst {rows, dst_channels} that its source lacks.
template <int n, class D>
__device__ void pad(D* dst, const Walk<n>& walk, int64_t dst_channels) {
    const float zeros[n] = {};
    for (int64_t row = walk.row; row < walk.end; row += walk.step)
        store(dst + row * dst_channels + walk.channel, zeros);
}

template <class S, class D, int n>
__global__ void __launch_bounds__(block_threads, 4)
    apply_kernel(const S* __restrict__ src, D* __restrict__ dst, Affine affine, bool relu, int64_t rows,
                 int64_t channels, int64_t dst_channels, int64_t rows_per_tile) {
    const Walk<n> walk(rows, rows_per_tile);
    if (walk.channel >= dst_channels) return;
    if (walk.channel >= channels) return pad<n>(dst, walk, dst_channels);
    const ChannelAffine<n> value(affine, walk.channel, true);
    for_rows(
        walk, [&](int64_t row) { return load_pack<n>(src + row * channels + walk.channel); },
        [&](int64_t row, const Pack<S, n>& read) {
            float x[n];
            unpack(read, x);
#pragma unroll
            for (int i = 0; i < n; ++i) {
                x[i] = value(x[i], i);
                if (relu) x[i] = clip(x[i]);
            }
            store(dst + row * dst_channels + walk.channel, x);
        });
}

/// Pictures of up to four channels, padded to n (4, or 8 of 16 bit): a thread makes whole pixels. Reads a byte a channel
/// and writes 16 bytes a pixel (8 where four are of 16 bit). Reads are single bytes: a warp's lie side by side, and the writes are what takes the time.
template <class D, int n>
__global__ void __launch_bounds__(block_threads)
    picture_kernel(const uint8_t* __restrict__ src, D* __restrict__ dst, Affine affine, int64_t pixels, int channels) {
    constexpr int most = 4;  // channels of a picture
    const Steps walk{int64_t{blockIdx.x} * blockDim.x + threadIdx.x, pixels, int64_t{gridDim.x} * blockDim.x};
    struct Read {
        uint8_t v[most];
    };
    for_rows(
        walk,
        [&](int64_t pixel) {
            Read read{};
#pragma unroll
            for (int c = 0; c < most; ++c)
                if (c < channels) read.v[c] = src[pixel * channels + c];
            return read;
        },
        [&](int64_t pixel, const Read& read) {
            float x[n] = {};
#pragma unroll
            for (int c = 0; c < most; ++c)
                if (c < channels) x[c] = __fadd_rn(__fmul_rn(to_float(read.v[c]), affine.scale[c]), affine.shift[c]);
            store(dst + pixel * n, x);
        });
}

template <class T, int n>
__global__ void __launch_bounds__(block_threads, 2)
    norm_gradient_kernel(const T* __restrict__ dz, const T* __restrict__ raw, T* __restrict__ dst, const float* factor,
                         const float* mean_dz, const float* slope, const float* mean, int64_t rows, int64_t channels,
                         int64_t dst_channels, int64_t rows_per_tile) {
    const Walk<n> walk(rows, rows_per_tile);
    if (walk.channel >= dst_channels) return;
    if (walk.channel >= channels) return pad<n>(dst, walk, dst_channels);
    float f[n], m_dz[n], s[n], m[n];
    load(factor + walk.channel, f);
    load(mean_dz + walk.channel, m_dz);
    load(slope + walk.channel, s);
    load(mean + walk.channel, m);
    struct Read {
        Pack<T, n> dz, raw;
    };
    for_rows(
        walk,
        [&](int64_t row) {
            const int64_t place = row * channels + walk.channel;
            return Read{load_pack<n>(dz + place), load_pack<n>(raw + place)};
        },
        [&](int64_t row, const Read& read) {
            float d[n], x[n];
            unpack(read.dz, d);
            unpack(read.raw, x);
#pragma unroll
            for (int i = 0; i < n; ++i)
                d[i] = f[i] * (d[i] - m_dz[i] - (x[i] - m[i]) * s[i]);
            store(dst + row * dst_channels + walk.channel, d);
        });
}

// --- statistics

/// Of each channel over the rows of a tile: partials {tiles, 3, C} = a pivot (the tile's first value), the sum of what
/// is above it, and the sum of its squares. Sums around a value of the data do not cancel on flat pictures.
template <class T, int n>
__global__ void __launch_bounds__(block_threads, 4)
    stats_kernel(const T* __restrict__ data, float* __restrict__ partials, int64_t rows, int64_t channels,
                 int64_t rows_per_tile) {
    RN50_SHARED(float, sums, sum_floats<n>);
    const Walk<n> walk(rows, rows_per_tile);
    const bool active = walk.channel < channels;
    float pivot[n] = {}, found[2 * n] = {};
    if (active) load(data + int64_t{blockIdx.x} * rows_per_tile * channels + walk.channel, pivot);
    if (active)
        for_rows(
            walk, [&](int64_t row) { return load_pack<n>(data + row * channels + walk.channel); },
            [&](int64_t, const Pack<T, n>& read) {
                float x[n];
                unpack(read, x);
#pragma unroll
                for (int i = 0; i < n; ++i) {
                    const float above = x[i] - pivot[i];
                    found[i] += above;
                    found[n + i] += above * above;
                }
            });
    float* const tile = partials + int64_t{blockIdx.x} * 3 * channels;
    if (active && threadIdx.y == 0) store(tile + walk.channel, pivot);
    const int64_t first = int64_t{blockIdx.y} * blockDim.x * n;
    sum_over_rows<n>(found, sums, [&](int kind, int channel, float sum) {
        if (first + channel < channels) tile[(1 + kind) * channels + first + channel] = sum;
    });
}

/// partials {tiles, 3, C} to stats {2, C}: first the mean, then M2 = sum over tiles of
/// sum((x - mean)^2) = squares + 2 (pivot - mean) sum + n (pivot - mean)^2. All of it is counted from the first tile's
/// pivot, so that nothing cancels here either. Reads 12 bytes a tile and channel.
__global__ void __launch_bounds__(merge_threads)
    merge_stats_kernel(const float* __restrict__ partials, float* __restrict__ stats, int64_t rows, int channels,
                       int64_t rows_per_tile, int tiles) {
    RN50_SHARED(float, first, merge_floats);
    RN50_SHARED(float, second, merge_floats);
    const int channel = static_cast<int>(blockIdx.x * merge_lanes + threadIdx.x);
    const bool active = channel < channels;
    const float origin = active ? partials[channel] : 0.0f;
    const auto whole = static_cast<float>(rows_per_tile), rest = static_cast<float>(rows - (tiles - 1) * rows_per_tile);
    float n[merge_tiles], off[merge_tiles] = {}, sum[merge_tiles] = {}, squares[merge_tiles] = {};
#pragma unroll
    for (int k = 0; k < merge_tiles; ++k) {
        const int t = static_cast<int>(threadIdx.y) + k * merge_rows;
        const float* const tile = partials + int64_t{t} * 3 * channels + channel;
        n[k] = t < tiles - 1 ? whole : t < tiles ? rest : 0.0f;
        if (active && t < tiles) {
            off[k] = tile[0];
            sum[k] = tile[channels];
            squares[k] = tile[2 * channels];
        }
    }
    float above = 0;
#pragma unroll
    for (int k = 0; k < merge_tiles; ++k) {
        off[k] -= origin;
        above += sum[k] + n[k] * off[k];
    }
    const float mean = merged(above, first) / static_cast<float>(rows);
    float m2 = 0;
#pragma unroll
    for (int k = 0; k < merge_tiles; ++k) {
        off[k] -= mean;
        m2 += squares[k] + off[k] * (2.0f * sum[k] + n[k] * off[k]);
    }
    m2 = merged(m2, second);
    if (threadIdx.y != 0 || !active) return;
    stats[channel] = origin + mean;
    stats[channels + channel] = m2 < 0.0f ? 0.0f : m2;
}

template <class S, class D, int n>
void apply(cudaStream_t stream, const Activation& src, void* dst, int64_t rows, int64_t channels,
           int64_t dst_channels) {
    const Tiling tiling = tile(rows, dst_channels, n);
    launch<apply_kernel<S, D, n>>(tiling.grid(), tiling.block(), stream, static_cast<const S*>(src.raw.data),
                                  static_cast<D*>(dst), affine_of(src.norm), src.relu, rows, channels, dst_channels,
                                  tiling.rows_per_tile);
}

}  // namespace

void apply_pending(cudaStream_t stream, const Activation& src, void* dst, DType dst_dtype, int64_t dst_channels) {
    const int64_t channels = src.raw.shape[3], rows = src.raw.count() / channels;
    with_act(dst_dtype, [&](auto element) {
        using D = decltype(element);
        constexpr int n = whole_pack<D>;
        const auto picture = [&](auto width) {
            launch<picture_kernel<D, decltype(width)::value>>(grid_of(ceil_div(rows, 4), 1 << 16), dim3(block_threads),
                                                              stream, src.raw.as<uint8_t>(), static_cast<D*>(dst),
                                                              affine_of(src.norm), rows, static_cast<int>(channels));
        };
        const bool plain = src.raw.dtype == DType::u8 && channels <= 4 && src.norm && !src.relu;
        if (plain && dst_channels == n) {
            picture(std::integral_constant<int, n>{});
        } else if (plain && dst_channels == 4) {
            picture(std::integral_constant<int, 4>{});
        } else if (src.raw.dtype == DType::u8) {
            apply<uint8_t, D, 1>(stream, src, dst, rows, channels, dst_channels);
        } else if (channels % n == 0) {
            apply<D, D, n>(stream, src, dst, rows, channels, dst_channels);
        } else {
            apply<D, D, 1>(stream, src, dst, rows, channels, dst_channels);
        }
    });
}

void norm_gradient(cudaStream_t stream, const DiffDst& diff_dst, void* dst, int64_t dst_channels) {
    const int64_t channels = diff_dst.dz.shape[3], rows = diff_dst.dz.count() / channels;
    const NormGradient& norm = diff_dst.norm;
    with_packs(diff_dst.dz.dtype, channels, [&](auto element, auto width) {
        using T = decltype(element);
        constexpr int n = decltype(width)::value;
        const Tiling tiling = tile(rows, dst_channels, n);
        launch<norm_gradient_kernel<T, n>>(
            tiling.grid(), tiling.block(), stream, static_cast<const T*>(diff_dst.dz.data),
            static_cast<const T*>(diff_dst.raw.data), static_cast<T*>(dst), floats(norm.factor), floats(norm.mean_dz),
            floats(norm.slope), floats(norm.mean), rows, channels, dst_channels, tiling.rows_per_tile);
    });
}

void gather_stats(cudaStream_t stream, const void* data, DType dtype, int64_t rows, int64_t channels, void* workspace,
                  const Tensor& stats) {
    with_packs(dtype, channels, [&](auto element, auto width) {
        using T = decltype(element);
        constexpr int n = decltype(width)::value;
        const Tiling tiling = sum_tile(rows, channels, n);
        float* const partials = static_cast<float*>(workspace);
        launch<stats_kernel<T, n>>(tiling.grid(), tiling.block(), stream, static_cast<const T*>(data), partials, rows,
                                   channels, tiling.rows_per_tile);
        launch<merge_stats_kernel>(merge_grid(channels), merge_block(), stream, partials, stats.as<float>(), rows,
                                   static_cast<int>(channels), tiling.rows_per_tile, static_cast<int>(tiling.tiles));
    });
}

int64_t stats_workspace_bytes(int64_t rows, int64_t channels) {
    return tile_bound(rows, channels) * 3 * channels * 4;
}

}  // namespace rn50::cuda
