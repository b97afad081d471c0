// The way a gradient is left: added to, clipped, and summed up for the norms that wait for it.
#include "affine.cuh"
#include "sums.cuh"
#include "tiles.h"
#include "tiling.cuh"

namespace rn50::cuda {

namespace {

// Sources. A thread takes one unit of a source after the other, which are `pixels` pixels: row() says where the first
// of them lies in the tensor and step() how much further pixel k, if the picture holds() it; fetch() hands on what it
// read of a unit, and values() makes the gradients of pixel k of that.

template <class T>
struct PlainSource {
    const T* g;
    int64_t stride;
    static constexpr int pixels = 1;
    int64_t units(int64_t rows) const { return rows; }
    __device__ int64_t row(int64_t unit) const { return unit; }
    __device__ int64_t step(int) const { return 0; }
    __device__ bool holds(int64_t, int) const { return true; }
    template <int n>
    __device__ Pack<T, n> fetch(int64_t unit, int64_t channel) const {
        return load_pack<n>(g + unit * stride + channel);
    }
    template <int n>
    __device__ void values(const Pack<T, n>& read, int, float (&to)[n]) const {
        unpack(read, to);
    }
};

template <class T>
struct MeanSource {
    const T* g;
    uint32_t mean_of;  ///< pixels
    int64_t channels;
    float inverse;
    static constexpr int pixels = 1;
    int64_t units(int64_t rows) const { return rows; }
    __device__ int64_t row(int64_t unit) const { return unit; }
    __device__ int64_t step(int) const { return 0; }
    __device__ bool holds(int64_t, int) const { return true; }
    template <int n>
    __device__ Pack<T, n> fetch(int64_t unit, int64_t channel) const {
        return load_pack<n>(g + int64_t{static_cast<uint32_t>(unit) / mean_of} * channels + channel);
    }
    template <int n>
    __device__ void values(const Pack<T, n>& read, int, float (&to)[n]) const {
        unpack(read, to);
#pragma unroll
        for (int i = 0; i < n; ++i)
            to[i] *= inverse;
    }
};

/// A unit is a window: of its pixels the middle one and those to the right of it and below. These four share four
/// windows: their own, the next one to the right, those below.
template <class T>
struct MaxPoolSource {
    const T* g;
    const uint8_t* index;
    int height, width, out_height, out_width;
    int64_t channels;
    static constexpr int pixels = 4;
    int64_t units(int64_t rows) const { return rows / (int64_t{height} * width) * out_height * out_width; }

