// Batch norm's arithmetic, joins, pooling, dropout and the loss.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/tiles.h"
#include "backend/merge.h"
#include "base/random.h"

namespace rn50::cpu {

namespace {

const float* floats(const Tensor& tensor) {
    return tensor ? tensor.as<float>() : nullptr;
}

void fill_norm(int64_t c, float mean, double variance, float eps, float gamma, float beta, const Norm& norm) {
    const float inv_std = static_cast<float>(1.0 / std::sqrt(variance + static_cast<double>(eps)));
    const float scale = gamma * inv_std;
    norm.mean.as<float>()[c] = mean;
    norm.inv_std.as<float>()[c] = inv_std;
    norm.scale.as<float>()[c] = scale;
    norm.shift.as<float>()[c] = beta - mean * scale;
}

}  // namespace

void CpuBackend::do_norm_from_batch(const Tensor& stats, int64_t count, const Tensor& gamma, const Tensor& beta,
                                    float eps, const Norm& norm, const Tensor& observed) {
    const int64_t channels = gamma.count();
    const float *mean = stats.as<float>(), *m2 = mean + channels;
    for (int64_t c = 0; c < channels; ++c) {
        fill_norm(c, mean[c], static_cast<double>(m2[c]) / static_cast<double>(count), eps, gamma.as<float>()[c],
                  beta.as<float>()[c], norm);
        if (!observed) continue;
        observed.as<float>()[c] = mean[c];
        observed.as<float>()[channels + c] = static_cast<float>(m2[c] / static_cast<double>(count - 1));
    }
}

void CpuBackend::do_norm_from_running(const Tensor& running, const Tensor& gamma, const Tensor& beta, float eps,
                                      const Norm& norm) {
    const int64_t channels = gamma.count();
    const float* values = running.as<float>();
    for (int64_t c = 0; c < channels; ++c)
        fill_norm(c, values[c], values[channels + c], eps, gamma.as<float>()[c], beta.as<float>()[c], norm);
}

void CpuBackend::do_norm_backward(const Tensor& sums, int64_t count, const Norm& norm, const Tensor& gamma,
                                  const NormGradient& gradient, const Tensor& diff_gamma, const Tensor& diff_beta,
                                  Write write) {
    const int64_t channels = gamma.count();
    const float *dz = sums.as<float>(), *dz_normalised = dz + channels;
    for (int64_t c = 0; c < channels; ++c) {
        const float inv_std = norm.inv_std.as<float>()[c];
        const double inverse = norm.frozen ? 0.0 : 1.0 / static_cast<double>(count);
        gradient.factor.as<float>()[c] = gamma.as<float>()[c] * inv_std;
        gradient.mean_dz.as<float>()[c] = static_cast<float>(dz[c] * inverse);
        gradient.slope.as<float>()[c] = static_cast<float>(dz_normalised[c] * inverse * inv_std);
        float &d_gamma = diff_gamma.as<float>()[c], &d_beta = diff_beta.as<float>()[c];
        d_gamma = write == Write::add ? d_gamma + dz_normalised[c] : dz_normalised[c];
        d_beta = write == Write::add ? d_beta + dz[c] : dz[c];
    }
}

void CpuBackend::do_norm_update_running(const Tensor& observed, const Tensor& running, float momentum,
                                        const Tensor& state) {
    if (static_cast<const StepState*>(state.data)->skip) return;
    float* values = running.as<float>();
    for (int64_t i = 0; i < running.count(); ++i)
        values[i] = (1.0f - momentum) * values[i] + momentum * observed.as<float>()[i];
}

void CpuBackend::do_merge_statistics(const Tensor& parts, int64_t count, const Tensor& stats) {
    const int64_t channels = stats.shape[1];
    float* const merged = stats.as<float>();
    for (int64_t c = 0; c < channels; ++c) {
        const Moments moments = merged_moments(parts.as<float>(), parts.shape[0], channels, c, count);
        merged[c] = static_cast<float>(moments.mean);
        merged[channels + c] = static_cast<float>(moments.m2);
    }
}

void CpuBackend::do_sum_parts(const Tensor& parts, const Tensor& sums) {
    for (int64_t i = 0; i < sums.count(); ++i)
        sums.as<float>()[i] = static_cast<float>(summed_part(parts.as<float>(), parts.shape[0], sums.count(), i));
}

void CpuBackend::do_join(const Activation& a, const Activation& b, const Tensor& dst) {
    const int64_t channels = dst.shape[3], rows = dst.count() / channels;
    for_tiles(rows, channels, [&](int64_t, int64_t first, int64_t n) {
        const int64_t skip = first * channels * size_of(dst.dtype);
        kernels().join(static_cast<const char*>(a.raw.data) + skip, floats(a.norm.scale), floats(a.norm.shift),
                       static_cast<const char*>(b.raw.data) + skip, floats(b.norm.scale), floats(b.norm.shift),
                       static_cast<char*>(dst.data) + skip, dst.dtype, n, channels);
    });
}

void CpuBackend::do_max_pool(const Activation& src, const Tensor& dst) {
    const Shape& in = src.raw.shape;
    const int64_t rows = dst.shape[0] * dst.shape[1], picture = src.raw.bytes() / in[0], row = dst.bytes() / rows;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < rows; ++i)
        kernels().max_pool_row(static_cast<const char*>(src.raw.data) + i / dst.shape[1] * picture, dst.dtype, in[1],
                               in[2], in[3], floats(src.norm.scale), floats(src.norm.shift), src.relu, i % dst.shape[1],
                               static_cast<char*>(dst.data) + i * row);
}

