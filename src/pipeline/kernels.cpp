// Compiled once for each of v2, v3, v4 (RN50_ISA), each time into a namespace of its own. Only plain loops and
// intrinsics here: an inline function of the standard library compiled for AVX-512 could be the copy that the linker
// keeps for everybody.
#include "pipeline/kernels.h"

// GCC before 13 takes values that its own header leaves undefined on purpose for mistakes.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#include <stdint.h>
#include <string.h>

namespace rn50::pipeline {
namespace RN50_ISA {

namespace {

inline int32_t load_32(const void* p) {
    int32_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

inline __m128i load_16_bytes(const uint8_t* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}

/// Four weights of one output pixel, then the same four of the next.
inline __m128i weights_of_two(const int16_t* weights, int64_t taps) {
    const __m128i one = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(weights));
    return _mm_unpacklo_epi64(one, _mm_loadl_epi64(reinterpret_cast<const __m128i*>(weights + taps)));
}

/// Four taps of an output pixel are one load of 12 (16) bytes, dealt out as pairs of 16-bit numbers r0 r1 g0 g1 b0 b1 0
/// 0, so that one multiply-add makes two taps of all channels.
inline __m128i dealt_01() {
    constexpr char z = -1;
    return _mm_setr_epi8(0, z, 3, z, 1, z, 4, z, 2, z, 5, z, z, z, z, z);
}
inline __m128i dealt_23() {
    constexpr char z = -1;
    return _mm_setr_epi8(6, z, 9, z, 7, z, 10, z, 8, z, 11, z, z, z, z, z);
}

// Returns how many pixels of the row it has made: as many as go into whole vectors, one output pixel a lane.
#if defined(__AVX512BW__)
int64_t row_of_vectors(const uint8_t* src, const int32_t* first, const int16_t* weights, int64_t taps, int shift,
                       uint8_t* dst, int64_t width) {
    const __m512i pair_01 = _mm512_broadcast_i32x4(dealt_01()), pair_23 = _mm512_broadcast_i32x4(dealt_23());
    const __m512i weights_01 = _mm512_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6);
    const __m512i weights_23 = _mm512_setr_epi32(1, 1, 1, 1, 3, 3, 3, 3, 5, 5, 5, 5, 7, 7, 7, 7);
    const __m512i lanes = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m128i three_of_four = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 15, 15, 15, 15);
    const __m512i half = _mm512_set1_epi32(1 << (shift - 1));
    const __m128i by = _mm_cvtsi32_si128(shift);
    int64_t x = 0;
    for (; x + 4 <= width; x += 4, weights += 4 * taps, dst += 12) {
        const uint8_t* const p[4] = {src + int64_t{first[x]} * 3, src + int64_t{first[x + 1]} * 3,
                                     src + int64_t{first[x + 2]} * 3, src + int64_t{first[x + 3]} * 3};
        __m512i sum_01 = half, sum_23 = _mm512_setzero_si512();
        for (int64_t t = 0; t < taps; t += 4) {
            __m512i pixels = _mm512_castsi128_si512(load_16_bytes(p[0] + 3 * t));
            pixels = _mm512_inserti32x4(pixels, load_16_bytes(p[1] + 3 * t), 1);
            pixels = _mm512_inserti32x4(pixels, load_16_bytes(p[2] + 3 * t), 2);
            pixels = _mm512_inserti32x4(pixels, load_16_bytes(p[3] + 3 * t), 3);
            const __m512i all = _mm512_castsi256_si512(
                _mm256_setr_m128i(weights_of_two(weights + t, taps), weights_of_two(weights + 2 * taps + t, taps)));
            sum_01 = _mm512_add_epi32(sum_01, _mm512_madd_epi16(_mm512_shuffle_epi8(pixels, pair_01),
                                                                _mm512_permutexvar_epi32(weights_01, all)));
            sum_23 = _mm512_add_epi32(sum_23, _mm512_madd_epi16(_mm512_shuffle_epi8(pixels, pair_23),
                                                                _mm512_permutexvar_epi32(weights_23, all)));
        }
        const __m512i sum = _mm512_sra_epi32(_mm512_add_epi32(sum_01, sum_23), by);
        const __m512i words = _mm512_packs_epi32(sum, sum);
        const __m512i bytes = _mm512_permutexvar_epi32(lanes, _mm512_packus_epi16(words, words));
        _mm_mask_storeu_epi8(dst, 0x0FFF, _mm_shuffle_epi8(_mm512_castsi512_si128(bytes), three_of_four));
    }
    return x;
}
#elif defined(__AVX2__)
int64_t row_of_vectors(const uint8_t* src, const int32_t* first, const int16_t* weights, int64_t taps, int shift,
                       uint8_t* dst, int64_t width) {
    const __m256i pair_01 = _mm256_broadcastsi128_si256(dealt_01()), pair_23 = _mm256_broadcastsi128_si256(dealt_23());
    const __m256i weights_01 = _mm256_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2);
    const __m256i weights_23 = _mm256_setr_epi32(1, 1, 1, 1, 3, 3, 3, 3);
    const __m256i half = _mm256_set1_epi32(1 << (shift - 1));
    const __m128i by = _mm_cvtsi32_si128(shift);
    int64_t x = 0;
    for (; x + 2 <= width; x += 2, weights += 2 * taps, dst += 6) {
        const uint8_t* const p[2] = {src + int64_t{first[x]} * 3, src + int64_t{first[x + 1]} * 3};
        __m256i sum_01 = half, sum_23 = _mm256_setzero_si256();
        for (int64_t t = 0; t < taps; t += 4) {
            const __m256i pixels = _mm256_setr_m128i(load_16_bytes(p[0] + 3 * t), load_16_bytes(p[1] + 3 * t));
            const __m256i both = _mm256_castsi128_si256(weights_of_two(weights + t, taps));
            sum_01 = _mm256_add_epi32(sum_01, _mm256_madd_epi16(_mm256_shuffle_epi8(pixels, pair_01),
                                                                _mm256_permutevar8x32_epi32(both, weights_01)));
            sum_23 = _mm256_add_epi32(sum_23, _mm256_madd_epi16(_mm256_shuffle_epi8(pixels, pair_23),
                                                                _mm256_permutevar8x32_epi32(both, weights_23)));
        }
        const __m256i sum = _mm256_sra_epi32(_mm256_add_epi32(sum_01, sum_23), by);
        const __m256i words = _mm256_packs_epi32(sum, sum);
        const __m256i bytes = _mm256_packus_epi16(words, words);
        const int32_t one = _mm256_extract_epi32(bytes, 0), other = _mm256_extract_epi32(bytes, 4);
        memcpy(dst, &one, 3);
        memcpy(dst + 3, &other, 3);
    }
    return x;
}
#else
int64_t row_of_vectors(const uint8_t*, const int32_t*, const int16_t*, int64_t, int, uint8_t*, int64_t) {
    return 0;
}
#endif

