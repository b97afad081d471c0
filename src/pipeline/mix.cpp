#include "pipeline/mix.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/exact.h"

namespace rn50 {

namespace {

/// Uniform in (0, 1).
double open_uniform(Random& random) {
    return (static_cast<double>(random.u64() >> 12) + 0.5) * 0x1p-52;
}

/// e^x that goes to 0 and to a huge number instead of leaving the range.
double bounded_exp(double x) {
    return x < -700 ? 0 : exact_exp(std::min(x, 700.0));
}

double johnk(double alpha, Random& random) {
    for (;;) {
        const double x = exact_log(open_uniform(random)) / alpha, y = exact_log(open_uniform(random)) / alpha;
        // Of X = e^x and Y = e^y: accepted when X + Y <= 1, the result is X / (X + Y). In logarithms, for small alpha.
        if (bounded_exp(x) + bounded_exp(y) <= 1) return 1 / (1 + bounded_exp(y - x));
    }
}

double ulrich(double alpha, Random& random) {
    double x = 0, y = 0, square = 0;
    do {  // a direction: a point of the disc
        x = 2 * open_uniform(random) - 1;
        y = 2 * open_uniform(random) - 1;
        square = x * x + y * y;
    } while (square > 1);
    const double power = bounded_exp(exact_log(open_uniform(random)) * 2 / (2 * alpha - 1));
    return 0.5 + 0.5 * std::sqrt(1 - power) * x / std::sqrt(square);
}

/// dst = dst * share + with * (1 - share), rounded.
void blend(uint8_t* dst, const uint8_t* with, int64_t bytes, uint32_t share) {
    const uint32_t rest = Mix::whole - share;
    for (int64_t i = 0; i < bytes; ++i)
        dst[i] = static_cast<uint8_t>((dst[i] * share + with[i] * rest + Mix::whole / 2) >> 16);
}

void copy_rectangle(const Mix& mix, uint8_t* dst, const uint8_t* from, int64_t size, int channels) {
    for (int64_t y = mix.y0; y < mix.y1; ++y) {
        const int64_t begin = (y * size + mix.x0) * channels;
        std::memcpy(dst + begin, from + begin, static_cast<size_t>((mix.x1 - mix.x0) * channels));
    }
}

}  // namespace

double symmetric_beta(double alpha, Random& random) {
    RN50_REQUIRE(alpha > 0 && alpha <= 100, "Beta(", alpha, ", ", alpha, ")");
    return alpha <= 1 ? johnk(alpha, random) : ulrich(alpha, random);
}

Mix draw_mix(const MixOptions& options, int64_t size, uint64_t seed, int64_t epoch, int64_t batch) {
    Mix mix;
    if (!options) return mix;
    Random random(seed, static_cast<uint32_t>(epoch), static_cast<uint64_t>(batch), Purpose::mix);
    const bool second = random.below(2) == 1;  // drawn in any case
    mix.cut = options.mixup > 0 && options.cutmix > 0 ? second : options.cutmix > 0;
    const double share = symmetric_beta(mix.cut ? options.cutmix : options.mixup, random);
    if (!mix.cut) {
        mix.share = static_cast<uint32_t>(share * Mix::whole + 0.5);
        return mix;
    }
    const auto x = static_cast<int64_t>(random.below(static_cast<uint64_t>(size)));
    const auto y = static_cast<int64_t>(random.below(static_cast<uint64_t>(size)));
    const auto half = static_cast<int64_t>(0.5 * std::sqrt(1 - share) * static_cast<double>(size));
    mix.x0 = std::max<int64_t>(x - half, 0);
    mix.y0 = std::max<int64_t>(y - half, 0);
    mix.x1 = std::min(x + half, size);
    mix.y1 = std::min(y + half, size);
    // What is left of the own picture once the rectangle is cut at the edges.
    const double cut = static_cast<double>((mix.x1 - mix.x0) * (mix.y1 - mix.y0)) / static_cast<double>(size * size);
    mix.share = static_cast<uint32_t>((1 - cut) * Mix::whole + 0.5);
    return mix;
}

void apply_mix(const Mix& mix, uint8_t* images, int64_t count, int64_t size, int channels, const int32_t* labels,
               int32_t* partners, std::vector<uint8_t>& scratch) {
    const int64_t bytes = size * size * channels;
    for (int64_t i = 0; i < count; ++i)
        partners[i] = labels[i > 0 ? i - 1 : count - 1];
    if (count < 2) return;
    // From the back, so that each partner is still as it was; the last picture is wanted by the first.
    scratch.assign(images + (count - 1) * bytes, images + count * bytes);
    for (int64_t i = count - 1; i >= 0; --i) {
        const uint8_t* partner = i > 0 ? images + (i - 1) * bytes : scratch.data();
        if (mix.cut)
            copy_rectangle(mix, images + i * bytes, partner, size, channels);
        else if (mix.share != Mix::whole)
            blend(images + i * bytes, partner, bytes, mix.share);
    }
}

}  // namespace rn50
