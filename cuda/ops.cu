// Batch norm's arithmetic, joins, pooling, dropout and the loss.
#include "affine.cuh"
#include "backend/carver.h"
#include "backend/merge.h"
#include "base/random.h"
#include "cuda_backend.h"
#include "keys.cuh"
#include "tiles.h"
#include "tiling.cuh"

namespace rn50::cuda {

namespace {

// --- batch norm: one thread a channel; some ten floats of it are read and written

struct NormOut {
    float *scale, *shift, *mean, *inv_std;
};

NormOut out_of(const Norm& norm) {
    return {norm.scale.as<float>(), norm.shift.as<float>(), norm.mean.as<float>(), norm.inv_std.as<float>()};
}

__device__ void fill_norm(const NormOut& norm, int64_t c, float mean, double variance, float eps, float gamma,
                          float beta) {
    const float inv_std = static_cast<float>(1.0 / sqrt(variance + static_cast<double>(eps)));
    const float scale = __fmul_rn(gamma, inv_std);
    norm.mean[c] = mean;
    norm.inv_std[c] = inv_std;
    norm.scale[c] = scale;
    norm.shift[c] = beta - mean * scale;
}

__global__ void __launch_bounds__(block_threads)
    norm_from_batch_kernel(const float* stats, double count, const float* gamma, const float* beta, float eps,
                           NormOut norm, float* observed, int64_t channels) {
    const int64_t c = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    const float mean = stats[c], m2 = stats[channels + c];
    fill_norm(norm, c, mean, static_cast<double>(m2) / count, eps, gamma[c], beta[c]);
    if (!observed) return;
    observed[c] = mean;
    observed[channels + c] = static_cast<float>(static_cast<double>(m2) / (count - 1));
}

__global__ void __launch_bounds__(block_threads)
    norm_from_running_kernel(const float* running, const float* gamma, const float* beta, float eps, NormOut norm,
                             int64_t channels) {
    const int64_t c = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (c < channels)
        fill_norm(norm, c, running[c], static_cast<double>(running[channels + c]), eps, gamma[c], beta[c]);
}

struct NormGradientOut {
    float *factor, *mean_dz, *slope, *diff_gamma, *diff_beta;
};

/// inverse: 1 / count, or 0 when mean and variance were constants.
__global__ void __launch_bounds__(block_threads)
    norm_backward_kernel(const float* sums, double inverse, const float* inv_std, const float* gamma,
                         NormGradientOut out, bool add, int64_t channels) {
    const int64_t c = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    const float dz = sums[c], dz_normalised = sums[channels + c];
    out.factor[c] = gamma[c] * inv_std[c];
    out.mean_dz[c] = static_cast<float>(static_cast<double>(dz) * inverse);
    out.slope[c] = static_cast<float>(static_cast<double>(dz_normalised) * inverse * static_cast<double>(inv_std[c]));
    out.diff_gamma[c] = add ? out.diff_gamma[c] + dz_normalised : dz_normalised;
    out.diff_beta[c] = add ? out.diff_beta[c] + dz : dz;
}

/// Reads 8 and writes 4 bytes an element of all norms.
__global__ void __launch_bounds__(block_threads)
    update_running_kernel(const float* observed, float* running, float momentum, const StepState* state,
                          int64_t count) {
    const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i >= count || state->skip) return;
    running[i] = (1.0f - momentum) * running[i] + momentum * observed[i];
}

/// One thread a channel; reads 8 bytes a channel and rank.
__global__ void __launch_bounds__(block_threads)
    merge_statistics_kernel(const float* __restrict__ parts, int64_t ranks, int64_t count, float* __restrict__ stats,
                            int64_t channels) {
    const int64_t c = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    const Moments moments = merged_moments(parts, ranks, channels, c, count);
    stats[c] = static_cast<float>(moments.mean);
    stats[channels + c] = static_cast<float>(moments.m2);
}

/// Reads 4 bytes an element and rank.
__global__ void __launch_bounds__(block_threads)
    sum_parts_kernel(const float* __restrict__ parts, int64_t ranks, float* __restrict__ sums, int64_t count) {
    const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i < count) sums[i] = static_cast<float>(summed_part(parts, ranks, count, i));
}