    struct Place {
        int64_t picture;
        int y, x;  ///< of the window
    };
    __device__ Place place(int64_t unit) const {
        const auto window = static_cast<uint32_t>(unit), line = window / static_cast<uint32_t>(out_width),
                   picture = line / static_cast<uint32_t>(out_height);
        return {picture, static_cast<int>(line - picture * static_cast<uint32_t>(out_height)),
                static_cast<int>(window - line * static_cast<uint32_t>(out_width))};
    }
    __device__ int64_t row(int64_t unit) const {
        const Place at = place(unit);
        return (at.picture * height + 2 * at.y) * width + 2 * at.x;
    }
    __device__ int64_t step(int k) const { return k / 2 * width + k % 2; }
    __device__ bool holds(int64_t unit, int k) const {
        const Place at = place(unit);
        return 2 * at.y + k / 2 < height && 2 * at.x + k % 2 < width;
    }
    template <int n>
    struct Windows {
        Pack<T, n> g[4];
        Pack<uint8_t, n> first[4];
        bool there[4];
    };
    template <int n>
    __device__ Windows<n> fetch(int64_t unit, int64_t channel) const {
        const Place at = place(unit);
        const int64_t first = unit * channels + channel;
        Windows<n> read;
#pragma unroll
        for (int w = 0; w < 4; ++w) {
            read.there[w] = at.y + w / 2 < out_height && at.x + w % 2 < out_width;
            const int64_t window = first + (read.there[w] ? (w / 2 * out_width + w % 2) * channels : 0);
            read.g[w] = load_pack<n>(g + window);
            read.first[w] = load_pack<n>(index + window);
        }
        return read;
    }
    /// The sum over the windows whose first maximum the pixel is.
    template <int n>
    __device__ void values(const Windows<n>& read, int k, float (&to)[n]) const {
#pragma unroll
        for (int w = 0; w < 4; ++w) {
            if (w / 2 > k / 2 || w % 2 > k % 2) continue;  // does not hold the pixel
            const int pixel = (k / 2 - w / 2 * 2 + 1) * 3 + k % 2 - w % 2 * 2 + 1;
            float from[n];
            unpack(read.g[w], from);
#pragma unroll
            for (int i = 0; i < n; ++i) {
                const float own = read.there[w] && read.first[w].v[i] == pixel ? from[i] : 0.0f;
                to[i] = w == 0 ? own : to[i] + own;
            }
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
    int64_t units, channels, units_per_tile;
    bool add;
};

template <class Source, class T, int n, int norms>
__global__ void __launch_bounds__(block_threads, sizeof(T) == 2 && norms > 0 && norms * Source::pixels < 8 ? 2 : 1)
    leave_kernel(Source source, Target<T> target) {
    RN50_SHARED(float, sums, norms > 0 ? sum_floats<n> : 1);
    constexpr int pixels = Source::pixels;
    const int64_t channels = target.channels;
    const Walk<n> walk(target.units, target.units_per_tile);
    const bool active = walk.channel < channels;
    const ChannelAffine<n> value(target.affine, walk.channel, active);
    float mean[norms + 1][n], found[norms + 1][2 * n] = {};
#pragma unroll
    for (int k = 0; k < norms; ++k)
        if (active) load(target.mean[k] + walk.channel, mean[k]);
    // All that a unit needs is read before any of it is used. Where that is little, of two units: more would take the
    // registers of another block. Four pixels leave room for the clipping tensor alone, which is the norm's, too,
    // wherever a net pools.
    constexpr int together = norms == 2 || pixels > 1 ? 1 : 2;
    constexpr bool ahead = pixels == 1;
    struct Read {
        decltype(source.template fetch<n>(0, 0)) own;
        Pack<T, n> at[pixels], before, raw[norms + 1];
    };
    const auto fetch = [&](int64_t unit) {
        Read read;
        read.own = source.template fetch<n>(unit, walk.channel);
        const int64_t first = source.row(unit) * channels + walk.channel;
        if (target.at)
#pragma unroll
            for (int p = 0; p < pixels; ++p)
                if (source.holds(unit, p)) read.at[p] = load_pack<n>(target.at + first + source.step(p) * channels);
        if (ahead && target.add) read.before = load_pack<n>(static_cast<const T*>(target.diff) + first);
#pragma unroll
        for (int k = 0; k < norms; ++k)
            if (ahead && target.raw[k] != target.at) read.raw[k] = load_pack<n>(target.raw[k] + first);
        return read;
    };
    const auto use = [&](int64_t unit, const Read& read) {
        const int64_t first = source.row(unit) * channels + walk.channel;
#pragma unroll
        for (int p = 0; p < pixels; ++p) {
            if (!source.holds(unit, p)) continue;
            T* const diff = target.diff + first + source.step(p) * channels;
            float g[n], x[n];
            source.values(read.own, p, g);
            if (target.add) {
                unpack(ahead ? read.before : load_pack<n>(static_cast<const T*>(diff)), x);
#pragma unroll
                for (int i = 0; i < n; ++i)
                    g[i] += x[i];
            }
            if (target.at) {
                unpack(read.at[p], x);
#pragma unroll
                for (int i = 0; i < n; ++i)
                    if (!(value(x[i], i) > 0.0f)) g[i] = 0;
            }
            const Pack<T, n> left = packed<T>(g);
            store_pack(diff, left);
            unpack(left, g);  // the sums are of what is stored
#pragma unroll
            for (int k = 0; k < norms; ++k) {
                float y[n];
                if (target.raw[k] != target.at) {
                    unpack(ahead ? read.raw[k] : load_pack<n>(target.raw[k] + first + source.step(p) * channels), y);
                } else {
#pragma unroll
                    for (int i = 0; i < n; ++i)
                        y[i] = x[i];
                }
#pragma unroll
                for (int i = 0; i < n; ++i) {
                    found[k][i] += g[i];
                    found[k][n + i] += g[i] * (y[i] - mean[k][i]);
                }
            }
        }
    };
    if (active) for_rows<together>(walk, fetch, use);
#pragma unroll
    for (int k = 0; k < norms; ++k) {
        if (k > 0) __syncthreads();  // the sums before are still being read
        float* const tile = target.partials + (int64_t{blockIdx.x} * norms + k) * 2 * channels;
        const int64_t first = int64_t{blockIdx.y} * blockDim.x * n;
        sum_over_rows<n>(found[k], sums, [&](int kind, int channel, float sum) {
            if (first + channel < channels) tile[kind * channels + first + channel] = sum;
        });
    }
}

/// Of the norms that a gradient was gathered for.
struct SumsOut {
    const float* inv_std[2];
    float* sums[2];  ///< {2, C} each
};

/// partials {tiles, norms, 2, C} to the sums of norm blockIdx.y, the second of them times inv_std. Reads 8 bytes a
/// tile, norm and channel.
__global__ void __launch_bounds__(merge_threads)
    merge_sums_kernel(const float* __restrict__ partials, SumsOut out, int channels, int tiles) {
    RN50_SHARED(float, first, merge_floats);
    RN50_SHARED(float, second, merge_floats);
    const int channel = static_cast<int>(blockIdx.x * merge_lanes + threadIdx.x);
    const bool active = channel < channels;
    float read[2][merge_tiles] = {};
#pragma unroll
    for (int k = 0; k < merge_tiles; ++k) {
        const int t = static_cast<int>(threadIdx.y) + k * merge_rows;
        const float* const tile = partials + (int64_t{t} * gridDim.y + blockIdx.y) * 2 * channels + channel;
        if (active && t < tiles) {
            read[0][k] = tile[0];
            read[1][k] = tile[channels];
        }
    }
    float plain = 0, centered = 0;
#pragma unroll
    for (int k = 0; k < merge_tiles; ++k) {
        plain += read[0][k];
        centered += read[1][k];
    }
    plain = merged(plain, first);
    centered = merged(centered, second);
    if (threadIdx.y != 0 || !active) return;
    float* const sums = out.sums[blockIdx.y];
    sums[channel] = plain;
    sums[channels + channel] = centered * out.inv_std[blockIdx.y][channel];
}

template <class T, int n, class Source>
void leave(cudaStream_t stream, const Source& source, const DiffSrc& target, void* workspace) {
    const Tensor& diff = target.diff;
    const int64_t channels = diff.shape[3], rows = diff.count() / channels;
    RN50_REQUIRE(rows < int64_t{1} << 31, "a gradient of ", rows, " pixels");  // sources divide in 32 bits
    Target<T> t{};
    t.units = source.units(rows);
    const Tiling tiling = sum_tile(t.units, channels, n);
    int norms = 0;
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
    t.channels = channels;
    t.units_per_tile = tiling.rows_per_tile;
    t.add = target.write == Write::add;
    if (norms == 0)
        launch<leave_kernel<Source, T, n, 0>>(tiling.grid(), tiling.block(), stream, source, t);
    else if (norms == 1)
        launch<leave_kernel<Source, T, n, 1>>(tiling.grid(), tiling.block(), stream, source, t);
    else
        launch<leave_kernel<Source, T, n, 2>>(tiling.grid(), tiling.block(), stream, source, t);
    if (norms > 0)
        launch<merge_sums_kernel>(merge_grid(channels, norms), merge_block(), stream, t.partials, out,
                                  static_cast<int>(channels), static_cast<int>(tiling.tiles));
}

}  // namespace

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
        const int height = static_cast<int>(source.height), width_ = static_cast<int>(source.width);
        MaxPoolSource<T> pool{};
        pool.g = static_cast<const T*>(source.g);
        pool.index = source.index;
        pool.height = height;
        pool.width = width_;
        pool.out_height = (height + 1) / 2;
        pool.out_width = (width_ + 1) / 2;
        pool.channels = target.diff.shape[3];
        leave<T, decltype(width)::value>(stream, pool, target, workspace);
    });
}

}  // namespace rn50::cuda
