#include "train/schedule.h"

#include <cmath>

namespace rn50 {

double Schedule::at(int64_t step) const {
    if (step >= total_steps) return 0;
    if (step < warmup_steps) return base_lr * (static_cast<double>(step + 1) / static_cast<double>(warmup_steps));
    const double done = static_cast<double>(step - warmup_steps) / static_cast<double>(total_steps - warmup_steps);
    return base_lr * (0.5 * (1 + std::cos(3.14159265358979323846 * done)));
}

}  // namespace rn50