// --- joins and pools

/// Reads both sides and writes dst once.
template <class T, int n>
__global__ void __launch_bounds__(block_threads, 2)
    join_kernel(const T* __restrict__ a, Affine of_a, const T* __restrict__ b, Affine of_b, T* __restrict__ dst,
                int64_t rows, int64_t channels, int64_t rows_per_tile) {
    const Walk<n> walk(rows, rows_per_tile);
    if (walk.channel >= channels) return;
    const ChannelAffine<n> value_a(of_a, walk.channel, true), value_b(of_b, walk.channel, true);
    struct Read {
        Pack<T, n> a, b;
    };
    for_rows(
        walk,
        [&](int64_t row) {
            const int64_t place = row * channels + walk.channel;
            return Read{load_pack<n>(a + place), load_pack<n>(b + place)};
        },
        [&](int64_t row, const Read& read) {
            float x[n], y[n];
            unpack(read.a, x);
            unpack(read.b, y);
#pragma unroll
            for (int i = 0; i < n; ++i)
                x[i] = clip(value_a(x[i], i) + value_b(y[i], i));
            store(dst + row * channels + walk.channel, x);
        });
}

/// A picture batch {N, height, width, C} that is pooled to {N, out_height, out_width, C}. blockIdx.x is a row of the
/// output; the threads of blockIdx.y share it, `packs` of them a pixel.
struct Pooling {
    int height, width, out_height, out_width;
    int packs;
    int64_t channels;
};

/// 3x3, stride 2, padding 1. Writes to `out` the maximum of each window or, as a byte, its place in the window: of
/// equal ones the first. What is pending is monotone, so that the elements are compared as they are, those of a channel
/// with a negative scale the other way round, and only the greatest is scaled. (Of two that only rounding would make
/// equal the greater one counts.) Neighbouring windows read their common pixels from the cache: 1.25 elements are read
/// from memory for each of src.
template <class T, int n, class Out>
__global__ void __launch_bounds__(block_threads, 3)
    max_pool_kernel(const T* __restrict__ src, Affine affine, bool relu, Out* __restrict__ out, Pooling p) {
    constexpr bool places = std::is_same_v<Out, uint8_t>;
    const int thread = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x), ox = thread / p.packs;
    if (ox >= p.out_width) return;
    const int64_t channel = int64_t{thread % p.packs} * n;
    const int oy = static_cast<int>(blockIdx.x) % p.out_height;
    const int64_t first_row = int64_t{static_cast<int>(blockIdx.x) / p.out_height} * p.height;
    const T* const picture = src + first_row * p.width * p.channels + channel;
    // Where the window reaches beyond the picture the nearest pixel is read again, which the window holds: then no read
    // waits for a branch, and all of them are under way at once.
    Pack<T, n> read[3][3];
    int64_t along[3];
#pragma unroll
    for (int column = 0; column < 3; ++column) {
        const int x = 2 * ox - 1 + column;
        along[column] = (x < 0 ? 0 : x >= p.width ? p.width - 1 : x) * p.channels;
    }
#pragma unroll
    for (int row = 0; row < 3; ++row) {
        const int y = 2 * oy - 1 + row, inner_y = y < 0 ? 0 : y >= p.height ? p.height - 1 : y;
        const T* const line = picture + int64_t{inner_y} * p.width * p.channels;
#pragma unroll
        for (int column = 0; column < 3; ++column)
            read[row][column] = load_pack<n>(line + along[column]);
    }
    const ChannelAffine<n> value(affine, channel, true);
    const int64_t at = (int64_t{blockIdx.x} * p.out_width + ox) * p.channels + channel;
    using Key = Keys<T>;
    constexpr int per = Key::in_word, words = (n + per - 1) / per;
    // 0: all values are the same, and NaN where an element is infinite.
    const auto sign_of = [&](int i) {
        return i >= n || !value.present || value.scale[i] > 0.0f ? 1.0f : value.scale[i] < 0.0f ? -1.0f : 0.0f;
    };
    Key sign[words], best[words];
    const int first_place = (oy == 0 ? 3 : 0) + (ox == 0 ? 1 : 0);
    uint32_t place[words];