void row(const uint8_t* src, const int32_t* first, const int16_t* weights, int64_t taps, int shift, uint8_t* dst,
         int64_t width) {
    const __m128i pair_01 = dealt_01(), pair_23 = dealt_23();
    const __m128i half = _mm_set1_epi32(1 << (shift - 1));
    const __m128i by = _mm_cvtsi32_si128(shift);
    int64_t x = row_of_vectors(src, first, weights, taps, shift, dst, width);
    weights += x * taps;
    dst += x * 3;
    for (; x < width; ++x, weights += taps) {
        const uint8_t* p = src + int64_t{first[x]} * 3;
        __m128i sum_01 = half, sum_23 = _mm_setzero_si128();
        for (int64_t t = 0; t < taps; t += 4, p += 12) {
            const __m128i pixels = load_16_bytes(p);
            sum_01 = _mm_add_epi32(
                sum_01, _mm_madd_epi16(_mm_shuffle_epi8(pixels, pair_01), _mm_set1_epi32(load_32(weights + t))));
            sum_23 = _mm_add_epi32(
                sum_23, _mm_madd_epi16(_mm_shuffle_epi8(pixels, pair_23), _mm_set1_epi32(load_32(weights + t + 2))));
        }
        const __m128i sum = _mm_sra_epi32(_mm_add_epi32(sum_01, sum_23), by);
        const __m128i words = _mm_packs_epi32(sum, sum);
        const int32_t bytes = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
        dst[0] = static_cast<uint8_t>(bytes);
        dst[1] = static_cast<uint8_t>(bytes >> 8);
        dst[2] = static_cast<uint8_t>(bytes >> 16);
        dst += 3;
    }
}

/// Sixteen bytes of the output row at a time, two source rows a multiply-add.
void column(const uint8_t* src, int64_t stride, int64_t true_taps, const int16_t* weights, int shift, uint8_t* dst,
            int64_t n) {
    const __m128i zero = _mm_setzero_si128();
    const __m128i half = _mm_set1_epi32(1 << (shift - 1));
    const __m128i by = _mm_cvtsi32_si128(shift);
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        __m128i a = half, b = half, c = half, d = half;
        for (int64_t t = 0; t < true_taps; t += 2) {
            const uint8_t* even = src + t * stride + i;
            const uint8_t* odd = t + 1 < true_taps ? even + stride : even;
            const __m128i pair = _mm_set1_epi32(load_32(weights + t));
            const __m128i x = load_16_bytes(even), y = load_16_bytes(odd);
            const __m128i low = _mm_unpacklo_epi8(x, y), high = _mm_unpackhi_epi8(x, y);
            a = _mm_add_epi32(a, _mm_madd_epi16(_mm_unpacklo_epi8(low, zero), pair));
            b = _mm_add_epi32(b, _mm_madd_epi16(_mm_unpackhi_epi8(low, zero), pair));
            c = _mm_add_epi32(c, _mm_madd_epi16(_mm_unpacklo_epi8(high, zero), pair));
            d = _mm_add_epi32(d, _mm_madd_epi16(_mm_unpackhi_epi8(high, zero), pair));
        }
        const __m128i first = _mm_packs_epi32(_mm_sra_epi32(a, by), _mm_sra_epi32(b, by));
        const __m128i second = _mm_packs_epi32(_mm_sra_epi32(c, by), _mm_sra_epi32(d, by));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + i), _mm_packus_epi16(first, second));
    }
    for (; i < n; ++i) {
        int32_t sum = 1 << (shift - 1);
        for (int64_t t = 0; t < true_taps; ++t)
            sum += src[t * stride + i] * weights[t];
        sum >>= shift;
        dst[i] = static_cast<uint8_t>(sum < 0 ? 0 : sum > 255 ? 255 : sum);
    }
}

}  // namespace

extern const ResizeKernels table;
const ResizeKernels table = {row, column};

}  // namespace RN50_ISA
}  // namespace rn50::pipeline
