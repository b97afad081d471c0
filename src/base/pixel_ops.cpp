#include "base/pixel_ops.h"

#include <algorithm>
#include <cstring>

namespace rn50::pixel {

namespace {

void flip_rows(uint8_t* pixels, int64_t size, int channels) {
    const int64_t row = size * channels;
    for (int64_t y = 0; y < size / 2; ++y)
        std::swap_ranges(pixels + y * row, pixels + (y + 1) * row, pixels + (size - 1 - y) * row);
}

template <int channels>
void flip_columns(uint8_t* pixels, int64_t size) {
    for (int64_t y = 0; y < size; ++y) {
        uint8_t* left = pixels + y * size * channels;
        uint8_t* right = left + (size - 1) * channels;
        for (; left < right; left += channels, right -= channels)
            for (int c = 0; c < channels; ++c)
                std::swap(left[c], right[c]);
    }
}

}  // namespace

int32_t mean_gray(const uint8_t* pixels, int64_t count, int channels) {
    int64_t sum = 0;
    for (const uint8_t* p = pixels; p < pixels + count * channels; p += channels)
        sum += gray_of(p, channels);
    return mean_of(sum, count);
}

void turn(const Changes& changes, uint8_t* pixels, int64_t size, int channels, std::vector<uint8_t>& scratch) {
    if (changes.turns == 0) {
        if (changes.flip_vertical) flip_rows(pixels, size, channels);
        if (changes.flip_horizontal) channels == 1 ? flip_columns<1>(pixels, size) : flip_columns<3>(pixels, size);
        return;
    }
    scratch.assign(pixels, pixels + size * size * channels);
    for (int64_t y = 0; y < size; ++y)
        for (int64_t x = 0; x < size; ++x, pixels += channels)
            std::memcpy(pixels, &scratch[static_cast<size_t>(source_of(changes, size, y, x) * channels)],
                        static_cast<size_t>(channels));
}

void jitter(uint8_t kind, int32_t factor, uint8_t* pixels, int64_t count, int channels) {
    if (factor == one) return;
    if (kind == saturation) {
        if (channels == 1) return;
        for (uint8_t* p = pixels; p < pixels + count * 3; p += 3)
            jitter(p, 3, kind, factor, 0);
        return;
    }
    const int32_t mean = kind == contrast ? mean_gray(pixels, count, channels) : 0;
    uint8_t table[256];  // what becomes of a byte does not depend on its neighbours
    for (int value = 0; value < 256; ++value) {
        table[value] = static_cast<uint8_t>(value);
        jitter(&table[value], 1, kind, factor, mean);
    }
    for (uint8_t* p = pixels; p < pixels + count * channels; ++p)
        *p = table[*p];
}

void jitter(const Changes& changes, uint8_t* pixels, int64_t size, int channels) {
    for (const uint8_t kind : changes.order)
        jitter(kind, changes.factors[kind], pixels, size * size, channels);
}

void erase(const Changes& changes, uint8_t* pixels, int64_t size, int channels) {
    const Area& area = changes.erased;
    for (int64_t y = area.y; y < area.y + area.height; ++y)
        for (int64_t x = area.x; x < area.x + area.width; ++x)
            erase(changes, size, channels, y, x, pixels + (y * size + x) * channels);
}

}  // namespace rn50::pixel
