// Compiled once for each of v2, v3, v4 (RN50_ISA), each time into a namespace of its own. Only plain loops and
// intrinsics here: an inline function of the standard library compiled for AVX-512 could be the copy that the linker
// keeps for everybody.
#include "pipeline/kernels.h"

#include <immintrin.h>
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

/// One output pixel's weights at a time: four taps are one load of 12 (16) bytes, dealt out as pairs of 16-bit numbers
/// r0 r1 g0 g1 b0 b1 0 0, so that one multiply-add makes two taps of all channels.
void row(const uint8_t* src, const int32_t* first, const int16_t* weights, int64_t taps, int shift, uint8_t* dst,
         int64_t width) {
    constexpr char z = -1;
    const __m128i pair_01 = _mm_setr_epi8(0, z, 3, z, 1, z, 4, z, 2, z, 5, z, z, z, z, z);
    const __m128i pair_23 = _mm_setr_epi8(6, z, 9, z, 7, z, 10, z, 8, z, 11, z, z, z, z, z);
    const __m128i half = _mm_set1_epi32(1 << (shift - 1));
    const __m128i by = _mm_cvtsi32_si128(shift);
    for (int64_t x = 0; x < width; ++x, weights += taps) {
        const uint8_t* p = src + int64_t{first[x]} * 3;
        __m128i sum_01 = half, sum_23 = _mm_setzero_si128();
        for (int64_t t = 0; t < taps; t += 4, p += 12) {
            const __m128i pixels = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
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
            const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(even));
            const __m128i y = _mm_loadu_si128(reinterpret_cast<const __m128i*>(odd));
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
