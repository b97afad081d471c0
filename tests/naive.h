// Every op of backend.h in double precision, written from its contract and nothing else: slow, plain, independent.
// What is rounded by contract (the f32 multiplication and addition of a pending normalisation) is rounded here as well;
// everything else is exact to double precision.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"

namespace rn50::naive {

/// A dense array of doubles in row-major order.
struct Array {
    Shape shape;
    std::vector<double> values;

    Array() = default;
    explicit Array(const Shape& of, double value = 0) : shape(of), values(static_cast<size_t>(of.count()), value) {}
    int64_t count() const { return static_cast<int64_t>(values.size()); }
    bool empty() const { return values.empty(); }
    double& operator[](int64_t i) { return values[static_cast<size_t>(i)]; }
    double operator[](int64_t i) const { return values[static_cast<size_t>(i)]; }
    /// Element of a picture {N, H, W, C}.
    double& at(int64_t n, int64_t h, int64_t w, int64_t c) { return (*this)[index(n, h, w, c)]; }
    double at(int64_t n, int64_t h, int64_t w, int64_t c) const { return (*this)[index(n, h, w, c)]; }
    /// Row `r` of a {R, C} array.
    Array row(int64_t r) const;
    int64_t channels() const { return shape[shape.rank() - 1]; }

  private:
    int64_t index(int64_t n, int64_t h, int64_t w, int64_t c) const {
        return ((n * shape[1] + h) * shape[2] + w) * shape[3] + c;
    }
};

/// Norm of types.h.
struct Norm {
    Array scale, shift, mean, inv_std;  // {C} each; all empty: no norm
    bool frozen = false;
};

/// Activation of types.h.
struct Pending {
    Array raw;
    Norm norm;
    bool relu = false;
    bool smooth = false;  ///< no rounding to f32: for finite differences
};

/// raw * scale + shift before the ReLU.
Array before_relu(const Pending& pending);
/// The value: after the ReLU.
Array value(const Pending& pending);

// --- convolution -------------------------------------------------------------------------------------------------
Array conv(const ConvDesc& desc, const Array& src, const Array& weights);
Array conv_backward_src(const ConvDesc& desc, const Array& diff_dst, const Array& weights);
Array conv_backward_weights(const ConvDesc& desc, const Array& src, const Array& diff_dst);
/// {2, C}: mean and M2 over all but the last dimension.
Array statistics(const Array& dst);
/// conv with the norm folded in, plus the residual (may be empty), then ReLU.
Array infer(const ConvDesc& desc, const Array& src, const Array& weights, const Norm& norm, const Array& residual,
            bool relu);

// --- the way of a gradient ---------------------------------------------------------------------------------------
/// NormGradient of types.h.
struct NormGradient {
    Array factor, mean_dz, slope, mean;
};
/// d_raw = factor * (dz - mean_dz - (raw - mean) * slope)
Array apply(const NormGradient& gradient, const Array& dz, const Array& raw);
/// DiffSrc: clip(g), or clip(before + g) when `before` is given; `at` with an empty raw does not clip.
Array leave(const Array& g, const Array* before, const Pending& at);
/// NormSums: {2, C} from diff.
Array norm_sums(const Array& diff, const Array& raw, const Array& mean, const Array& inv_std);

// --- batch norm --------------------------------------------------------------------------------------------------
Norm norm_from_batch(const Array& stats, int64_t count, const Array& gamma, const Array& beta, double eps);
/// {2, C}: mean and unbiased variance.
Array observed(const Array& stats, int64_t count);
Norm norm_from_running(const Array& running, const Array& gamma, const Array& beta, double eps);
NormGradient norm_backward(const Array& sums, int64_t count, const Norm& norm, const Array& gamma);

// --- between convolutions ----------------------------------------------------------------------------------------
Array join(const Pending& a, const Pending& b);
Array max_pool(const Array& src);
/// The gradient with respect to src, before DiffSrc.
Array max_pool_backward(const Array& src, const Array& diff_dst);
Array avg_pool(const Array& src);
Array avg_pool_backward(const Array& diff_dst, const Shape& src);

// --- classifier and loss -----------------------------------------------------------------------------------------
Array linear(const Array& src, const Array& weights, const Array& bias);
Array linear_backward_src(const Array& diff_dst, const Array& weights);
Array linear_backward_weights(const Array& src, const Array& diff_dst);
Array linear_backward_bias(const Array& diff_dst);
/// DropoutKey of backend.h.
struct DropoutKey {
    uint64_t seed;
    int64_t step, first_sample;
};
Array dropout(const Array& src, double p, const DropoutKey& key);
/// {N}
/// Labels, absent or present partners with the share of the labels, absent or present weights of classes.
struct LossTargets {
    std::vector<int32_t> labels, partners;
    double share = 1;
    std::vector<double> weights;
    double weight(int32_t k) const { return weights.empty() ? 1 : weights[static_cast<size_t>(k)]; }
    /// The sum of the weights of all targets.
    double total() const;
};
Array cross_entropy(const Array& logits, const LossTargets& targets, double smoothing);
/// Of sum(loss) / targets.total() * loss_scale.
Array cross_entropy_backward(const Array& logits, const LossTargets& targets, double smoothing, double loss_scale);
Array cross_entropy(const Array& logits, const std::vector<int32_t>& labels, double smoothing);
Array cross_entropy_backward(const Array& logits, const std::vector<int32_t>& labels, double smoothing,
                             double loss_scale);

// --- the optimizer step ------------------------------------------------------------------------------------------
/// What check_gradients makes of a state.
StepState check_gradients(const Array& gradients, double clip_norm, const ScalePolicy& policy, StepState state,
                          double factor = 1);
/// One step in place. `moment2` is untouched by SGD.
void optimize(const OptimizerDesc& desc, Array& parameters, const Array& gradients, Array& moment1, Array& moment2,
              const StepState& state);

}  // namespace rn50::naive
