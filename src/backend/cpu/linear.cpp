#include "backend/cpu/linear.h"

#include <oneapi/dnnl/dnnl.h>

#include <algorithm>

#include "backend/cpu/tiles.h"

namespace rn50::cpu {

namespace {

/// C {M, N} = op(A) op(B) + beta C, row-major.
void gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda,
          const float* b, int64_t ldb, float beta, float* c) {
    const dnnl_status_t status = dnnl_sgemm(transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', m, n, k, 1.0f, a, lda, b,
                                            ldb, beta, c, n);
    RN50_REQUIRE(status == dnnl_success, "dnnl_sgemm failed with status ", status);
}

/// f32 values of a tensor as the precision sees them: the tensor itself, or a rounded or widened copy in `scratch`.
const float* values(const Tensor& tensor, DType act, float* scratch, void* rounded) {
    if (act == DType::f32) return tensor.as<float>();
    const void* source = tensor.data;
    if (tensor.dtype == DType::f32) {
        kernels().apply(source, DType::f32, rounded, act, 1, tensor.count(), nullptr, nullptr, false);
        source = rounded;
    }
    kernels().apply(source, act, scratch, DType::f32, 1, tensor.count(), nullptr, nullptr, false);
    return scratch;
}

struct Work {
    float *src, *weights, *dst;
    void* rounded;
    Work(const LinearDesc& d, Carver& carver)
        : src(carver.take<float>(d.batch * d.in_features * 4)),
          weights(carver.take<float>(d.dtype == DType::f32 ? 0 : d.in_features * d.out_features * 4)),
          dst(carver.take<float>(d.dtype == DType::f32 ? 0 : d.batch * d.out_features * 4)),
          rounded(carver.take(d.dtype == DType::f32
                                  ? 0
                                  : std::max(d.batch * std::max(d.in_features, d.out_features),
                                             d.in_features * d.out_features) * 2)) {}
};

}  // namespace

int64_t CpuLinear::workspace_bytes() const {
    Carver carver;
    Work(desc(), carver);
    return carver.used();
}

void CpuLinear::do_forward(const Tensor& src, const Tensor& weights, const Tensor& bias, const Tensor& dst,
                           const Tensor& workspace) {
    Carver carver(workspace.data);
    const Work work(desc(), carver);
    const int64_t n = src.shape[0], c = desc().in_features, k = desc().out_features;
    const float* x = values(src, desc().dtype, work.src, work.rounded);
    const float* w = values(weights, desc().dtype, work.weights, work.rounded);
    float* y = dst.as<float>();
    for (int64_t i = 0; i < n; ++i)
        std::copy_n(bias.as<float>(), k, y + i * k);
    gemm(false, true, n, k, c, x, c, w, c, 1.0f, y);
}

void CpuLinear::do_backward(const Tensor& src, const Tensor& weights, const Tensor& diff_dst, const Tensor& diff_src,
                            const Tensor& diff_weights, const Tensor& diff_bias, Write write_weights,
                            const Tensor& workspace) {
    Carver carver(workspace.data);
    const Work work(desc(), carver);
    const int64_t n = src.shape[0], c = desc().in_features, k = desc().out_features;
    const DType act = desc().dtype;
    const float keep = write_weights == Write::add ? 1.0f : 0.0f;
    const float* dy = values(diff_dst, act, work.dst, work.rounded);
    const float* x = values(src, act, work.src, work.rounded);
    gemm(true, false, k, c, n, dy, k, x, c, keep, diff_weights.as<float>());
    float* db = diff_bias.as<float>();
    for (int64_t j = 0; j < k; ++j) {
        double sum = keep > 0 ? db[j] : 0.0;
        for (int64_t i = 0; i < n; ++i)
            sum += diff_dst.as<float>()[i * k + j];
        db[j] = static_cast<float>(sum);
    }
    const float* w = values(weights, act, work.weights, work.rounded);
    float* dx = act == DType::f32 ? diff_src.as<float>() : work.src;
    gemm(false, false, n, c, k, dy, k, w, c, 0.0f, dx);
    if (act != DType::f32)
        kernels().apply(dx, DType::f32, diff_src.data, act, 1, n * c, nullptr, nullptr, false);
}

}  // namespace rn50::cpu
