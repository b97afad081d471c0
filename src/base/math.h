// Small integer helpers.
#pragma once

#include <cstdint>

namespace rn50 {

inline constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
/// The smallest whole number that is not below x >= 0.
inline constexpr int64_t ceil_to_int(double x) {
    const auto whole = static_cast<int64_t>(x);
    return static_cast<double>(whole) < x ? whole + 1 : whole;
}
inline constexpr int64_t align_up(int64_t value, int64_t alignment) { return ceil_div(value, alignment) * alignment; }

}  // namespace rn50
