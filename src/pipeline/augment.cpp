#include "pipeline/augment.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/random.h"

namespace rn50 {

namespace {

template <class T, size_t N>
T from_name(const std::string& name, const char* option, const std::array<T, N>& values) {
    std::string list;
    for (const T value : values) {
        if (name == name_of(value)) return value;
        list += (list.empty() ? "" : ", ") + std::string(name_of(value));
    }
    throw Error(Exit::usage, cat(option, " ", name, " is not known"), cat("choose one of: ", list));
}

/// e^x for |x| <= 0.3 to the last bit or two, by its series: libm may not be used, it differs between systems.
double small_exp(double x) {
    double sum = 1;
    for (int n = 14; n >= 1; --n)
        sum = 1 + sum * x / n;
    return sum;
}

int64_t round_positive(double x) {
    return static_cast<int64_t>(x + 0.5);
}

constexpr double log_4_3 = 0.28768207245178092744;

Box random_crop(const PictureOptions& options, int64_t height, int64_t width, Random random) {
    const auto h = static_cast<double>(height), w = static_cast<double>(width);
    const auto box = [](int64_t y, int64_t x, int64_t box_h, int64_t box_w) {
        return Box{static_cast<double>(x), static_cast<double>(y), static_cast<double>(x + box_w),
                   static_cast<double>(y + box_h)};
    };
    for (int attempt = 0; attempt < 10; ++attempt) {
        const double area = h * w * random.uniform(options.crop_scale_min, options.crop_scale_max);
        const double ratio = small_exp(random.uniform(-log_4_3, log_4_3));
        const int64_t box_w = round_positive(std::sqrt(area * ratio));
        const int64_t box_h = round_positive(std::sqrt(area / ratio));
        if (box_w < 1 || box_w > width || box_h < 1 || box_h > height) continue;
        const auto y = static_cast<int64_t>(random.below(static_cast<uint64_t>(height - box_h + 1)));
        const auto x = static_cast<int64_t>(random.below(static_cast<uint64_t>(width - box_w + 1)));
        return box(y, x, box_h, box_w);
    }
    // The largest centred box whose ratio is allowed.
    int64_t box_h = height, box_w = width;
    if (4 * width < 3 * height) box_h = std::max<int64_t>(1, round_positive(w * 4 / 3));
    if (3 * width > 4 * height) box_w = std::max<int64_t>(1, round_positive(h * 4 / 3));
    return box((height - box_h) / 2, (width - box_w) / 2, box_h, box_w);
}

/// 1 without jitter.
float jitter_factor(float jitter, Random& random) {
    const double u = random.uniform(0, 1);  // drawn in any case: switching one jitter on leaves the others as they were
    const double low = jitter < 1 ? 1 - static_cast<double>(jitter) : 0, high = 1 + static_cast<double>(jitter);
    return static_cast<float>(low + (high - low) * u);
}

}  // namespace

const char* name_of(Resize resize) {
    switch (resize) {
        case Resize::squash:
            return "squash";
        case Resize::letterbox:
            return "letterbox";
        case Resize::center:
            return "center";
    }
    return "?";
}

const char* name_of(Augment augment) {
    switch (augment) {
        case Augment::none:
            return "none";
        case Augment::flip:
            return "flip";
        case Augment::crop:
            return "crop";
    }
    return "?";
}

const char* name_of(Decode decode) {
    return decode == Decode::whole ? "whole" : "region";
}

Resize resize_from(const std::string& name) {
    return from_name(name, "--resize", std::array<Resize, 3>{Resize::squash, Resize::letterbox, Resize::center});
}

Augment augment_from(const std::string& name) {
    return from_name(name, "--augment", std::array<Augment, 3>{Augment::none, Augment::flip, Augment::crop});
}

Decode decode_from(const std::string& name) {
    return from_name(name, "--decode", std::array<Decode, 2>{Decode::region, Decode::whole});
}

AugmentParameters draw_augment(const PictureOptions& options, int64_t height, int64_t width, uint64_t seed,
                               int64_t epoch, int64_t sample) {
    AugmentParameters drawn;
    if (options.augment == Augment::none) return drawn;
    const auto random = [&](Purpose purpose) {
        return Random(seed, static_cast<uint32_t>(epoch), static_cast<uint64_t>(sample), purpose);
    };
    if (options.augment == Augment::crop && options.resize != Resize::letterbox) {
        drawn.cropped = true;
        drawn.crop = random_crop(options, height, width, random(Purpose::crop));
    }
    Random flip = random(Purpose::flip);
    drawn.flip_horizontal = flip.uniform() < 0.5f && options.flip_horizontal;
    drawn.flip_vertical = flip.uniform() < 0.5f && options.flip_vertical;
    Random color = random(Purpose::color);
    drawn.brightness = jitter_factor(options.jitter_brightness, color);
    drawn.contrast = jitter_factor(options.jitter_contrast, color);
    drawn.saturation = jitter_factor(options.jitter_saturation, color);
    for (size_t i = 2; i > 0; --i)
        std::swap(drawn.jitter_order[i], drawn.jitter_order[color.below(i + 1)]);
    return drawn;
}

}  // namespace rn50
