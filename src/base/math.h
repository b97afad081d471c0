// Small integer helpers.
#pragma once

#include <cstdint>

namespace rn50 {

inline constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline constexpr int64_t align_up(int64_t value, int64_t alignment) { return ceil_div(value, alignment) * alignment; }

}  // namespace rn50
