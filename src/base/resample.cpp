#include "base/resample.h"

#include <cstddef>

#include "base/math.h"

namespace rn50 {

namespace {

/// Rounds the exact weights of one output position to fixed point so that they add up to 1 << shift exactly, by
/// rounding the running sum: a flat picture stays what it is, however far it is reduced.
void to_fixed_point(const double* exact, int64_t n, int shift, int16_t* weights) {
    const double one = int32_t{1} << shift;
    double sum = 0;
    int32_t rounded = 0;
    for (int64_t t = 0; t < n; ++t) {
        sum += exact[t];
        const auto next = static_cast<int32_t>(sum * one + 0.5);
        weights[t] = static_cast<int16_t>(next - rounded);
        rounded = next;
    }
}

}  // namespace

void ResampleFilter::make(int64_t in_size, double in0, double in1, int64_t out_size) {
    const double scale = (in1 - in0) / static_cast<double>(out_size);
    const double stretch = scale < 1 ? 1 : scale;   // the triangle reaches one output pixel, or one input pixel, far
    const int64_t most = ceil_to_int(2 * stretch);  // a window of that length meets no more pixel centres
    const int64_t room = align_up(most, 4);
    taps = room;
    first.resize(static_cast<size_t>(out_size));
    count.resize(static_cast<size_t>(out_size));
    weights.assign(static_cast<size_t>(out_size * room), 0);
    exact_.assign(static_cast<size_t>(out_size * room), 0);
    double largest = 0;
    for (int64_t x = 0; x < out_size; ++x) {
        const double center = in0 + (static_cast<double>(x) + 0.5) * scale;
        auto begin = static_cast<int64_t>(center - stretch + 0.5);
        auto end = static_cast<int64_t>(center + stretch + 0.5);
        if (begin < 0) begin = 0;
        if (end > in_size) end = in_size;
        if (end - begin > most) end = begin + most;  // rounding let one in at the window's very edge: its weight is 0
        double* exact = &exact_[static_cast<size_t>(x * room)];
        double sum = 0;
        for (int64_t t = 0; t < end - begin; ++t) {
            double distance = (static_cast<double>(begin + t) + 0.5 - center) / stretch;
            if (distance < 0) distance = -distance;
            exact[t] = distance < 1 ? 1 - distance : 0;
            sum += exact[t];
        }
        for (int64_t t = 0; t < end - begin; ++t) {
            exact[t] /= sum;
            if (exact[t] > largest) largest = exact[t];
        }
        first[static_cast<size_t>(x)] = static_cast<int32_t>(begin);
        count[static_cast<size_t>(x)] = static_cast<int32_t>(end - begin);
    }
    // As many bits as fit 16-bit weights, and sums of 255 times the weights in 32 bits. One is kept back for the
    // rounding.
    shift = 8;
    while (shift < 22 && largest * static_cast<double>(int32_t{2} << shift) < 32000)
        ++shift;
    for (int64_t x = 0; x < out_size; ++x)
        to_fixed_point(&exact_[static_cast<size_t>(x * room)], count[static_cast<size_t>(x)], shift,
                       &weights[static_cast<size_t>(x * room)]);
}

}  // namespace rn50
