// Statistics of several parts of the same channels, merged. Pure functions, the same on every device (GPU code compiles
// them too).
#pragma once

#include "backend/step_state.h"

namespace rn50 {

/// Mean and M2 = sum((x - mean)^2) over some elements.
struct Moments {
    double mean, m2;
};

/// Of channel c over all parts {parts, 2, channels}, each of `count` elements, in their order (Chan, Golub & LeVeque,
/// "Updating formulae and a pairwise algorithm for computing sample variances", 1979).
RN50_EVERYWHERE inline Moments merged_moments(const float* values, int64_t parts, int64_t channels, int64_t c,
                                              int64_t count) {
    Moments all{static_cast<double>(values[c]), static_cast<double>(values[channels + c])};
    const auto n = static_cast<double>(count);
    for (int64_t part = 1; part < parts; ++part) {
        const float* const of_part = values + part * 2 * channels;
        const double before = n * static_cast<double>(part), after = before + n;
        const double delta = static_cast<double>(of_part[c]) - all.mean;
        all.mean += delta * n / after;
        all.m2 += static_cast<double>(of_part[channels + c]) + delta * delta * before * n / after;
    }
    return all;
}

/// Element i of the sum of parts {parts, size}, in their order.
RN50_EVERYWHERE inline double summed_part(const float* values, int64_t parts, int64_t size, int64_t i) {
    double total = 0;
    for (int64_t part = 0; part < parts; ++part)
        total += static_cast<double>(values[part * size + i]);
    return total;
}

}  // namespace rn50
