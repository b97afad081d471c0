#include "naive.h"

#include <algorithm>
#include <cmath>

#include "base/random.h"

namespace rn50::naive {

namespace {

/// Calls visit(dst pixel, src pixel, kernel tap) for each product of a convolution that is not with padding. Pixels and
/// taps are flat indices without the channel.
template <class Visit>
void for_each_tap(const ConvDesc& d, Visit visit) {
    const int64_t out_height = d.dst_shape()[1], out_width = d.dst_shape()[2];
    for (int64_t n = 0; n < d.batch; ++n)
        for (int64_t y = 0; y < out_height; ++y)
            for (int64_t x = 0; x < out_width; ++x)
                for (int64_t ky = 0; ky < d.kernel; ++ky)
                    for (int64_t kx = 0; kx < d.kernel; ++kx) {
                        const int64_t h = y * d.stride - d.pad + ky, w = x * d.stride - d.pad + kx;
                        if (h < 0 || h >= d.height || w < 0 || w >= d.width) continue;
                        visit((n * out_height + y) * out_width + x, (n * d.height + h) * d.width + w,
                              ky * d.kernel + kx);
                    }
}

/// Weights {K, taps, C} as {taps, K, C}: then the inner loops of the three convolutions run over neighbours.
std::vector<double> by_tap(const ConvDesc& d, const Array& weights) {
    const int64_t taps = d.kernel * d.kernel;
    std::vector<double> sorted(weights.values.size());
    for (int64_t k = 0; k < d.out_channels; ++k)
        for (int64_t tap = 0; tap < taps; ++tap)
            for (int64_t c = 0; c < d.in_channels; ++c)
                sorted[static_cast<size_t>((tap * d.out_channels + k) * d.in_channels + c)] =
                    weights[(k * taps + tap) * d.in_channels + c];
    return sorted;
}

double as_float(double v) {
    return static_cast<double>(static_cast<float>(v));
}

}  // namespace

Array Array::row(int64_t r) const {
    Array part(Shape{shape[1]});
    std::copy_n(values.begin() + r * shape[1], shape[1], part.values.begin());
    return part;
}

Array before_relu(const Pending& pending) {
    if (pending.norm.scale.empty()) return pending.raw;
    Array result(pending.raw.shape);
    const int64_t channels = result.channels();
    for (int64_t i = 0; i < result.count(); ++i) {
        const double scale = pending.norm.scale[i % channels], shift = pending.norm.shift[i % channels];
        // A product of two floats is exact in double, so rounding it once is the f32 product; the sum likewise.
        result[i] =
            pending.smooth ? pending.raw[i] * scale + shift : as_float(as_float(pending.raw[i] * scale) + shift);
    }
    return result;
}

Array value(const Pending& pending) {
    Array result = before_relu(pending);
    if (pending.relu)
        for (double& v : result.values)
            v = v > 0 ? v : 0;
    return result;
}

Array conv(const ConvDesc& d, const Array& src, const Array& weights) {
    Array dst(d.dst_shape());
    const std::vector<double> taps = by_tap(d, weights);
    const int64_t C = d.in_channels, K = d.out_channels;
    for_each_tap(d, [&](int64_t to, int64_t from, int64_t tap) {
        const double* x = &src.values[static_cast<size_t>(from * C)];
        for (int64_t k = 0; k < K; ++k) {
            const double* w = &taps[static_cast<size_t>((tap * K + k) * C)];
            double sum = 0;
            for (int64_t c = 0; c < C; ++c)
                sum += x[c] * w[c];
            dst[to * K + k] += sum;
        }
    });
    return dst;
}

Array conv_backward_src(const ConvDesc& d, const Array& diff_dst, const Array& weights) {
    Array diff_src(d.src_shape());
    const std::vector<double> taps = by_tap(d, weights);
    const int64_t C = d.in_channels, K = d.out_channels;
    for_each_tap(d, [&](int64_t to, int64_t from, int64_t tap) {
        double* g = &diff_src.values[static_cast<size_t>(from * C)];
        for (int64_t k = 0; k < K; ++k) {
            const double* w = &taps[static_cast<size_t>((tap * K + k) * C)];
            const double dy = diff_dst[to * K + k];
            for (int64_t c = 0; c < C; ++c)
                g[c] += dy * w[c];
        }
    });
    return diff_src;
}

Array conv_backward_weights(const ConvDesc& d, const Array& src, const Array& diff_dst) {
    Array diff_weights(d.weights_shape());
    const int64_t C = d.in_channels, K = d.out_channels, taps = d.kernel * d.kernel;
    for_each_tap(d, [&](int64_t to, int64_t from, int64_t tap) {
        const double* x = &src.values[static_cast<size_t>(from * C)];
        for (int64_t k = 0; k < K; ++k) {
            double* g = &diff_weights.values[static_cast<size_t>((k * taps + tap) * C)];
            const double dy = diff_dst[to * K + k];
            for (int64_t c = 0; c < C; ++c)
                g[c] += dy * x[c];
        }
    });
    return diff_weights;
}

Array statistics(const Array& dst) {
    const int64_t channels = dst.channels(), count = dst.count() / channels;
    Array stats(Shape{2, channels});
    for (int64_t i = 0; i < dst.count(); ++i)
        stats[i % channels] += dst[i] / static_cast<double>(count);
    for (int64_t i = 0; i < dst.count(); ++i) {
        const double distance = dst[i] - stats[i % channels];
        stats[channels + i % channels] += distance * distance;
    }
    return stats;
}

Array infer(const ConvDesc& desc, const Array& src, const Array& weights, const Norm& norm, const Array& residual,
            bool relu) {
    Array dst = conv(desc, src, weights);
    const int64_t channels = dst.channels();
    for (int64_t i = 0; i < dst.count(); ++i) {
        dst[i] = dst[i] * norm.scale[i % channels] + norm.shift[i % channels];
        if (!residual.empty()) dst[i] += residual[i];
        if (relu && dst[i] < 0) dst[i] = 0;
    }
    return dst;
}

Array apply(const NormGradient& gradient, const Array& dz, const Array& raw) {
    Array d_raw(dz.shape);
    const int64_t channels = dz.channels();
    for (int64_t i = 0; i < dz.count(); ++i) {
        const int64_t c = i % channels;
        d_raw[i] = gradient.factor[c] * (dz[i] - gradient.mean_dz[c] - (raw[i] - gradient.mean[c]) * gradient.slope[c]);
    }
    return d_raw;
}

Array leave(const Array& g, const Array* before, const Pending& at) {
    Array diff = g;
    if (before)
        for (int64_t i = 0; i < diff.count(); ++i)
            diff[i] += (*before)[i];
    if (at.raw.empty() || !at.relu) return diff;
    const Array passed = before_relu(at);
    for (int64_t i = 0; i < diff.count(); ++i)
        if (!(passed[i] > 0)) diff[i] = 0;
    return diff;
}

Array norm_sums(const Array& diff, const Array& raw, const Array& mean, const Array& inv_std) {
    const int64_t channels = diff.channels();
    Array sums(Shape{2, channels});
    for (int64_t i = 0; i < diff.count(); ++i) {
        const int64_t c = i % channels;
        sums[c] += diff[i];
        sums[channels + c] += diff[i] * (raw[i] - mean[c]) * inv_std[c];
    }
    return sums;
}

namespace {

Norm norm_from(const Array& mean, const Array& variance, const Array& gamma, const Array& beta, double eps) {
    Norm norm{Array(mean.shape), Array(mean.shape), mean, Array(mean.shape), false};
    for (int64_t c = 0; c < mean.count(); ++c) {
        norm.inv_std[c] = 1 / std::sqrt(variance[c] + eps);
        norm.scale[c] = gamma[c] * norm.inv_std[c];
        norm.shift[c] = beta[c] - mean[c] * norm.scale[c];
    }
    return norm;
}

}  // namespace

Norm norm_from_batch(const Array& stats, int64_t count, const Array& gamma, const Array& beta, double eps) {
    Array variance = stats.row(1);
    for (double& v : variance.values)
        v /= static_cast<double>(count);
    return norm_from(stats.row(0), variance, gamma, beta, eps);
}

Array observed(const Array& stats, int64_t count) {
    Array result = stats;
    for (int64_t c = 0; c < stats.shape[1]; ++c)
        result[stats.shape[1] + c] /= static_cast<double>(count - 1);
    return result;
}

Norm norm_from_running(const Array& running, const Array& gamma, const Array& beta, double eps) {
    return norm_from(running.row(0), running.row(1), gamma, beta, eps);
}

NormGradient norm_backward(const Array& sums, int64_t count, const Norm& norm, const Array& gamma) {
    const Shape shape = gamma.shape;
    NormGradient gradient{Array(shape), Array(shape), Array(shape), norm.mean};
    for (int64_t c = 0; c < gamma.count(); ++c) {
        gradient.factor[c] = gamma[c] * norm.inv_std[c];
        if (norm.frozen) continue;
        gradient.mean_dz[c] = sums[c] / static_cast<double>(count);
        // sums[1] holds one inv_std already.
        gradient.slope[c] = norm.inv_std[c] * sums[gamma.count() + c] / static_cast<double>(count);
    }
    return gradient;
}

Array join(const Pending& a, const Pending& b) {
    Array result = before_relu(a);
    const Array other = before_relu(b);
    for (int64_t i = 0; i < result.count(); ++i)
        result[i] = std::max(result[i] + other[i], 0.0);
    return result;
}

namespace {

/// Calls visit(dst index, src index) with the first maximum of each 3x3 window, rows first.
template <class Visit>
void for_each_maximum(const Array& src, Visit visit) {
    const int64_t N = src.shape[0], H = src.shape[1], W = src.shape[2], C = src.shape[3];
    int64_t to = 0;
    for (int64_t n = 0; n < N; ++n)
        for (int64_t y = 0; y < (H + 1) / 2; ++y)
            for (int64_t x = 0; x < (W + 1) / 2; ++x)
                for (int64_t c = 0; c < C; ++c) {
                    int64_t best = -1;
                    for (int64_t h = std::max<int64_t>(2 * y - 1, 0); h <= std::min(2 * y + 1, H - 1); ++h)
                        for (int64_t w = std::max<int64_t>(2 * x - 1, 0); w <= std::min(2 * x + 1, W - 1); ++w) {
                            const int64_t i = ((n * H + h) * W + w) * C + c;
                            if (best < 0 || src[i] > src[best]) best = i;
                        }
                    visit(to++, best);
                }
}

}  // namespace

Array max_pool(const Array& src) {
    Array dst(Shape{src.shape[0], (src.shape[1] + 1) / 2, (src.shape[2] + 1) / 2, src.shape[3]});
    for_each_maximum(src, [&](int64_t to, int64_t from) { dst[to] = src[from]; });
    return dst;
}

Array max_pool_backward(const Array& src, const Array& diff_dst) {
    Array diff_src(src.shape);
    for_each_maximum(src, [&](int64_t to, int64_t from) { diff_src[from] += diff_dst[to]; });
    return diff_src;
}

Array avg_pool(const Array& src) {
    const int64_t N = src.shape[0], pixels = src.shape[1] * src.shape[2], C = src.shape[3];
    Array dst(Shape{N, C});
    for (int64_t n = 0; n < N; ++n)
        for (int64_t p = 0; p < pixels; ++p)
            for (int64_t c = 0; c < C; ++c)
                dst[n * C + c] += src[(n * pixels + p) * C + c] / static_cast<double>(pixels);
    return dst;
}

Array avg_pool_backward(const Array& diff_dst, const Shape& src) {
    Array diff_src(src);
    const int64_t pixels = src[1] * src[2], C = src[3];
    for (int64_t i = 0; i < diff_src.count(); ++i)
        diff_src[i] = diff_dst[i / (pixels * C) * C + i % C] / static_cast<double>(pixels);
    return diff_src;
}

Array linear(const Array& src, const Array& weights, const Array& bias) {
    const int64_t N = src.shape[0], C = src.shape[1], K = weights.shape[0];
    Array dst(Shape{N, K});
    for (int64_t n = 0; n < N; ++n)
        for (int64_t k = 0; k < K; ++k) {
            dst[n * K + k] = bias[k];
            for (int64_t c = 0; c < C; ++c)
                dst[n * K + k] += src[n * C + c] * weights[k * C + c];
        }
    return dst;
}

Array linear_backward_src(const Array& diff_dst, const Array& weights) {
    const int64_t N = diff_dst.shape[0], K = weights.shape[0], C = weights.shape[1];
    Array diff_src(Shape{N, C});
    for (int64_t n = 0; n < N; ++n)
        for (int64_t k = 0; k < K; ++k)
            for (int64_t c = 0; c < C; ++c)
                diff_src[n * C + c] += diff_dst[n * K + k] * weights[k * C + c];
    return diff_src;
}

Array linear_backward_weights(const Array& src, const Array& diff_dst) {
    const int64_t N = src.shape[0], C = src.shape[1], K = diff_dst.shape[1];
    Array diff_weights(Shape{K, C});
    for (int64_t n = 0; n < N; ++n)
        for (int64_t k = 0; k < K; ++k)
            for (int64_t c = 0; c < C; ++c)
                diff_weights[k * C + c] += diff_dst[n * K + k] * src[n * C + c];
    return diff_weights;
}

Array linear_backward_bias(const Array& diff_dst) {
    Array diff_bias(Shape{diff_dst.shape[1]});
    for (int64_t i = 0; i < diff_dst.count(); ++i)
        diff_bias[i % diff_bias.count()] += diff_dst[i];
    return diff_bias;
}

Array dropout(const Array& src, double p, const DropoutKey& key) {
    Array dst(src.shape);
    const int64_t C = src.shape[1];
    for (int64_t n = 0; n < src.shape[0]; ++n) {
        Random random(key.seed, static_cast<uint32_t>(key.step), static_cast<uint64_t>(key.first_sample + n),
                      Purpose::dropout);
        for (int64_t c = 0; c < C; ++c)
            dst[n * C + c] = random.uniform() >= p ? src[n * C + c] / (1 - p) : 0;
    }
    return dst;
}

namespace {

double target(int64_t k, int32_t label, double smoothing, int64_t classes) {
    return (k == label ? 1 - smoothing : 0) + smoothing / static_cast<double>(classes);
}

Array log_softmax(const Array& logits) {
    const int64_t K = logits.shape[1];
    Array result = logits;
    for (int64_t n = 0; n < logits.shape[0]; ++n) {
        double* row = &result.values[static_cast<size_t>(n * K)];
        const double highest = *std::max_element(row, row + K);
        double sum = 0;
        for (int64_t k = 0; k < K; ++k)
            sum += std::exp(row[k] - highest);
        for (int64_t k = 0; k < K; ++k)
            row[k] -= highest + std::log(sum);
    }
    return result;
}

}  // namespace

double LossTargets::total() const {
    double sum = 0;
    for (size_t i = 0; i < labels.size(); ++i)
        sum += share * weight(labels[i]) + (partners.empty() ? 0 : (1 - share) * weight(partners[i]));
    return sum;
}

Array cross_entropy(const Array& logits, const LossTargets& targets, double smoothing) {
    const int64_t N = logits.shape[0], K = logits.shape[1];
    const Array log_p = log_softmax(logits);
    Array loss(Shape{N});
    for (int64_t n = 0; n < N; ++n) {
        const auto at = static_cast<size_t>(n);
        for (int32_t k = 0; k < K; ++k) {
            double q = targets.share * target(k, targets.labels[at], smoothing, K);
            if (!targets.partners.empty()) q += (1 - targets.share) * target(k, targets.partners[at], smoothing, K);
            loss[n] -= targets.weight(k) * q * log_p[n * K + k];
        }
    }
    return loss;
}

Array cross_entropy_backward(const Array& logits, const LossTargets& targets, double smoothing, double loss_scale) {
    const int64_t N = logits.shape[0], K = logits.shape[1];
    const Array log_p = log_softmax(logits);
    Array diff = logits;
    for (int64_t n = 0; n < N; ++n)
        for (int64_t j = 0; j < K; ++j) {
            // d(-log p_k) / dx_j = p_j - [j = k]
            const auto at = static_cast<size_t>(n);
            double sum = 0;
            for (int32_t k = 0; k < K; ++k) {
                double q = targets.share * target(k, targets.labels[at], smoothing, K);
                if (!targets.partners.empty()) q += (1 - targets.share) * target(k, targets.partners[at], smoothing, K);
                sum += targets.weight(k) * q * (std::exp(log_p[n * K + j]) - (j == k ? 1 : 0));
            }
            diff[n * K + j] = sum / targets.total() * loss_scale;
        }
    return diff;
}

Array cross_entropy(const Array& logits, const std::vector<int32_t>& labels, double smoothing) {
    const int64_t N = logits.shape[0], K = logits.shape[1];
    const Array log_p = log_softmax(logits);
    Array loss(Shape{N});
    for (int64_t n = 0; n < N; ++n)
        for (int64_t k = 0; k < K; ++k)
            loss[n] -= target(k, labels[static_cast<size_t>(n)], smoothing, K) * log_p[n * K + k];
    return loss;
}

Array cross_entropy_backward(const Array& logits, const std::vector<int32_t>& labels, double smoothing,
                             double loss_scale) {
    const int64_t N = logits.shape[0], K = logits.shape[1];
    Array diff = log_softmax(logits);
    for (int64_t n = 0; n < N; ++n)
        for (int64_t k = 0; k < K; ++k)
            diff[n * K + k] = (std::exp(diff[n * K + k]) - target(k, labels[static_cast<size_t>(n)], smoothing, K)) /
                              static_cast<double>(N) * loss_scale;
    return diff;
}

StepState check_gradients(const Array& gradients, double clip_norm, const ScalePolicy& policy, StepState state,
                          double factor) {
    double squares = 0;
    for (const double g : gradients.values)
        squares += factor * g * factor * g;
    const double norm = std::sqrt(squares) / static_cast<double>(state.loss_scale);
    state.skip = std::isfinite(squares) ? 0 : 1;
    if (state.skip) {
        ++state.skipped;
        ++state.skipped_in_row;
        state.good_steps = 0;
        if (policy.dynamic) state.loss_scale *= policy.backoff;
        return state;
    }
    state.grad_norm = static_cast<float>(norm);
    const double clip = clip_norm > 0 && norm > clip_norm ? clip_norm / norm : 1;
    state.multiplier = static_cast<float>(clip * factor / static_cast<double>(state.loss_scale));
    state.skipped_in_row = 0;
    ++state.t;
    ++state.good_steps;
    if (policy.dynamic && state.good_steps >= policy.interval) {
        state.good_steps = 0;
        state.loss_scale *= policy.growth;
    }
    return state;
}

namespace {

void adamw(const OptimizerDesc& d, double decay, double& p, double g, double& m, double& v, const StepState& state) {
    const double lr = static_cast<double>(state.lr), b1 = static_cast<double>(d.beta1),
                 b2 = static_cast<double>(d.beta2);
    const double t = static_cast<double>(state.t);
    p -= lr * decay * p;
    m = b1 * m + (1 - b1) * g;
    v = b2 * v + (1 - b2) * g * g;
    p -= lr / (1 - std::pow(b1, t)) * m / (std::sqrt(v) / std::sqrt(1 - std::pow(b2, t)) + static_cast<double>(d.eps));
}

void sgd(const OptimizerDesc& d, double decay, double& p, double g, double& buffer, const StepState& state) {
    const double momentum = static_cast<double>(d.momentum);
    g += decay * p;
    buffer = state.t == 1 ? g : momentum * buffer + g;
    p -= static_cast<double>(state.lr) * (d.nesterov ? g + momentum * buffer : buffer);
}

}  // namespace

void optimize(const OptimizerDesc& desc, Array& parameters, const Array& gradients, Array& moment1, Array& moment2,
              const StepState& state) {
    if (state.skip) return;
    for (const ParameterRange& range : desc.ranges)
        for (int64_t i = range.begin; i < range.end; ++i) {
            const double decay = range.decay ? static_cast<double>(desc.weight_decay) : 0;
            const double g = gradients[i] * static_cast<double>(state.multiplier);
            if (desc.kind == OptimizerDesc::Kind::adamw)
                adamw(desc, decay, parameters[i], g, moment1[i], moment2[i], state);
            else
                sgd(desc, decay, parameters[i], g, moment1[i], state);
        }
}

}  // namespace rn50::naive
