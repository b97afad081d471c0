// Logarithm, exponential, sine and normal numbers that are the same bits on every machine: no libm, only + - * / and
// sqrt, which IEEE 754 rounds exactly.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace rn50 {

/// Natural logarithm of a normal positive number, to about 1e-15.
inline double exact_log(double x) {
    uint64_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    int64_t exponent = static_cast<int64_t>(bits >> 52) - 1023;
    bits = (bits & 0x000FFFFFFFFFFFFFull) | 0x3FF0000000000000ull;
    double mantissa;
    std::memcpy(&mantissa, &bits, sizeof mantissa);
    if (mantissa > 1.4142135623730951) {
        mantissa *= 0.5;
        ++exponent;
    }
    // log m = 2 artanh(s) = 2 (s + s^3/3 + s^5/5 + ...), |s| < 0.172: 11 terms reach the last bit.
    const double s = (mantissa - 1) / (mantissa + 1), s2 = s * s;
    double sum = 0;
    for (int k = 21; k >= 1; k -= 2)
        sum = sum * s2 + 1.0 / k;
    return static_cast<double>(exponent) * 0.6931471805599453 + 2 * s * sum;
}

/// e^x for |x| <= 700, to about 1e-13: the series for a part of x that is at most 0.3, then squared.
inline double exact_exp(double x) {
    int halvings = 0;
    for (; x > 0.3 || x < -0.3; x *= 0.5)
        ++halvings;
    double sum = 1;
    for (int n = 14; n >= 1; --n)
        sum = 1 + sum * x / n;
    for (; halvings > 0; --halvings)
        sum *= sum;
    return sum;
}

struct SineCosine {
    double sine, cosine;
};

/// Of an angle in degrees, |angle| <= 360, to about 1e-15; multiples of 90 are exact.
inline SineCosine exact_sine_cosine(double degrees) {
    const double quarters = degrees / 90;
    const int nearest = static_cast<int>(quarters < 0 ? quarters - 0.5 : quarters + 0.5);
    const double x = (degrees - 90 * nearest) * 0.017453292519943295, x2 = x * x;  // |x| <= pi / 4
    double sine = 1, cosine = 1;
    for (int n = 18; n >= 2; n -= 2) {
        sine = 1 - sine * x2 / (n * (n + 1));
        cosine = 1 - cosine * x2 / (n * (n - 1));
    }
    sine *= x;
    switch (nearest & 3) {
        case 0:
            return {sine, cosine};
        case 1:
            return {cosine, -sine};
        case 2:
            return {-sine, -cosine};
        default:
            return {-cosine, sine};
    }
}

/// The x below which a standard normal number lies with probability p, 0 < p < 1: the rational approximation of
/// P. J. Acklam (2003), relative error below 1.2e-9.
inline double normal_quantile(double p) {
    constexpr double low = 0.02425;
    if (p > 1 - low) return -normal_quantile(1 - p);
    if (p < low) {
        const double q = std::sqrt(-2 * exact_log(p));
        const double above = ((((-7.784894002430293e-03 * q - 3.223964580411365e-01) * q - 2.400758277161838e+00) * q -
                               2.549732539343734e+00) *
                                  q +
                              4.374664141464968e+00) *
                                 q +
                             2.938163982698783e+00;
        const double below = (((7.784695709041462e-03 * q + 3.224671290700398e-01) * q + 2.445134137142996e+00) * q +
                              3.754408661907416e+00) *
                                 q +
                             1;
        return above / below;
    }
    const double q = p - 0.5, r = q * q;
    const double above = ((((-3.969683028665376e+01 * r + 2.209460984245205e+02) * r - 2.759285104469687e+02) * r +
                           1.383577518672690e+02) *
                              r -
                          3.066479806614716e+01) *
                             r +
                         2.506628277459239e+00;
    const double below = ((((-5.447609879822406e+01 * r + 1.615858368580409e+02) * r - 1.556989798598866e+02) * r +
                           6.680131188771972e+01) *
                              r -
                          1.328068155288572e+01) *
                             r +
                         1;
    return above * q / below;
}

}  // namespace rn50
