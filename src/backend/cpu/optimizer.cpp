// The optimizer step over whole buffers.
#include <omp.h>

#include <algorithm>
#include <cmath>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/kernels.h"
#include "backend/step_state.h"
#include "base/math.h"

namespace rn50::cpu {

namespace {

// Elements of one piece of work; also the unit of partial sums, so that the norm does not depend on the threads.
constexpr int64_t piece = 1 << 16;
constexpr int64_t pieces_at_once = 256;

}  // namespace

void CpuBackend::do_check_gradients(const Tensor& gradients, float clip_norm, const ScalePolicy& policy,
                                    const Tensor& divisor, const Tensor& state, const Tensor&) {
    const float* g = gradients.as<float>();
    const int64_t count = gradients.count(), pieces = ceil_div(count, piece);
    double sum = 0;
    for (int64_t first = 0; first < pieces; first += pieces_at_once) {
        double partial[pieces_at_once];
        const int64_t n = std::min(pieces_at_once, pieces - first);
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < n; ++i) {
            const int64_t begin = (first + i) * piece;
            partial[i] = kernels().sum_squares(g + begin, std::min(piece, count - begin));
        }
        for (int64_t i = 0; i < n; ++i)
            sum += partial[i];
    }
    const double factor = divisor ? 1.0 / static_cast<double>(*divisor.as<float>()) : 1.0;
    advance(*static_cast<StepState*>(state.data), sum, factor, clip_norm, policy);
}

void CpuBackend::do_optimize(const OptimizerDesc& desc, const Tensor& parameters, const Tensor& gradients,
                             const Tensor& moment1, const Tensor& moment2, const Tensor& state, const Tensor&) {
    const StepState& s = *static_cast<const StepState*>(state.data);
    if (s.skip) return;
    const bool adamw = desc.kind == OptimizerDesc::Kind::adamw;
    const double t = static_cast<double>(s.t);
    AdamStep adam{s.lr,
                  0,
                  desc.beta1,
                  desc.beta2,
                  desc.eps,
                  s.multiplier,
                  static_cast<float>(1.0 - std::pow(static_cast<double>(desc.beta1), t)),
                  static_cast<float>(std::sqrt(1.0 - std::pow(static_cast<double>(desc.beta2), t)))};
    SgdStep sgd{s.lr, 0, desc.momentum, s.multiplier, desc.nesterov, s.t == 1};
    float *p = parameters.as<float>(), *m = moment1.as<float>(), *v = adamw ? moment2.as<float>() : nullptr;
    const float* g = gradients.as<float>();
    for (const ParameterRange& range : desc.ranges) {
        adam.decay = range.decay ? s.lr * desc.weight_decay : 0;
        sgd.weight_decay = range.decay ? desc.weight_decay : 0;
        const int64_t pieces = ceil_div(range.end - range.begin, piece);
#pragma omp parallel for schedule(static) if (pieces > 1)
        for (int64_t i = 0; i < pieces; ++i) {
            const int64_t begin = range.begin + i * piece, n = std::min(piece, range.end - begin);
            if (adamw)
                kernels().adamw(adam, p + begin, g + begin, m + begin, v + begin, n);
            else
                kernels().sgd(sgd, p + begin, g + begin, m + begin, n);
        }
    }
}

void CpuBackend::do_convert(const Tensor& src, const Tensor& dst) {
    const auto at = [](const Tensor& tensor, int64_t i) {
        return static_cast<char*>(tensor.data) + i * size_of(tensor.dtype);
    };
    const int64_t count = src.count(), pieces = ceil_div(count, piece);
#pragma omp parallel for schedule(static) if (pieces > 1)
    for (int64_t i = 0; i < pieces; ++i)
        kernels().convert(at(src, i * piece), src.dtype, at(dst, i * piece), dst.dtype,
                          std::min(piece, count - i * piece));
}

}  // namespace rn50::cpu
