// The optimizer step's state machine: what one look at the gradients makes of StepState. A pure function, the same on
// every device (GPU code compiles it too).
#pragma once

#include <cmath>

#include "backend/types.h"

#ifdef __CUDACC__
#define RN50_EVERYWHERE __host__ __device__
#else
#define RN50_EVERYWHERE
#endif

namespace rn50 {

/// `sum_squares`: of all gradients, times (loss_scale / factor)^2; not finite when one of them is not.
/// clip_norm > 0 limits the L2 norm as torch.nn.utils.clip_grad_norm_ does; the scale moves as torch.amp.GradScaler's.
RN50_EVERYWHERE inline void advance(StepState& s, double sum_squares, double factor, float clip_norm,
                                    const ScalePolicy& policy) {
    double multiplier = factor / static_cast<double>(s.loss_scale);
    const double norm = std::sqrt(sum_squares) * multiplier;
    s.grad_norm = static_cast<float>(norm);
    s.skip = !(sum_squares - sum_squares == 0);  // infinite or NaN
    if (clip_norm > 0 && norm > static_cast<double>(clip_norm))
        multiplier *= static_cast<double>(clip_norm) / (norm + 1e-6);
    s.multiplier = static_cast<float>(multiplier);
    if (s.skip != 0) {
        ++s.skipped;
        ++s.skipped_in_row;
        s.good_steps = 0;
        if (policy.dynamic) s.loss_scale *= policy.backoff;
        return;
    }
    s.skipped_in_row = 0;
    ++s.t;
    if (++s.good_steps >= policy.interval && policy.dynamic) {
        const float grown = s.loss_scale * policy.growth;
        if (grown - grown == 0) s.loss_scale = grown;  // never to infinity
        s.good_steps = 0;
    }
}

}  // namespace rn50
