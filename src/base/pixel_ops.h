// Arithmetic of single pixels in augmentation, in integers: the one definition for the CPU and for CUDA kernels; and
// the CPU's passes over a picture. (constexpr: GPU code calls it too.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/random.h"

namespace rn50::pixel {

/// Names the random numbers of one picture in one epoch.
struct Key {
    uint64_t seed;
    uint64_t sample;
    uint32_t epoch;
};

/// Block `index` of four words of Random(seed, epoch, sample, purpose), for numbers that belong to pixels.
constexpr std::array<uint32_t, 4> block_of(const Key& key, Purpose purpose, uint32_t index) {
    return philox({index, key.epoch, static_cast<uint32_t>(key.sample),
                   static_cast<uint32_t>(key.sample >> 32) ^ (static_cast<uint32_t>(purpose) << 24)},
                  {static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32)});
}

/// Factors of colour are in units of 2^-13.
constexpr int32_t one = 8192;
constexpr int32_t fixed_factor(float factor) {
    return static_cast<int32_t>(factor * static_cast<float>(one) + 0.5f);
}

constexpr uint8_t clip(int32_t value) {
    return static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

/// a + (b - a) * factor, rounded and cut to a byte: Pillow's Image.blend.
constexpr uint8_t blend(int32_t a, int32_t b, int32_t factor) {
    return clip((a * one + (b - a) * factor + one / 2) >> 13);
}

/// ITU-R 601 luma in 16-bit fixed point, as Pillow converts RGB to L; of equal channels it is their value.
constexpr int32_t luma(const uint8_t* rgb) {
    return (rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16;
}
constexpr int32_t gray_of(const uint8_t* p, int channels) {
    return channels == 1 ? p[0] : luma(p);
}

/// `sum` / `count`, rounded.
constexpr int32_t mean_of(int64_t sum, int64_t count) {
    return static_cast<int32_t>((2 * sum + count) / (2 * count));
}

enum Jitter : uint8_t { brightness = 0, contrast = 1, saturation = 2 };

/// One pixel through one step of colour jitter, Pillow's ImageEnhance: a blend with black, with the picture's mean grey
/// (`mean`, for contrast), with the pixel's own grey. One channel has no saturation to change.
constexpr void jitter(uint8_t* p, int channels, uint8_t kind, int32_t factor, int32_t mean) {
    if (factor == one || (kind == saturation && channels == 1)) return;
    const int32_t base = kind == brightness ? 0 : kind == contrast ? mean : luma(p);
    for (int c = 0; c < channels; ++c)
        p[c] = blend(base, p[c], factor);
}

/// A rectangle of whole pixels; height 0: none.
struct Area {
    int32_t y, x, height, width;
};

/// What is drawn for a picture of the net's size, as far as it belongs to single pixels. Applied in this order: turns,
/// vertical flip, horizontal flip, the three jitters, erasing. Plain data: kernels read it.
struct Changes {
    Key key;
    int32_t factors[3];  ///< by Jitter, in units of 2^-13
    uint8_t order[3];    ///< of the jitters
    uint8_t turns;       ///< by 90 degrees, counter-clockwise: 0 to 3
    uint8_t flip_horizontal, flip_vertical;
    uint8_t fill[3];     ///< of the erased area
    uint8_t fill_noise;  ///< 1: random bytes there instead
    Area erased;
};

/// The source pixel y * size + x of the pixel (y, x) of a square picture behind turns and flips.
constexpr int64_t source_of(const Changes& changes, int64_t size, int64_t y, int64_t x) {
    if (changes.flip_horizontal) x = size - 1 - x;
    if (changes.flip_vertical) y = size - 1 - y;
    const int64_t last = size - 1;
    switch (changes.turns & 3) {
        case 1:
            return x * size + last - y;
        case 2:
            return (last - y) * size + last - x;
        case 3:
            return (last - x) * size + y;
        default:
            return y * size + x;
    }
}

constexpr bool inside(const Area& area, int64_t y, int64_t x) {
    return y >= area.y && y < area.y + area.height && x >= area.x && x < area.x + area.width;
}

/// Blocks of the erasing's random numbers from here on fill pixels; those before it draw the area.
constexpr uint32_t first_fill_block = 1u << 16;

/// Byte `index` (from 0, over the pixels and channels of the whole picture) of a filling with noise: uniform, as Zhong
/// et al., "Random erasing data augmentation" (2020), do it.
constexpr uint8_t fill_byte(const Key& key, int64_t index) {
    const auto words = block_of(key, Purpose::erasing, first_fill_block + static_cast<uint32_t>(index / 16));
    return static_cast<uint8_t>(words[static_cast<size_t>(index / 4 % 4)] >> (index % 4 * 8));
}

/// The pixel (y, x) when it is erased.
constexpr void erase(const Changes& changes, int64_t size, int channels, int64_t y, int64_t x, uint8_t* p) {
    for (int c = 0; c < channels; ++c)
        p[c] = changes.fill_noise ? fill_byte(changes.key, (y * size + x) * channels + c) : changes.fill[c];
}

// --- whole pictures, u8 {size, size, channels}, in place: the parts of Changes in their order ---
/// Turns and flips.
void turn(const Changes& changes, uint8_t* pixels, int64_t size, int channels, std::vector<uint8_t>& scratch);
/// The mean grey of `count` pixels, as Pillow's ImageEnhance.Contrast takes it.
int32_t mean_gray(const uint8_t* pixels, int64_t count, int channels);
/// One jitter of `count` pixels. Contrast takes the mean grey that they have.
void jitter(uint8_t kind, int32_t factor, uint8_t* pixels, int64_t count, int channels);
/// The three jitters. Contrast takes the mean grey that the jitters before it leave.
void jitter(const Changes& changes, uint8_t* pixels, int64_t size, int channels);
void erase(const Changes& changes, uint8_t* pixels, int64_t size, int channels);

}  // namespace rn50::pixel
