// Elements that are compared as they are, two of 16 bits at a time where the GPU can.
#pragma once

#include "pack.cuh"

namespace rn50::cuda {

template <class To, class From>
__device__ inline To bits_as(const From& from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(static_cast<void*>(&to), &from, sizeof to);
    return to;
}

/// A word of 32 bits holds one or two keys. A key is an element times 1, -1 or 0, and never -0.
template <class T>
struct Keys {
    static constexpr int in_word = 4 / static_cast<int>(sizeof(T));
    uint32_t word;

    /// `low` in the low half of the word, where there are halves.
    __device__ static Keys of(float low, float high) {
        if constexpr (in_word == 1)
            return {bits_as<uint32_t>(low)};
        else
            return {bits_as<uint32_t>(from_floats(low, high, T{}))};
    }
    /// What `bits` means in each key.
    __device__ static constexpr uint32_t in_each(uint32_t bits) { return in_word == 1 ? bits : bits | bits << 16; }
    __device__ float at(int i) const {
        if constexpr (in_word == 1)
            return bits_as<float>(word);
        else
            return to_float(bits_as<T>(static_cast<uint16_t>(word >> 16 * i)));
    }

    // Each of these is what its first line says, of each key.

    /// this * sign
    __device__ Keys times(Keys sign) const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
        if constexpr (in_word == 2) {
            using Pair = decltype(from_floats(0, 0, T{}));
            return {bits_as<uint32_t>(__hfma2(bits_as<Pair>(word), bits_as<Pair>(sign.word), bits_as<Pair>(0u)))};
        }
#endif
        return of(at(0) * sign.at(0) + 0.0f, at(in_word - 1) * sign.at(in_word - 1) + 0.0f);
    }
    /// this > other ? all bits : none
    __device__ uint32_t above(Keys other) const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
        if constexpr (in_word == 2) {
            using Pair = decltype(from_floats(0, 0, T{}));
            return __hgt2_mask(bits_as<Pair>(word), bits_as<Pair>(other.word));
        }
#endif
        if constexpr (in_word == 1) return at(0) > other.at(0) ? 0xFFFFFFFFu : 0;
        return (at(0) > other.at(0) ? 0xFFFFu : 0) | (at(in_word - 1) > other.at(in_word - 1) ? 0xFFFF0000u : 0);
    }
    /// the greater one of this and other, NaN where one is NaN
    __device__ Keys or_greater(Keys other) const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
        if constexpr (in_word == 2) {
            using Pair = decltype(from_floats(0, 0, T{}));
            return {bits_as<uint32_t>(__hmax2_nan(bits_as<Pair>(word), bits_as<Pair>(other.word)))};
        }
#endif
        const auto greater = [](float a, float b) { return a > b || a != a ? a : b; };
        return of(greater(at(0), other.at(0)), greater(at(in_word - 1), other.at(in_word - 1)));
    }
};

}  // namespace rn50::cuda
