#include "pipeline/augment.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/exact.h"
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
        const double ratio = exact_exp(random.uniform(-log_4_3, log_4_3));
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

/// torchvision's RandomErasing in a picture of size x size.
pixel::Area random_erasing(double probability, int64_t size, Random random) {
    constexpr double log_low = -1.2039728043259361, log_high = 1.1939224684724346;  // of 0.3 and 3.3
    if (!(random.uniform(0, 1) < probability)) return {};
    for (int attempt = 0; attempt < 10; ++attempt) {
        const double area = static_cast<double>(size * size) * random.uniform(0.02, 0.33);
        const double ratio = exact_exp(random.uniform(log_low, log_high));
        const int64_t h = round_positive(std::sqrt(area * ratio)), w = round_positive(std::sqrt(area / ratio));
        if (h < 1 || w < 1 || h >= size || w >= size) continue;
        const auto y = static_cast<int32_t>(random.below(static_cast<uint64_t>(size - h + 1)));
        const auto x = static_cast<int32_t>(random.below(static_cast<uint64_t>(size - w + 1)));
        return {y, x, static_cast<int32_t>(h), static_cast<int32_t>(w)};
    }
    return {};
}

/// 0 for every second picture.
double random_blur(double largest, Random random) {
    if (largest == 0 || random.uniform() < 0.5f) return 0;
    return random.uniform(std::min(0.1, largest), largest);
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
        case Augment::randaugment:
            return "randaugment";
        case Augment::trivial:
            return "trivial";
    }
    return "?";
}

Resize resize_from(const std::string& name) {
    return from_name(name, "--resize", std::array<Resize, 3>{Resize::squash, Resize::letterbox, Resize::center});
}

Augment augment_from(const std::string& name) {
    return from_name(
        name, "--augment",
        std::array<Augment, 5>{Augment::none, Augment::flip, Augment::crop, Augment::randaugment, Augment::trivial});
}

AugmentParameters draw_augment(const PictureOptions& options, int64_t height, int64_t width, uint64_t seed,
                               int64_t epoch, int64_t sample) {
    AugmentParameters drawn;
    if (options.augment == Augment::none) return drawn;
    const auto random = [&](Purpose purpose) {
        return Random(seed, static_cast<uint32_t>(epoch), static_cast<uint64_t>(sample), purpose);
    };
    if (options.augment != Augment::flip && options.resize != Resize::letterbox) {
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
    if (options.rotate90) drawn.turns = static_cast<uint8_t>(random(Purpose::turn).below(4));
    if (options.augment == Augment::randaugment)
        drawn.policy = draw_randaugment(options.randaugment_ops, options.randaugment_magnitude, options.image_size,
                                        random(Purpose::policy));
    if (options.augment == Augment::trivial) drawn.policy = draw_trivial(random(Purpose::policy));
    drawn.blur = random_blur(options.blur, random(Purpose::blur));
    drawn.noise =
        static_cast<int32_t>(random(Purpose::noise).uniform(0, 1) * std::min(options.noise, 1.0) * (255 * 256));
    if (options.erasing > 0)
        drawn.erased = random_erasing(options.erasing, options.image_size, random(Purpose::erasing));
    drawn.key = {seed, static_cast<uint64_t>(sample), static_cast<uint32_t>(epoch)};
    return drawn;
}

bool belongs_to_pixels(const PictureOptions& options) {
    const bool policy = options.augment == Augment::randaugment || options.augment == Augment::trivial;
    return !policy && options.blur == 0 && options.noise == 0;
}

pixel::Changes changes_of(const AugmentParameters& drawn, const PictureOptions& options) {
    pixel::Changes changes{};
    changes.key = drawn.key;
    const float factors[3] = {drawn.brightness, drawn.contrast, drawn.saturation};
    for (size_t i = 0; i < 3; ++i) {
        changes.factors[i] = pixel::fixed_factor(factors[i]);
        changes.order[i] = drawn.jitter_order[i];
        changes.fill[i] = options.erasing_fill[i];
    }
    if (options.channels == 1) changes.fill[0] = static_cast<uint8_t>(pixel::luma(options.erasing_fill.data()));
    changes.turns = drawn.turns;
    changes.flip_horizontal = drawn.flip_horizontal;
    changes.flip_vertical = drawn.flip_vertical;
    changes.fill_noise = options.erasing_noise;
    changes.erased = drawn.erased;
    return changes;
}

}  // namespace rn50
