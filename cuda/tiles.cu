#include "tiles.h"

#include "affine.cuh"
#include "tiling.cuh"

namespace rn50::cuda {

namespace {

// --- elementwise

template <class S, class D, int n>
__global__ void __launch_bounds__(block_threads)
    apply_kernel(const S* __restrict__ src, D* __restrict__ dst, Affine affine, bool relu, int64_t rows,
                 int64_t channels, int64_t dst_channels, int64_t rows_per_tile) {
    const Walk<n> walk(rows, rows_per_tile);
    if (walk.channel >= dst_channels) return;
    const bool active = walk.channel < channels;
    const ChannelAffine<n> value(affine, walk.channel, active);
#pragma unroll 4
    for (int64_t row = walk.row; row < walk.end; row += walk.step) {
        float x[n] = {};
        if (active) {
            load(src + row * channels + walk.channel, x);
#pragma unroll
            for (int i = 0; i < n; ++i) {
                x[i] = value(x[i], i);
                if (relu) x[i] = clip(x[i]);
            }
        }
        store(dst + row * dst_channels + walk.channel, x);
    }
}

/// Pictures of up to n channels, padded to n: a thread makes a whole pixel.
template <class D, int n>
__global__ void __launch_bounds__(block_threads)
    picture_kernel(const uint8_t* __restrict__ src, D* __restrict__ dst, Affine affine, int64_t pixels, int channels) {
    const int64_t step = int64_t{gridDim.x} * blockDim.x;
    for (int64_t pixel = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; pixel < pixels; pixel += step) {
        float x[n] = {};
#pragma unroll
        for (int c = 0; c < n; ++c)
            if (c < channels)
                x[c] = __fadd_rn(__fmul_rn(to_float(src[pixel * channels + c]), affine.scale[c]), affine.shift[c]);
        store(dst + pixel * n, x);
    }
}

template <class T, int n>
__global__ void __launch_bounds__(block_threads)
    norm_gradient_kernel(const T* __restrict__ dz, const T* __restrict__ raw, T* __restrict__ dst, const float* factor,
                         const float* mean_dz, const float* slope, const float* mean, int64_t rows, int64_t channels,
                         int64_t dst_channels, int64_t rows_per_tile) {
    const Walk<n> walk(rows, rows_per_tile);
    if (walk.channel >= dst_channels) return;
    const bool active = walk.channel < channels;
    float f[n], m_dz[n], s[n], m[n];
    if (active) {
        load(factor + walk.channel, f);
        load(mean_dz + walk.channel, m_dz);
        load(slope + walk.channel, s);
        load(mean + walk.channel, m);
    }
#pragma unroll 4
    for (int64_t row = walk.row; row < walk.end; row += walk.step) {
        float d[n] = {}, x[n];
        if (active) {
            load(dz + row * channels + walk.channel, d);
            load(raw + row * channels + walk.channel, x);
#pragma unroll
            for (int i = 0; i < n; ++i)
                d[i] = f[i] * (d[i] - m_dz[i] - (x[i] - m[i]) * s[i]);
        }
        store(dst + row * dst_channels + walk.channel, d);
    }
}

// --- sums by channel

/// Adds values[k] over the block's row threads and hands each sum to write(i, lane), i in [0, k). All threads of the
/// block must call. sums: k * block_threads floats of shared memory.
template <int k, class Write>
__device__ void sum_over_rows(const float (&values)[k], float* sums, const Write& write) {
    const int thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
    const int lanes = static_cast<int>(blockDim.x), row_threads = static_cast<int>(blockDim.y);
#pragma unroll
    for (int i = 0; i < k; ++i)
        sums[i * block_threads + thread] = values[i];
    __syncthreads();
    for (int out = thread; out < k * lanes; out += block_threads) {
        const int i = out / lanes, lane = out % lanes;
        float sum = 0;
        for (int y = 0; y < row_threads; ++y)
            sum += sums[i * block_threads + y * lanes + lane];
        write(i, lane, sum);
    }
}

/// Of each channel over the rows of a tile: partials {tiles, 3, C} = a pivot (the tile's first value), the sum of what
/// is above it, and the sum of its squares. Sums around a value of the data do not cancel on flat pictures.
template <class T, int n>
__global__ void __launch_bounds__(block_threads) stats_kernel(const T* __restrict__ data, float* __restrict__ partials,
                                                              int64_t rows, int64_t channels, int64_t rows_per_tile) {
    RN50_SHARED(float, sums, 2 * n * block_threads);
    const Walk<n> walk(rows, rows_per_tile);
    const bool active = walk.channel < channels;
    float pivot[n] = {}, found[2 * n] = {};
    if (active) load(data + int64_t{blockIdx.x} * rows_per_tile * channels + walk.channel, pivot);
    if (active) {
#pragma unroll 4
        for (int64_t row = walk.row; row < walk.end; row += walk.step) {
            float x[n];
            load(data + row * channels + walk.channel, x);
#pragma unroll
            for (int i = 0; i < n; ++i) {
                const float above = x[i] - pivot[i];
                found[i] += above;
                found[n + i] += above * above;
            }
        }
    }
    float* const tile = partials + int64_t{blockIdx.x} * 3 * channels;
    if (active && threadIdx.y == 0) store(tile + walk.channel, pivot);
    sum_over_rows(found, sums, [&](int i, int lane, float sum) {
        const int64_t channel = (int64_t{blockIdx.y} * blockDim.x + static_cast<unsigned>(lane)) * n + i % n;
        if (channel < channels) tile[(1 + i / n) * channels + channel] = sum;
    });
}

/// A block merges 8 channels, a memory sector of f32, and has many threads to a channel: each walks over its tiles one
/// after the other and waits for memory at each, and layers with many tiles have few channels.
constexpr int merge_lanes = 8, merge_rows = 32;

/// The sum over the block's rows of threads, in their order; valid for threadIdx.y == 0. All threads must call.
__device__ inline double merge_sum(double value, double* sums) {
    sums[threadIdx.y * merge_lanes + threadIdx.x] = value;
    __syncthreads();
    double total = 0;
    if (threadIdx.y == 0)
        for (int y = 0; y < merge_rows; ++y)
            total += sums[y * merge_lanes + static_cast<int>(threadIdx.x)];
    return total;
}

/// partials {tiles, 3, C} to stats {2, C}: first the mean, then M2 = sum over tiles of
/// sum((x - mean)^2) = squares + 2 (pivot - mean) sum + n (pivot - mean)^2.
__global__ void __launch_bounds__(merge_lanes* merge_rows)
    merge_stats_kernel(const float* __restrict__ partials, float* __restrict__ stats, int64_t rows, int64_t channels,
                       int64_t rows_per_tile, int64_t tiles) {
    RN50_SHARED(double, first, merge_lanes* merge_rows);
    RN50_SHARED(double, second, merge_lanes* merge_rows);
    RN50_SHARED(double, means, merge_lanes);
    const int64_t channel = int64_t{blockIdx.x} * merge_lanes + threadIdx.x;
    const bool active = channel < channels;
    double sum = 0;
    if (active)
        for (int64_t t = threadIdx.y; t < tiles; t += merge_rows) {
            const int64_t begin = t * rows_per_tile,
                          n = (begin + rows_per_tile < rows ? begin + rows_per_tile : rows) - begin;
            const float* const tile = partials + t * 3 * channels + channel;
            sum += static_cast<double>(n) * tile[0] + tile[channels];
        }
    const double total = merge_sum(sum, first);
    if (threadIdx.y == 0) means[threadIdx.x] = total / static_cast<double>(rows);
    __syncthreads();
    const double mean = means[threadIdx.x];
    double m2 = 0;
    if (active)
        for (int64_t t = threadIdx.y; t < tiles; t += merge_rows) {
            const int64_t begin = t * rows_per_tile,
                          n = (begin + rows_per_tile < rows ? begin + rows_per_tile : rows) - begin;
            const float* const tile = partials + t * 3 * channels + channel;
            const double off = tile[0] - mean;
            m2 += tile[2 * channels] + off * (2.0 * tile[channels] + static_cast<double>(n) * off);
        }
    const double total_m2 = merge_sum(m2, second);
    if (threadIdx.y != 0 || !active) return;
    stats[channel] = static_cast<float>(mean);
    stats[channels + channel] = total_m2 < 0.0 ? 0.0f : static_cast<float>(total_m2);
}

/// partials {tiles, 2, C}, `stride` floats from tile to tile, to sums {2, C}, the second times inv_std.
__global__ void __launch_bounds__(merge_lanes* merge_rows)
    merge_sums_kernel(const float* __restrict__ partials, const float* __restrict__ inv_std, float* __restrict__ sums,
                      int64_t channels, int64_t tiles, int64_t stride) {
    RN50_SHARED(double, first, merge_lanes* merge_rows);
    RN50_SHARED(double, second, merge_lanes* merge_rows);
    const int64_t channel = int64_t{blockIdx.x} * merge_lanes + threadIdx.x;
    const bool active = channel < channels;
    double plain = 0, centered = 0;
    if (active)
        for (int64_t t = threadIdx.y; t < tiles; t += merge_rows) {
            const float* const tile = partials + t * stride + channel;
            plain += tile[0];
            centered += tile[channels];
        }
    const double total = merge_sum(plain, first), total_centered = merge_sum(centered, second);
    if (threadIdx.y != 0 || !active) return;
    sums[channel] = static_cast<float>(total);
    sums[channels + channel] = static_cast<float>(total_centered * inv_std[channel]);
}

dim3 merge_grid(int64_t channels) {
    return dim3(static_cast<unsigned>(ceil_div(channels, merge_lanes)));
}

// --- the way a gradient is left

template <class T>
struct PlainSource {
    const T* g;
    int64_t stride;
    template <int n>
    __device__ void get(int64_t row, int64_t channel, float (&to)[n]) const {
        load(g + row * stride + channel, to);
    }
};

template <class T>
struct MeanSource {
    const T* g;
    uint32_t pixels;
    int64_t channels;
    float inverse;
    template <int n>
    __device__ void get(int64_t row, int64_t channel, float (&to)[n]) const {
        load(g + int64_t{static_cast<uint32_t>(row) / pixels} * channels + channel, to);
#pragma unroll
        for (int i = 0; i < n; ++i)
            to[i] *= inverse;
    }
};

template <class T>
struct MaxPoolSource {
    const T* g;
    const uint8_t* index;
    int height, width;
    int64_t channels;
    /// The sum over the (up to four) windows that hold this pixel, of those whose first maximum it is.
    template <int n>
    __device__ void get(int64_t row, int64_t channel, float (&to)[n]) const {
        const int out_height = (height + 1) / 2, out_width = (width + 1) / 2;
        const auto pixels = static_cast<uint32_t>(height * width), picture = static_cast<uint32_t>(row) / pixels;
        const int pixel = static_cast<int>(static_cast<uint32_t>(row) % pixels), y = pixel / width, x = pixel % width;
#pragma unroll
        for (int i = 0; i < n; ++i)
            to[i] = 0;
        for (int oy = y / 2; oy <= (y + 1) / 2 && oy < out_height; ++oy)
            for (int ox = x / 2; ox <= (x + 1) / 2 && ox < out_width; ++ox) {
                const int place = (y - 2 * oy + 1) * 3 + (x - 2 * ox + 1);
                const int64_t at = ((int64_t{picture} * out_height + oy) * out_width + ox) * channels + channel;
                const Pack<uint8_t, n> first = load_pack<n>(index + at);
                float d[n];
                load(g + at, d);
#pragma unroll
                for (int i = 0; i < n; ++i)
                    if (first.v[i] == place) to[i] += d[i];
            }
    }
};

/// What leave_kernel works on; see DiffSrc.
template <class T>
struct Target {
    T* diff;
    const T* at;  ///< null: no ReLU
    Affine affine;
    const T* raw[2];
    const float* mean[2];
    float* partials;  ///< {tiles, norms, 2, C}
    int64_t rows, channels, rows_per_tile;
    bool add;
};

template <class Source, class T, int n, int norms>
__global__ void __launch_bounds__(block_threads) leave_kernel(Source source, Target<T> target) {
    RN50_SHARED(float, sums, norms > 0 ? 2 * n * block_threads : 1);
    const int64_t channels = target.channels;
    const Walk<n> walk(target.rows, target.rows_per_tile);
    const bool active = walk.channel < channels;
    const ChannelAffine<n> value(target.affine, walk.channel, active);
    float mean[norms + 1][n], found[norms + 1][2 * n] = {};
#pragma unroll
    for (int k = 0; k < norms; ++k)
        if (active) load(target.mean[k] + walk.channel, mean[k]);
    if (active) {
#pragma unroll 2
        for (int64_t row = walk.row; row < walk.end; row += walk.step) {
            const int64_t place = row * channels + walk.channel;
            float g[n], at[n] = {}, x[n];
            source.get(row, walk.channel, g);
            if (target.add) {
                load(target.diff + place, x);
#pragma unroll
                for (int i = 0; i < n; ++i)
                    g[i] += x[i];
            }
            if (target.at) {
                load(target.at + place, at);
#pragma unroll
                for (int i = 0; i < n; ++i)
                    if (!(value(at[i], i) > 0.0f)) g[i] = 0;
            }
#pragma unroll
            for (int i = 0; i < n; ++i)
                g[i] = to_float(from_float<T>(g[i]));  // the sums are of what is stored
            store(target.diff + place, g);
#pragma unroll
            for (int k = 0; k < norms; ++k) {
                if (target.raw[k] == target.at) {
#pragma unroll
                    for (int i = 0; i < n; ++i)
                        x[i] = at[i];
                } else {
                    load(target.raw[k] + place, x);
                }
#pragma unroll
                for (int i = 0; i < n; ++i) {
                    found[k][i] += g[i];
                    found[k][n + i] += g[i] * (x[i] - mean[k][i]);
                }
            }
        }
    }
#pragma unroll
    for (int k = 0; k < norms; ++k) {
        if (k > 0) __syncthreads();  // the sums before are still being read
        float* const tile = target.partials + (int64_t{blockIdx.x} * norms + k) * 2 * channels;
        sum_over_rows(found[k], sums, [&](int i, int lane, float sum) {
            const int64_t channel = (int64_t{blockIdx.y} * blockDim.x + static_cast<unsigned>(lane)) * n + i % n;
            if (channel < channels) tile[i / n * channels + channel] = sum;
        });
    }
}

template <class T, int n, class Source>
void leave(cudaStream_t stream, const Source& source, const DiffSrc& target, void* workspace) {
    const Tensor& diff = target.diff;
    const int64_t channels = diff.shape[3], rows = diff.count() / channels;
    RN50_REQUIRE(rows < int64_t{1} << 31, "a gradient of ", rows, " pixels");  // sources divide in 32 bits
    const Tiling tiling = tile(rows, channels, n);
    int norms = 0;
    Target<T> t{};
    t.diff = static_cast<T*>(diff.data);
    t.at = target.at.relu ? static_cast<const T*>(target.at.raw.data) : nullptr;
    t.affine = affine_of(target.at.norm);
    for (const NormSums& norm : target.norms) {
        if (!norm) break;
        t.raw[norms] = static_cast<const T*>(norm.raw.data);
        t.mean[norms++] = floats(norm.mean);
    }
    t.partials = static_cast<float*>(workspace);
    t.rows = rows;
    t.channels = channels;
    t.rows_per_tile = tiling.rows_per_tile;
    t.add = target.write == Write::add;
    if (norms == 0)
        launch<leave_kernel<Source, T, n, 0>>(tiling.grid(), tiling.block(), stream, source, t);
    else if (norms == 1)
        launch<leave_kernel<Source, T, n, 1>>(tiling.grid(), tiling.block(), stream, source, t);
    else
        launch<leave_kernel<Source, T, n, 2>>(tiling.grid(), tiling.block(), stream, source, t);
    for (int k = 0; k < norms; ++k)
        launch<merge_sums_kernel>(merge_grid(channels), dim3(merge_lanes, merge_rows), stream,
                                  t.partials + k * 2 * channels, floats(target.norms[k].inv_std),
                                  target.norms[k].sums.as<float>(), channels, tiling.tiles, norms * 2 * channels);
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
        if (src.raw.dtype == DType::u8 && dst_channels == n && src.norm && !src.relu) {
            launch<picture_kernel<D, n>>(grid_of(rows, 1 << 16), dim3(block_threads), stream, src.raw.as<uint8_t>(),
                                         static_cast<D*>(dst), affine_of(src.norm), rows, static_cast<int>(channels));
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
        const Tiling tiling = tile(rows, channels, n);
        float* const partials = static_cast<float*>(workspace);
        launch<stats_kernel<T, n>>(tiling.grid(), tiling.block(), stream, static_cast<const T*>(data), partials, rows,
                                   channels, tiling.rows_per_tile);
        launch<merge_stats_kernel>(merge_grid(channels), dim3(merge_lanes, merge_rows), stream, partials,
                                   stats.as<float>(), rows, channels, tiling.rows_per_tile, tiling.tiles);
    });
}

int64_t stats_workspace_bytes(int64_t rows, int64_t channels) {
    return tile_bound(rows, channels) * 3 * channels * 4;
}

int64_t leave_workspace_bytes(int64_t rows, int64_t channels) {
    return tile_bound(rows, channels) * 4 * channels * 4;
}

void leave_gradient(cudaStream_t stream, const PlainGradient& source, const DiffSrc& target, void* workspace) {
    with_packs(target.diff.dtype, target.diff.shape[3], [&](auto element, auto width) {
        using T = decltype(element);
        leave<T, decltype(width)::value>(stream, PlainSource<T>{static_cast<const T*>(source.g), source.stride}, target,
                                         workspace);
    });
}

void leave_gradient(cudaStream_t stream, const MeanGradient& source, const DiffSrc& target, void* workspace) {
    with_packs(target.diff.dtype, target.diff.shape[3], [&](auto element, auto width) {
        using T = decltype(element);
        const MeanSource<T> mean{static_cast<const T*>(source.g), static_cast<uint32_t>(source.pixels),
                                 target.diff.shape[3], 1.0f / static_cast<float>(source.pixels)};
        leave<T, decltype(width)::value>(stream, mean, target, workspace);
    });
}

void leave_gradient(cudaStream_t stream, const MaxPoolGradient& source, const DiffSrc& target, void* workspace) {
    with_packs(target.diff.dtype, target.diff.shape[3], [&](auto element, auto width) {
        using T = decltype(element);
        const MaxPoolSource<T> pool{static_cast<const T*>(source.g), source.index, static_cast<int>(source.height),
                                    static_cast<int>(source.width), target.diff.shape[3]};
        leave<T, decltype(width)::value>(stream, pool, target, workspace);
    });
}

}  // namespace rn50::cuda
