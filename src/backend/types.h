// The nouns of the backend page: precision, execution context, pending normalisation, and the way a gradient goes back.
#pragma once

#include <cstdint>
#include <string>

#include "tensor/arena.h"
#include "tensor/tensor.h"

namespace rn50 {

/// What is computed in what. Parameters, their gradients and all statistics are f32 in each of them.
enum class Precision : uint8_t { fp32, tf32, fp16, bf16 };
const char* name_of(Precision precision);
/// Throws Error(Exit::usage) for an unknown name.
Precision precision_from(const std::string& name);
/// The dtype of activations and their gradients.
DType activation_dtype(Precision precision);

class Profile;

/// How an op is run: where its scratch memory comes from, and whether it is run at all. In a dry run every op checks its
/// contract and takes and returns its workspace, but touches no data: that makes the memory plan.
struct Context {
    Arena& arena;
    bool dry = false;
    Profile* profile = nullptr;  ///< when present, each op adds its time (bench --verbose)
};

/// `=` or `+=`.
enum class Write : uint8_t { overwrite, add };

/// Batch-norm statistics of one convolution's raw output, and what they make of it. C channels, all f32.
struct Norm {
    Tensor scale;    ///< {C} gamma * inv_std
    Tensor shift;    ///< {C} beta - mean * scale
    Tensor mean;     ///< {C} the mean that was subtracted
    Tensor inv_std;  ///< {C} 1 / sqrt(var + eps)
    bool frozen = false;  ///< mean and inv_std are constants (running statistics), not functions of the batch
    explicit operator bool() const { return static_cast<bool>(scale); }
};

/// Pending normalisation: "this tensor, once you have applied that". The value is
///     x = raw * scale + shift   (x = raw without a norm),   then max(x, 0) if relu,
/// computed in f32 as one multiplication and one addition, each rounded, never fused, so that forward and backward clip
/// the same elements. Zero padding of a convolution comes after it.
struct Activation {
    Tensor raw;  ///< {N, H, W, C}
    Norm norm;   ///< absent: raw is the value itself
    bool relu = false;
};

/// The backward of one batch norm, from z-gradients to raw gradients, with dz the gradient with respect to the
/// normalised value before its ReLU, over M = N*H*W elements a channel:
///     d_raw = factor * (dz - mean_dz - (raw - mean) * slope)
/// factor = gamma * inv_std, mean_dz = sum(dz) / M, slope = inv_std^2 * sum(dz * (raw - mean)) / M; both 0 when frozen.
struct NormGradient {
    Tensor factor, mean_dz, slope;  ///< {C} f32 each
    Tensor mean;                    ///< {C} f32, the forward's
};

/// Sums that a batch norm's backward needs, gathered by whoever makes dz:  sums[0] = sum(dz),
/// sums[1] = sum(dz * (raw - mean) * inv_std), over N, H and W.
struct NormSums {
    Tensor raw;            ///< {N, H, W, C}, the norm's input
    Tensor mean, inv_std;  ///< {C} f32
    Tensor sums;           ///< {2, C} f32, overwritten
    explicit operator bool() const { return static_cast<bool>(sums); }
};

/// Where a backward op leaves the gradient g that it has made for its src:
///     diff = clip(g)   or   diff = clip(diff + g)  with Write::add,
/// clip(v) = v where the ReLU of `at` let its value pass (at > 0), else 0; no clipping when at.relu is false.
/// Then the sums of the (one or, at a join, two) norms whose outputs add up to that value are gathered from diff.
struct DiffSrc {
    Tensor diff;  ///< {N, H, W, C}, activation dtype
    Write write = Write::overwrite;
    Activation at;  ///< the activation whose ReLU clips; at.raw absent: no ReLU
    NormSums norms[2];
};

/// The gradient that enters a convolution's backward: dz and the norm's coefficients, applied while reading.
struct DiffDst {
    Tensor dz;          ///< {N, H, W, C}, gradient of the normalised value before its ReLU
    Tensor raw;         ///< {N, H, W, C}, the convolution's own raw output
    NormGradient norm;  ///< from Backend::norm_backward
};

/// What the optimizer step needs to know and to remember. It lives in device memory (one u8 tensor of this size), so that
/// a skipped step costs the host no wait. Plain data: the same struct is read by kernels.
struct StepState {
    float lr = 0;              ///< learning rate of this step, written by the host
    float loss_scale = 1;      ///< the loss is multiplied by it; 1 and constant unless the precision is fp16
    float grad_norm = 0;       ///< global L2 norm of the unscaled gradients, before clipping
    float multiplier = 1;      ///< what the optimizer multiplies gradients by: 1 / loss_scale, times the clipping factor
    int32_t skip = 0;          ///< 1: gradients hold inf or NaN; this step changes nothing
    int32_t good_steps = 0;    ///< steps since the last skip or the last growth of the scale
    int32_t skipped_in_row = 0;  ///< 0 after each good step
    int32_t skipped = 0;       ///< all skipped steps of the run
    int64_t t = 0;             ///< good steps so far: Adam's step count
};

/// Dynamic loss scaling: times `growth` after `interval` good steps, times `backoff` at inf or NaN
/// (Micikevicius et al., "Mixed precision training", 2018; the constants are torch.amp.GradScaler's).
struct ScalePolicy {
    bool dynamic = false;
    float growth = 2, backoff = 0.5f;
    int32_t interval = 2000;
};

}  // namespace rn50