#pragma unroll
    for (int w = 0; w < words; ++w) {
        sign[w] = Key::of(sign_of(w * per), sign_of(w * per + per - 1));
        best[w] = Key::of(-INFINITY, -INFINITY);
        place[w] = Key::in_each(static_cast<uint32_t>(first_place));
    }
#pragma unroll
    for (int row = 0; row < 3; ++row)
#pragma unroll
        for (int column = 0; column < 3; ++column) {
            if (places && ((row == 0 && oy == 0) || (column == 0 && ox == 0))) continue;  // a pixel that comes again
            uint32_t own[words] = {};
            memcpy(own, &read[row][column], sizeof read[row][column]);
#pragma unroll
            for (int w = 0; w < words; ++w) {
                const Key key = Key{own[w]}.times(sign[w]);
                if (places) {
                    const uint32_t above = key.above(best[w]);
                    best[w].word = (above & key.word) | (~above & best[w].word);
                    place[w] = (above & Key::in_each(row * 3 + column)) | (~above & place[w]);
                } else {
                    best[w] = best[w].or_greater(key);
                }
            }
        }
    float greatest[n];
#pragma unroll
    for (int i = 0; i < n; ++i) {
        greatest[i] = value(best[i / per].times(sign[i / per]).at(i % per), i);
        if (relu) greatest[i] = clip(greatest[i]);
    }
    if constexpr (places) {
        Pack<uint8_t, n> found;
#pragma unroll
        for (int i = 0; i < n; ++i)  // where all values are clipped, the first of them
            found.v[i] = static_cast<uint8_t>(relu && !(greatest[i] > 0.0f) ? static_cast<uint32_t>(first_place)
                                                                            : place[i / per] >> i % per * 16);
        store_pack(out + at, found);
    } else {
        store(out + at, greatest);
    }
}

/// dst {N, C} = mean over the pixels of src {N, pixels, C}. Reads src once, seven pixels at a time: a net has 7x7 of
/// them.
template <class T, int n>
__global__ void __launch_bounds__(block_threads, 2)
    avg_pool_kernel(const T* __restrict__ src, T* __restrict__ dst, int64_t pixels, int64_t channels, int64_t packs,
                    int64_t threads) {
    const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (thread >= threads) return;
    const int64_t channel = thread % packs * n, picture = thread / packs;
    const T* const from = src + picture * pixels * channels + channel;
    float sum[n] = {};
    for_rows<7>(
        Steps{0, pixels, 1}, [&](int64_t pixel) { return load_pack<n>(from + pixel * channels); },
        [&](int64_t, const Pack<T, n>& read) {
            float x[n];
            unpack(read, x);
#pragma unroll
            for (int i = 0; i < n; ++i)
                sum[i] += x[i];
        });
    const float inverse = 1.0f / static_cast<float>(pixels);
#pragma unroll
    for (int i = 0; i < n; ++i)
        sum[i] *= inverse;
    store(dst + picture * channels + channel, sum);
}

// --- classifier and loss

/// A DropoutKey as a kernel takes it.
struct MaskKey {
    uint64_t seed;
    const int32_t* step;
    int64_t first_sample;
};

