// 16-bit floating point, as f16 (IEEE 754 binary16) and bf16 (the upper half of an f32), without hardware for it.
// Always inlined: files that are compiled for several instruction sets include it, and no copy of one may serve the
// others.
#pragma once

#include <stdint.h>

namespace rn50 {

#define RN50_INLINE static inline __attribute__((always_inline))

RN50_INLINE uint32_t bits_of(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
}
RN50_INLINE float float_of(uint32_t bits) {
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

RN50_INLINE float f16_to_f32(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16, size = static_cast<uint32_t>(half & 0x7FFFu)
                                                                              << 13;
    const float normal = float_of(size + (112u << 23));            // the exponents' biases are 15 and 127
    const float small = float_of(size + (113u << 23)) - 0x1p-14f;  // a subnormal has the exponent of 2^-14
    const float special = float_of(size + (224u << 23));
    const float value = size < (1u << 23) ? small : size >= (31u << 23) ? special : normal;
    return float_of(bits_of(value) | sign);
}

/// To nearest even; what is beyond f16 becomes infinite, NaN stays NaN.
RN50_INLINE uint16_t f32_to_f16(float value) {
    const uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000u, size = bits & 0x7FFFFFFFu;
    const uint32_t normal = (size - (112u << 23) + 0xFFFu + (size >> 13 & 1u)) >> 13;
    const uint32_t small = bits_of(float_of(size) + 0.5f) - bits_of(0.5f);  // 0.5's last digit is 2^-24, f16's smallest
    const uint32_t special = size > 0x7F800000u ? 0x7E00u : 0x7C00u;
    const uint32_t half = size < (113u << 23) ? small : size >= (143u << 23) ? special : normal;
    return static_cast<uint16_t>(half | sign);
}

RN50_INLINE float bf16_to_f32(uint16_t brain) {
    return float_of(static_cast<uint32_t>(brain) << 16);
}

/// As f32_to_f16.
RN50_INLINE uint16_t f32_to_bf16(float value) {
    const uint32_t bits = bits_of(value), rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
    return static_cast<uint16_t>(value != value ? 0x7FC0u : rounded);
}

#undef RN50_INLINE

}  // namespace rn50