int64_t CpuBackend::max_pool_workspace_bytes(const Shape& src) const {
    const int64_t pixels = src[1] * src[2];
    Carver carver;
    carver.take(std::min<int64_t>(src[0], threads_) * pixels * src[3] * 4);
    carver.take(std::min<int64_t>(src[0], threads_) * pixels * src[3] * 2);
    DiffSrcGatherer(carver, std::min<int64_t>(src[0], threads_) * pixels, src[3], nullptr);
    return carver.used();
}

void CpuBackend::do_max_pool_backward(const Activation& src, const Tensor& diff_dst, const DiffSrc& diff_src,
                                      const Tensor& workspace) {
    const Shape& in = src.raw.shape;
    const DType dtype = diff_dst.dtype;
    const int64_t group = std::min<int64_t>(in[0], threads_), pixels = in[1] * in[2], elements = pixels * in[3];
    Carver carver(workspace.data);
    float* sums = carver.take<float>(group * elements * 4);  // overlapping windows add up in f32
    void* rounded = carver.take(group * elements * 2);
    DiffSrcGatherer gatherer(carver, group * pixels, in[3], &diff_src);
    const int64_t picture = src.raw.bytes() / in[0], out_picture = diff_dst.bytes() / in[0];
    for (int64_t i = 0; i < in[0]; i += group) {
        const int64_t n = std::min(group, in[0] - i);
#pragma omp parallel for schedule(static)
        for (int64_t k = 0; k < n; ++k) {
            float* out = sums + k * elements;
            std::memset(out, 0, static_cast<size_t>(elements) * 4);
            kernels().max_pool_scatter(static_cast<const char*>(src.raw.data) + (i + k) * picture, dtype, in[1], in[2],
                                       in[3], floats(src.norm.scale), floats(src.norm.shift), src.relu,
                                       static_cast<const char*>(diff_dst.data) + (i + k) * out_picture, out);
            if (dtype != DType::f32)
                kernels().apply(out, DType::f32, static_cast<char*>(rounded) + k * elements * 2, dtype, pixels, in[3],
                                nullptr, nullptr, false);
        }
        gatherer.add(dtype == DType::f32 ? static_cast<const void*>(sums) : rounded, in[3], i * pixels, n * pixels,
                     diff_src.write);
    }
    gatherer.finish();
}

void CpuBackend::do_avg_pool(const Tensor& src, const Tensor& dst) {
    const int64_t rows = src.shape[1] * src.shape[2], channels = src.shape[3], size = size_of(src.dtype);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < src.shape[0]; ++i)
        kernels().mean_rows(static_cast<const char*>(src.data) + i * rows * channels * size, src.dtype, rows, channels,
                            static_cast<char*>(dst.data) + i * channels * size);
}

int64_t CpuBackend::avg_pool_workspace_bytes(const Shape& src) const {
    Carver carver;
    carver.take(src[0] * src[3] * 4);
    DiffSrcGatherer(carver, src[1] * src[2], src[3], nullptr);
    return carver.used();
}