/// A thread takes the four channels of one block of random numbers, at once where rows are made of fours. Reads and
/// writes each element once.
template <class T>
__global__ void __launch_bounds__(block_threads)
    dropout_kernel(const T* src, T* dst, float p, MaskKey key, int64_t rows, int64_t channels, int64_t fours) {
    const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (thread >= rows * fours) return;
    const int64_t row = thread / fours, four = thread % fours;
    const uint64_t sample = static_cast<uint64_t>(key.first_sample + row);
    const auto words =
        philox({static_cast<uint32_t>(four), static_cast<uint32_t>(*key.step), static_cast<uint32_t>(sample),
                static_cast<uint32_t>(sample >> 32) ^ (static_cast<uint32_t>(Purpose::dropout) << 24)},
               {static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32)});
    const float keep = 1.0f / (1.0f - p);
    const auto kept = [&](float v, int i) {
        const float uniform = static_cast<float>(words[static_cast<size_t>(i)] >> 8) * 0x1p-24f;
        return uniform >= p ? v * keep : 0.0f;
    };
    const int64_t at = row * channels + four * 4;
    if (channels % 4 == 0) {
        float v[4];
        load(src + at, v);
#pragma unroll
        for (int i = 0; i < 4; ++i)
            v[i] = kept(v[i], i);
        store(dst + at, v);
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (four * 4 + i < channels) dst[at + i] = from_float<T>(kept(to_float(src[at + i]), i));
    }
}

__device__ inline float warp_sum(float value) {
    for (int by = 16; by > 0; by /= 2)
        value += __shfl_xor_sync(0xFFFFFFFFu, value, by);
    return value;
}

__device__ inline float warp_max(float value) {
    for (int by = 16; by > 0; by /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFu, value, by));
    return value;
}

/// Targets as a kernel takes them; what is absent is null.
struct LossTargets {
    const int32_t* labels;
    const int32_t* partners;
    const float* weights;
    const float* share;
    float total;
};

/// A warp takes a row of logits. Reads them from memory once (three times in all) and writes their gradient once.
__global__ void __launch_bounds__(block_threads)
    cross_entropy_kernel(const float* __restrict__ logits, LossTargets targets, float smoothing, const StepState* state,
                         float* __restrict__ loss, float* __restrict__ diff_logits, int64_t batch, int64_t classes) {
    const int64_t row = int64_t{blockIdx.x} * (block_threads / 32) + threadIdx.x / 32;
    if (row >= batch) return;  // whole warps
    const int64_t lane = threadIdx.x % 32;
    const float* const x = logits + row * classes;
    const float* const weights = targets.weights;
    const int32_t label = targets.labels[row], partner = targets.partners ? targets.partners[row] : label;
    const float hot = 1.0f - smoothing, off = smoothing / static_cast<float>(classes);
    const float share = targets.share ? *targets.share : 1.0f;
    const float own = hot * share * (weights ? weights[label] : 1.0f);
    const float other = targets.partners ? hot * (1.0f - share) * (weights ? weights[partner] : 1.0f) : 0.0f;
    float top = -INFINITY;
    for (int64_t k = lane; k < classes; k += 32)
        top = fmaxf(top, x[k]);
    top = warp_max(top);
    float sum = 0, off_sum = 0, off_total = 0;
    for (int64_t k = lane; k < classes; k += 32) {
        const float weight = weights ? weights[k] : 1.0f;
        sum += expf(x[k] - top);
        off_sum += weight * (x[k] - top);
        off_total += weight;
    }
    sum = warp_sum(sum);
    off_sum = warp_sum(off_sum);
    off_total = warp_sum(off_total);
    // -sum w q log p, with log p_k = x_k - top - log_sum
    const float log_sum = logf(sum), all = own + other + off * off_total;
    if (lane == 0) loss[row] = all * log_sum - own * (x[label] - top) - other * (x[partner] - top) - off * off_sum;
    if (!diff_logits) return;
    const float scale = state->loss_scale / targets.total;
    for (int64_t k = lane; k < classes; k += 32) {
        const float wanted =
            (k == label ? own : 0.0f) + (k == partner ? other : 0.0f) + off * (weights ? weights[k] : 1.0f);
        diff_logits[row * classes + k] = (expf(x[k] - top - log_sum) * all - wanted) * scale;
    }
}

