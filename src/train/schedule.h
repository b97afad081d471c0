// The learning rate by step: linear warm-up, then cosine to 0. The values are those of PyTorch's LambdaLR with
//     lambda s: (s + 1) / W if s < W else 0.5 * (1 + cos(pi * (s - W) / (T - W)))
// where the step s = 0 ... T - 1 is the number of optimizer steps already taken.
#pragma once

#include <cstdint>

namespace rn50 {

struct Schedule {
    double base_lr = 1e-4;
    int64_t warmup_steps = 0;  ///< W: the first step takes base_lr / W, step W - 1 takes base_lr
    int64_t total_steps = 1;   ///< T: of the whole run, whatever --max-steps says

    /// Learning rate of step `step`, counted from 0; 0 at T and beyond.
    double at(int64_t step) const;
};

}  // namespace rn50