void CpuBackend::do_avg_pool_backward(const Tensor& diff_dst, const DiffSrc& diff_src, const Tensor& workspace) {
    const Shape& shape = diff_src.diff.shape;
    const int64_t rows = shape[1] * shape[2], channels = shape[3], size = size_of(diff_dst.dtype);
    Carver carver(workspace.data);
    char* shared = carver.take<char>(shape[0] * channels * 4);
    DiffSrcGatherer gatherer(carver, rows, channels, &diff_src);
    // A multiplication by scale 1 / rows and shift 0, by the kernel that applies norms.
    const float inverse = 1.0f / static_cast<float>(rows);
    const float scale[16] = {inverse, inverse, inverse, inverse, inverse, inverse, inverse, inverse,
                             inverse, inverse, inverse, inverse, inverse, inverse, inverse, inverse};
    const float shift[16] = {};
    const int64_t total = shape[0] * channels;
    for (int64_t i = 0; i < total; i += 16)
        kernels().apply(static_cast<const char*>(diff_dst.data) + i * size, diff_dst.dtype, shared + i * size,
                        diff_dst.dtype, 1, std::min<int64_t>(16, total - i), scale, shift, false);
    for (int64_t i = 0; i < shape[0]; ++i)
        gatherer.add(shared + i * channels * size, 0, i * rows, rows, diff_src.write);
    gatherer.finish();
}

void CpuBackend::do_dropout(const Tensor& src, const Tensor& dst, float p, const DropoutKey& key) {
    const int64_t channels = src.shape[1], size = size_of(src.dtype);
    const float keep = 1.0f / (1.0f - p);
    const auto step = static_cast<uint32_t>(*key.step.as<int32_t>());
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < src.shape[0]; ++i) {
        Random random(key.seed, step, static_cast<uint64_t>(key.first_sample + i), Purpose::dropout);
        constexpr int64_t width = 16;
        for (int64_t c = 0; c < channels; c += width) {
            float values[width], scale[width];
            const float shift[width] = {};
            const int64_t n = std::min(width, channels - c), offset = (i * channels + c) * size;
            for (int64_t j = 0; j < n; ++j)
                scale[j] = random.uniform() >= p ? keep : 0.0f;
            kernels().apply(static_cast<const char*>(src.data) + offset, src.dtype, values, DType::f32, 1, n, nullptr,
                            nullptr, false);
            kernels().apply(values, DType::f32, static_cast<char*>(dst.data) + offset, dst.dtype, 1, n, scale, shift,
                            false);
        }
    }
}

void CpuBackend::do_softmax_cross_entropy(const Tensor& logits, const Targets& targets, float smoothing,
                                          const Tensor& state, const Tensor& loss, const Tensor& diff_logits) {
    const int64_t batch = logits.shape[0], classes = logits.shape[1];
    const float* weights = targets.class_weights ? targets.class_weights.as<float>() : nullptr;
    const auto weight = [&](int64_t k) { return weights ? static_cast<double>(weights[k]) : 1.0; };
    const auto label_of = [&](const Tensor& labels, int64_t i) {
        const int32_t label = labels.as<int32_t>()[i];
        RN50_REQUIRE(label >= 0 && label < classes, "label ", label, " of ", classes, " classes");
        return label;
    };
    const double off = smoothing / static_cast<double>(classes), share = targets.share ? *targets.share.as<float>() : 1;
    RN50_REQUIRE(share >= 0 && share <= 1, "a share of ", share);
    double off_total = 0;
    for (int64_t k = 0; k < classes; ++k)
        off_total += off * weight(k);
    for (int64_t i = 0; i < batch; ++i) {
        const float* x = logits.as<float>() + i * classes;
        const int32_t label = label_of(targets.labels, i);
        const int32_t partner = targets.partners ? label_of(targets.partners, i) : label;
        const double own = (1.0 - smoothing) * share * weight(label);
        const double other = targets.partners ? (1.0 - smoothing) * (1.0 - share) * weight(partner) : 0;
        const double top = *std::max_element(x, x + classes);
        double sum = 0, off_sum = 0;
        for (int64_t k = 0; k < classes; ++k) {
            sum += std::exp(x[k] - top);
            off_sum += weight(k) * (x[k] - top);
        }
        // -sum w q log p, with log p_k = x_k - top - log_sum
        const double log_sum = std::log(sum), all = own + other + off_total;
        loss.as<float>()[i] =
            static_cast<float>(all * log_sum - own * (x[label] - top) - other * (x[partner] - top) - off * off_sum);
        if (!diff_logits) continue;
        const double total = targets.total > 0 ? static_cast<double>(targets.total) : static_cast<double>(batch);
        const double scale = static_cast<const StepState*>(state.data)->loss_scale / total;
        float* d = diff_logits.as<float>() + i * classes;
        for (int64_t k = 0; k < classes; ++k) {
            const double wanted = (k == label ? own : 0) + (k == partner ? other : 0) + off * weight(k);
            d[k] = static_cast<float>((std::exp(x[k] - top) / sum * all - wanted) * scale);
        }
    }
}

}  // namespace rn50::cpu