template <class T, int n, class Out>
void pool_maximum(cudaStream_t stream, const Activation& src, Out* out) {
    const Shape& in = src.raw.shape;
    Pooling p{};
    p.height = static_cast<int>(in[1]);
    p.width = static_cast<int>(in[2]);
    p.out_height = (p.height + 1) / 2;
    p.out_width = (p.width + 1) / 2;
    p.channels = in[3];
    p.packs = static_cast<int>(in[3] / n);
    const dim3 grid(static_cast<unsigned>(in[0] * p.out_height),
                    static_cast<unsigned>(ceil_div(int64_t{p.out_width} * p.packs, block_threads)));
    launch<max_pool_kernel<T, n, Out>>(grid, dim3(block_threads), stream, static_cast<const T*>(src.raw.data),
                                       affine_of(src.norm), src.relu, out, p);
}

struct MaxPoolBackward {
    uint8_t* index;
    void* sums;
    MaxPoolBackward(const Shape& in, Carver& carver)
        : index(carver.take<uint8_t>(in[0] * ((in[1] + 1) / 2) * ((in[2] + 1) / 2) * in[3])),
          sums(carver.take(leave_workspace_bytes(in[0] * in[1] * in[2], in[3]))) {}
};

}  // namespace

// --- the ops

void CudaBackend::do_norm_from_batch(const Tensor& stats, int64_t count, const Tensor& gamma, const Tensor& beta,
                                     float eps, const Norm& norm, const Tensor& observed) {
    launch<norm_from_batch_kernel>(grid_of(gamma.count()), dim3(block_threads), stream_, floats(stats),
                                   static_cast<double>(count), floats(gamma), floats(beta), eps, out_of(norm),
                                   observed ? observed.as<float>() : nullptr, gamma.count());
}

void CudaBackend::do_norm_from_running(const Tensor& running, const Tensor& gamma, const Tensor& beta, float eps,
                                       const Norm& norm) {
    launch<norm_from_running_kernel>(grid_of(gamma.count()), dim3(block_threads), stream_, floats(running),
                                     floats(gamma), floats(beta), eps, out_of(norm), gamma.count());
}

void CudaBackend::do_norm_backward(const Tensor& sums, int64_t count, const Norm& norm, const Tensor& gamma,
                                   const NormGradient& gradient, const Tensor& diff_gamma, const Tensor& diff_beta,
                                   Write write) {
    const NormGradientOut out{gradient.factor.as<float>(), gradient.mean_dz.as<float>(), gradient.slope.as<float>(),
                              diff_gamma.as<float>(), diff_beta.as<float>()};
    launch<norm_backward_kernel>(grid_of(gamma.count()), dim3(block_threads), stream_, floats(sums),
                                 norm.frozen ? 0.0 : 1.0 / static_cast<double>(count), floats(norm.inv_std),
                                 floats(gamma), out, write == Write::add, gamma.count());
}

void CudaBackend::do_norm_update_running(const Tensor& observed, const Tensor& running, float momentum,
                                         const Tensor& state) {
    launch<update_running_kernel>(grid_of(running.count()), dim3(block_threads), stream_, floats(observed),
                                  running.as<float>(), momentum, static_cast<const StepState*>(state.data),
                                  running.count());
}

void CudaBackend::do_merge_statistics(const Tensor& parts, int64_t count, const Tensor& stats) {
    const int64_t channels = stats.shape[1];
    launch<merge_statistics_kernel>(grid_of(channels), dim3(block_threads), stream_, floats(parts), parts.shape[0],
                                    count, stats.as<float>(), channels);
}

void CudaBackend::do_sum_parts(const Tensor& parts, const Tensor& sums) {
    launch<sum_parts_kernel>(grid_of(sums.count()), dim3(block_threads), stream_, floats(parts), parts.shape[0],
                             sums.as<float>(), sums.count());
}

void CudaBackend::do_join(const Activation& a, const Activation& b, const Tensor& dst) {
    const int64_t channels = dst.shape[3], rows = dst.count() / channels;
    with_packs(dst.dtype, channels, [&](auto element, auto width) {
        using T = decltype(element);
        constexpr int n = decltype(width)::value;
        const Tiling tiling = tile(rows, channels, n);
        launch<join_kernel<T, n>>(tiling.grid(), tiling.block(), stream_, static_cast<const T*>(a.raw.data),
                                  affine_of(a.norm), static_cast<const T*>(b.raw.data), affine_of(b.norm),
                                  static_cast<T*>(dst.data), rows, channels, tiling.rows_per_tile);
    });
}

