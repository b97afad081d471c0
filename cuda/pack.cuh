// Elements of activations, one at a time and 16 bytes at a time.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "portable.h"
#include "tensor/tensor.h"

namespace rn50::cuda {

__device__ inline float to_float(float v) {
    return v;
}
__device__ inline float to_float(__half v) {
    return __half2float(v);
}
__device__ inline float to_float(__nv_bfloat16 v) {
    return __bfloat162float(v);
}
__device__ inline float to_float(uint8_t v) {
    return static_cast<float>(v);
}

/// Rounds to nearest even.
template <class T>
__device__ T from_float(float v);
template <>
__device__ inline float from_float<float>(float v) {
    return v;
}
template <>
__device__ inline __half from_float<__half>(float v) {
    return __float2half_rn(v);
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float v) {
    return __float2bfloat16_rn(v);
}

/// `n` neighbours that are read and written at once. The address must be a multiple of the whole size.
template <class T, int n>
struct alignas(sizeof(T) * n) Pack {
    T v[n];
};

template <int n, class T>
__device__ inline Pack<T, n> load_pack(const T* from) {
    RN50_PACK_AT(from, sizeof(Pack<T, n>));
    return *reinterpret_cast<const Pack<T, n>*>(from);
}
template <class T, int n>
__device__ inline void store_pack(T* to, const Pack<T, n>& pack) {
    RN50_PACK_AT(to, sizeof pack);
    *reinterpret_cast<Pack<T, n>*>(to) = pack;
}

template <class T, int n>
__device__ inline void unpack(const Pack<T, n>& pack, float (&to)[n]) {
    if constexpr (std::is_same_v<T, __nv_bfloat16> && n % 2 == 0) {
        // One operation an element on the words, where single elements would be cut out first.
        uint32_t words[n / 2];
        memcpy(words, &pack, sizeof pack);
#pragma unroll
        for (int i = 0; i < n; ++i)
            to[i] = __uint_as_float(i % 2 == 0 ? words[i / 2] << 16 : words[i / 2] & 0xFFFF0000u);
    } else {
#pragma unroll
        for (int i = 0; i < n; ++i)
            to[i] = to_float(pack.v[i]);
    }
}

__device__ inline __half2 from_floats(float low, float high, __half) {
    return __floats2half2_rn(low, high);
}
__device__ inline __nv_bfloat162 from_floats(float low, float high, __nv_bfloat16) {
    return __floats2bfloat162_rn(low, high);
}

/// Rounds to nearest even. Elements of 16 bits in pairs: one at a time they would go through a unit that takes 16 of
/// them a clock on a multiprocessor.
template <class T, int n>
__device__ inline Pack<T, n> packed(const float (&from)[n]) {
    Pack<T, n> pack;
    if constexpr (sizeof(T) == 2 && n % 2 == 0) {
        decltype(from_floats(0, 0, T{})) pairs[n / 2];
#pragma unroll
        for (int i = 0; i < n / 2; ++i)
            pairs[i] = from_floats(from[2 * i], from[2 * i + 1], T{});
        memcpy(&pack, pairs, sizeof pack);
    } else {
#pragma unroll
        for (int i = 0; i < n; ++i)
            pack.v[i] = from_float<T>(from[i]);
    }
    return pack;
}

template <int n, class T>
__device__ inline void load(const T* from, float (&to)[n]) {
    unpack(load_pack<n>(from), to);
}

template <int n, class T>
__device__ inline void store(T* to, const float (&from)[n]) {
    store_pack(to, packed<T>(from));
}

/// Elements of T in 16 bytes.
template <class T>
constexpr int whole_pack = 16 / static_cast<int>(sizeof(T));

/// Calls body(T{}) with the element type of an activation dtype.
template <class Body>
void with_act(DType dtype, const Body& body) {
    switch (dtype) {
        case DType::f32:
            return body(float{});
        case DType::f16:
            return body(__half{});
        case DType::bf16:
            return body(__nv_bfloat16{});
        default:
            RN50_REQUIRE(false, "activations of ", name_of(dtype));
    }
}

template <int n>
struct Width {
    static constexpr int value = n;
};

/// Calls body(T{}, Width<n>{}): whole packs when every row of `channels` elements is made of them, else one by one.
template <class Body>
void with_packs(DType dtype, int64_t channels, const Body& body) {
    with_act(dtype, [&](auto element) {
        using T = decltype(element);
        if (channels % whole_pack<T> == 0)
            body(element, Width<whole_pack<T>>{});
        else
            body(element, Width<1>{});
    });
}

}  // namespace rn50::cuda
