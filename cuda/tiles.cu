#include "tiles.h"

#include "affine.cuh"
#include "tiling.cuh"

namespace rn50::cuda {

namespace {

// --- elementwise

template <class S, class D, int n>
__global__ void __launch_bounds__(block_threads, 4)
    apply_kernel(const S* __restrict__ src, D* __restrict__ dst, Affine affine, bool relu, int64_t rows,
                 int64_t channels, int64_t dst_channels, int64_t rows_per_tile) {
    const Walk<n> walk(rows, rows_per_tile);
    if (walk.channel >= dst_channels) return;
    const bool active = walk.channel < channels;
    const ChannelAffine<n> value(affine, walk.channel, active);
    for_rows(
        walk, [&](int64_t row) { return active ? load_pack<n>(src + row * channels + walk.channel) : Pack<S, n>{}; },
        [&](int64_t row, const Pack<S, n>& read) {
            float x[n] = {};
            if (active) {
                unpack(read, x);
#pragma unroll
                for (int i = 0; i < n; ++i) {
                    x[i] = value(x[i], i);
                    if (relu) x[i] = clip(x[i]);
                }
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
    const bool active = walk.channel < channels;
    float f[n], m_dz[n], s[n], m[n];
    if (active) {
        load(factor + walk.channel, f);
        load(mean_dz + walk.channel, m_dz);
        load(slope + walk.channel, s);
        load(mean + walk.channel, m);
    }
    struct Read {
        Pack<T, n> dz, raw;
    };
    for_rows(
        walk,
        [&](int64_t row) {
            const int64_t place = row * channels + walk.channel;
            return active ? Read{load_pack<n>(dz + place), load_pack<n>(raw + place)} : Read{};
        },
        [&](int64_t row, const Read& read) {
            float d[n] = {};
            if (active) {
#pragma unroll
                for (int i = 0; i < n; ++i)
                    d[i] = f[i] * (to_float(read.dz.v[i]) - m_dz[i] - (to_float(read.raw.v[i]) - m[i]) * s[i]);
            }
            store(dst + row * dst_channels + walk.channel, d);
        });
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
__global__ void __launch_bounds__(block_threads, 4)
    stats_kernel(const T* __restrict__ data, float* __restrict__ partials, int64_t rows, int64_t channels,
                 int64_t rows_per_tile) {
    RN50_SHARED(float, sums, 2 * n * block_threads);
    const Walk<n> walk(rows, rows_per_tile);
    const bool active = walk.channel < channels;
    float pivot[n] = {}, found[2 * n] = {};
    if (active) load(data + int64_t{blockIdx.x} * rows_per_tile * channels + walk.channel, pivot);
    if (active)
        for_rows(
            walk, [&](int64_t row) { return load_pack<n>(data + row * channels + walk.channel); },
            [&](int64_t, const Pack<T, n>& read) {
#pragma unroll
                for (int i = 0; i < n; ++i) {
                    const float above = to_float(read.v[i]) - pivot[i];
                    found[i] += above;
                    found[n + i] += above * above;
                }
            });
    float* const tile = partials + int64_t{blockIdx.x} * 3 * channels;
    if (active && threadIdx.y == 0) store(tile + walk.channel, pivot);
    sum_over_rows(found, sums, [&](int i, int lane, float sum) {
        const int64_t channel = (int64_t{blockIdx.y} * blockDim.x + static_cast<unsigned>(lane)) * n + i % n;
        if (channel < channels) tile[(1 + i / n) * channels + channel] = sum;
    });
}

/// A block merges two channels and has many threads to each: a thread walks over its tiles one after the other and
/// waits for memory at each, and layers with many tiles have few channels. Few channels a block are many blocks:
/// GeForce GPUs do two f64 operations a clock on each multiprocessor, so all of these must have some.
constexpr int merge_lanes = 2, merge_rows = 128, merge_strands = 8;

/// The sum over the block's rows of threads, in a fixed order; valid for threadIdx.y == 0. All threads must call.
__device__ inline double merge_sum(double value, double* sums) {
    const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
    sums[y * merge_lanes + x] = value;
    __syncthreads();
    // In two steps, the first by several threads: additions of one thread wait for one another.
    double total = 0;
    if (y < merge_strands) {
        for (int row = y; row < merge_rows; row += merge_strands)
            total += sums[row * merge_lanes + x];
        sums[y * merge_lanes + x] = total;
    }
    __syncthreads();
    if (y == 0)
        for (int row = 1; row < merge_strands; ++row)
            total += sums[row * merge_lanes + x];
    return total;
}

/// partials {tiles, 3, C} to stats {2, C}: first the mean, then M2 = sum over tiles of
/// sum((x - mean)^2) = squares + 2 (pivot - mean) sum + n (pivot - mean)^2. Reads 12 bytes a tile and channel, 8 of
/// them twice, the second time from the cache.
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

/// Of the norms that a gradient was gathered for.
struct SumsOut {
    const float* inv_std[2];
    float* sums[2];  ///< {2, C} each
};

/// partials {tiles, norms, 2, C} to the sums of norm blockIdx.y, the second of them times inv_std. Reads 8 bytes a
/// tile, norm and channel.
__global__ void __launch_bounds__(merge_lanes* merge_rows)
    merge_sums_kernel(const float* __restrict__ partials, SumsOut out, int64_t channels, int64_t tiles) {
    RN50_SHARED(double, first, merge_lanes* merge_rows);
    RN50_SHARED(double, second, merge_lanes* merge_rows);
    const int64_t channel = int64_t{blockIdx.x} * merge_lanes + threadIdx.x;
    const bool active = channel < channels;
    double plain = 0, centered = 0;
    if (active)
        for (int64_t t = threadIdx.y; t < tiles; t += merge_rows) {
            const float* const tile = partials + (t * gridDim.y + blockIdx.y) * 2 * channels + channel;
            plain += tile[0];
            centered += tile[channels];
        }
    const double total = merge_sum(plain, first), total_centered = merge_sum(centered, second);
    if (threadIdx.y != 0 || !active) return;
    float* const sums = out.sums[blockIdx.y];
    sums[channel] = static_cast<float>(total);
    sums[channels + channel] = static_cast<float>(total_centered * out.inv_std[blockIdx.y][channel]);
}

dim3 merge_grid(int64_t channels, int norms = 1) {
    return dim3(static_cast<unsigned>(ceil_div(channels, merge_lanes)), static_cast<unsigned>(norms));
}

// --- the way a gradient is left: sources fetch() what they read of a row and make of it the value() of a channel

template <class T>
struct PlainSource {
    const T* g;
    int64_t stride;
    template <int n>
    __device__ Pack<T, n> fetch(int64_t row, int64_t channel) const {
        return load_pack<n>(g + row * stride + channel);
    }
    template <int n>
    __device__ float value(const Pack<T, n>& read, int i) const {
        return to_float(read.v[i]);
    }
};

template <class T>
struct MeanSource {
    const T* g;
    uint32_t pixels;
    int64_t channels;
    float inverse;
    template <int n>
    __device__ Pack<T, n> fetch(int64_t row, int64_t channel) const {
        return load_pack<n>(g + int64_t{static_cast<uint32_t>(row) / pixels} * channels + channel);
    }
    template <int n>
    __device__ float value(const Pack<T, n>& read, int i) const {
        return to_float(read.v[i]) * inverse;
    }
};

template <class T>
struct MaxPoolSource {
    const T* g;
    const uint8_t* index;
    int height, width;
    int64_t channels;
    /// Of the windows that hold a pixel: two by two, of which those that do not hold it are at no place.
    template <int n>
    struct Windows {
        Pack<T, n> g[4];
        Pack<uint8_t, n> first[4];
        int place[4];
    };
    template <int n>
    __device__ Windows<n> fetch(int64_t row, int64_t channel) const {
        const int out_height = (height + 1) / 2, out_width = (width + 1) / 2;
        const auto pixels = static_cast<uint32_t>(height * width), picture = static_cast<uint32_t>(row) / pixels;
        const int pixel = static_cast<int>(static_cast<uint32_t>(row) % pixels), y = pixel / width, x = pixel % width;
        Windows<n> read;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            // An even row or column is in the middle of one window, an odd one at the edges of two.
            const int oy = y / 2 + k / 2, ox = x / 2 + k % 2;
            const bool holds = oy <= (y + 1) / 2 && oy < out_height && ox <= (x + 1) / 2 && ox < out_width;
            const int64_t window = holds ? (int64_t{picture} * out_height + oy) * out_width + ox
                                         : (int64_t{picture} * out_height + y / 2) * out_width + x / 2;
            read.g[k] = load_pack<n>(g + window * channels + channel);
            read.first[k] = load_pack<n>(index + window * channels + channel);
            read.place[k] = holds ? (y - 2 * oy + 1) * 3 + (x - 2 * ox + 1) : -1;
        }
        return read;
    }
    /// The sum over the windows whose first maximum the pixel is.
    template <int n>
    __device__ float value(const Windows<n>& read, int i) const {
        float sum = 0;
#pragma unroll
        for (int k = 0; k < 4; ++k)
            if (read.first[k].v[i] == read.place[k]) sum += to_float(read.g[k].v[i]);
        return sum;
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
__global__ void __launch_bounds__(block_threads, sizeof(T) == 2 && norms > 0 ? 2 : 1)
    leave_kernel(Source source, Target<T> target) {
    RN50_SHARED(float, sums, norms > 0 ? 2 * n * block_threads : 1);
    const int64_t channels = target.channels;
    const Walk<n> walk(target.rows, target.rows_per_tile);
    const bool active = walk.channel < channels;
    const ChannelAffine<n> value(target.affine, walk.channel, active);
    float mean[norms + 1][n], found[norms + 1][2 * n] = {};
#pragma unroll
    for (int k = 0; k < norms; ++k)
        if (active) load(target.mean[k] + walk.channel, mean[k]);
    // All that a row needs is read before any of it is used. Where that is little, of two rows: more would take the
    // registers of another block.
    constexpr int together =
        norms == 2 || sizeof(decltype(source.template fetch<n>(0, 0))) > sizeof(Pack<T, n>) ? 1 : 2;
    struct Read {
        decltype(source.template fetch<n>(0, 0)) own;
        Pack<T, n> before, at, raw[norms + 1];
    };
    const auto fetch = [&](int64_t row) {
        const int64_t place = row * channels + walk.channel;
        Read read;
        read.own = source.template fetch<n>(row, walk.channel);
        if (target.add) read.before = load_pack<n>(static_cast<const T*>(target.diff) + place);
        if (target.at) read.at = load_pack<n>(target.at + place);
#pragma unroll
        for (int k = 0; k < norms; ++k)
            if (target.raw[k] != target.at) read.raw[k] = load_pack<n>(target.raw[k] + place);
        return read;
    };
    const auto use = [&](int64_t row, const Read& read) {
        float g[n];
        Pack<T, n> left;
#pragma unroll
        for (int i = 0; i < n; ++i) {
            g[i] = source.value(read.own, i);
            if (target.add) g[i] += to_float(read.before.v[i]);
            if (target.at && !(value(to_float(read.at.v[i]), i) > 0.0f)) g[i] = 0;
            left.v[i] = from_float<T>(g[i]);
            g[i] = to_float(left.v[i]);  // the sums are of what is stored
        }
        store_pack(target.diff + row * channels + walk.channel, left);
#pragma unroll
        for (int k = 0; k < norms; ++k) {
            const bool same = target.raw[k] == target.at;
#pragma unroll
            for (int i = 0; i < n; ++i) {
                const float x = to_float(same ? read.at.v[i] : read.raw[k].v[i]);
                found[k][i] += g[i];
                found[k][n + i] += g[i] * (x - mean[k][i]);
            }
        }
    };
    if (active) for_rows<together>(walk, fetch, use);
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
    SumsOut out{};
    t.diff = static_cast<T*>(diff.data);
    t.at = target.at.relu ? static_cast<const T*>(target.at.raw.data) : nullptr;
    t.affine = affine_of(target.at.norm);
    for (const NormSums& norm : target.norms) {
        if (!norm) break;
        t.raw[norms] = static_cast<const T*>(norm.raw.data);
        t.mean[norms] = floats(norm.mean);
        out.inv_std[norms] = floats(norm.inv_std);
        out.sums[norms++] = norm.sums.as<float>();
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
    if (norms > 0)
        launch<merge_sums_kernel>(merge_grid(channels, norms), dim3(merge_lanes, merge_rows), stream, t.partials, out,
                                  channels, tiling.tiles);
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