void CudaBackend::do_max_pool(const Activation& src, const Tensor& dst) {
    with_packs(dst.dtype, dst.shape[3], [&](auto element, auto width) {
        using T = decltype(element);
        pool_maximum<T, decltype(width)::value>(stream_, src, static_cast<T*>(dst.data));
    });
}

int64_t CudaBackend::max_pool_workspace_bytes(const Shape& src) const {
    Carver carver;
    MaxPoolBackward(src, carver);
    return carver.used();
}

int64_t CudaBackend::avg_pool_workspace_bytes(const Shape& src) const {
    return leave_workspace_bytes(src[0] * src[1] * src[2], src[3]);
}

void CudaBackend::do_max_pool_backward(const Activation& src, const Tensor& diff_dst, const DiffSrc& diff_src,
                                       const Tensor& workspace) {
    const Shape& in = src.raw.shape;
    Carver carver(workspace.data);
    const MaxPoolBackward work(in, carver);
    with_packs(diff_dst.dtype, in[3], [&](auto element, auto width) {
        pool_maximum<decltype(element), decltype(width)::value>(stream_, src, work.index);
    });
    leave_gradient(stream_, MaxPoolGradient{diff_dst.data, work.index, in[1], in[2]}, diff_src, work.sums);
}

void CudaBackend::do_avg_pool(const Tensor& src, const Tensor& dst) {
    const int64_t channels = src.shape[3], pixels = src.shape[1] * src.shape[2];
    with_packs(src.dtype, channels, [&](auto element, auto width) {
        using T = decltype(element);
        constexpr int n = decltype(width)::value;
        const int64_t packs = channels / n, threads = src.shape[0] * packs;
        launch<avg_pool_kernel<T, n>>(grid_of(threads), dim3(block_threads), stream_, static_cast<const T*>(src.data),
                                      static_cast<T*>(dst.data), pixels, channels, packs, threads);
    });
}

void CudaBackend::do_avg_pool_backward(const Tensor& diff_dst, const DiffSrc& diff_src, const Tensor& workspace) {
    const Shape& shape = diff_src.diff.shape;
    leave_gradient(stream_, MeanGradient{diff_dst.data, shape[1] * shape[2]}, diff_src, workspace.data);
}

void CudaBackend::do_dropout(const Tensor& src, const Tensor& dst, float p, const DropoutKey& key) {
    const int64_t rows = src.shape[0], channels = src.shape[1], fours = ceil_div(channels, 4);
    const MaskKey mask{key.seed, key.step.as<int32_t>(), key.first_sample};
    with_act(src.dtype, [&](auto element) {
        using T = decltype(element);
        launch<dropout_kernel<T>>(grid_of(rows * fours), dim3(block_threads), stream_, static_cast<const T*>(src.data),
                                  static_cast<T*>(dst.data), p, mask, rows, channels, fours);
    });
}

void CudaBackend::do_softmax_cross_entropy(const Tensor& logits, const Targets& targets, float smoothing,
                                           const Tensor& state, const Tensor& loss, const Tensor& diff_logits) {
    const int64_t batch = logits.shape[0];
    const LossTargets on{targets.labels.as<int32_t>(), targets.partners ? targets.partners.as<int32_t>() : nullptr,
                         targets.class_weights ? targets.class_weights.as<float>() : nullptr,
                         targets.share ? targets.share.as<float>() : nullptr,
                         targets.total > 0 ? targets.total : static_cast<float>(batch)};
    launch<cross_entropy_kernel>(grid_of(batch * 32), dim3(block_threads), stream_, floats(logits), on, smoothing,
                                 static_cast<const StepState*>(state.data), loss.as<float>(),
                                 diff_logits ? diff_logits.as<float>() : nullptr, batch, logits.shape[1]);
}

}  // namespace rn50::cuda
