// From a decoded picture to the square that the net sees.
#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/math.h"
#include "pipeline/augment.h"

namespace rn50 {

namespace {

Box whole(const Picture& picture) {
    return {0, 0, static_cast<double>(picture.width), static_cast<double>(picture.height)};
}

PictureView view_of(const Picture& picture) {
    return {picture.rgb.data(), picture.height, picture.width, picture.width * 3};
}

/// size * other / longest, rounded, at least 1.
int64_t scaled(int64_t size, int64_t other, int64_t longest) {
    return std::max<int64_t>(1, (2 * size * other + longest) / (2 * longest));
}

void letterbox(Resizer& resizer, const Picture& picture, const PictureOptions& options, uint8_t* dst) {
    const int64_t size = options.image_size, longest = std::max(picture.height, picture.width);
    const int64_t h = scaled(size, picture.height, longest), w = scaled(size, picture.width, longest);
    const int64_t y = (size - h) / 2, x = (size - w) / 2;
    for (int64_t i = 0; i < size * size; ++i)
        std::memcpy(dst + i * 3, options.letterbox_fill.data(), 3);
    resizer.bilinear(view_of(picture), whole(picture), dst + (y * size + x) * 3, h, w, size * 3);
}

/// The shorter side to size * 256 / 224, the longer in proportion, both rounded down as torchvision does; then the
/// middle. Only the middle is computed: its output pixels are those of the whole.
void center(Resizer& resizer, const Picture& picture, const PictureOptions& options, uint8_t* dst) {
    const int64_t size = options.image_size, shorter = size * 256 / 224;
    const bool portrait = picture.width <= picture.height;
    const int64_t h = portrait ? shorter * picture.height / picture.width : shorter;
    const int64_t w = portrait ? shorter : shorter * picture.width / picture.height;
    // Python's round() of a half goes to the even neighbour.
    const auto half = [](int64_t n) { return n / 2 + (n % 2 && n / 2 % 2 ? 1 : 0); };
    const int64_t top = half(h - size), left = half(w - size);
    const double y_step = static_cast<double>(picture.height) / static_cast<double>(h);
    const double x_step = static_cast<double>(picture.width) / static_cast<double>(w);
    const Box box = {static_cast<double>(left) * x_step, static_cast<double>(top) * y_step,
                     std::min(static_cast<double>(left + size) * x_step, static_cast<double>(picture.width)),
                     std::min(static_cast<double>(top + size) * y_step, static_cast<double>(picture.height))};
    resizer.bilinear(view_of(picture), box, dst, size, size, size * 3);
}

/// torchvision crops first, so what lies outside of the crop takes no part; where a reduced picture's pixel lies on the
/// crop's edge, it does.
void crop(Resizer& resizer, const Picture& picture, const Box& box, int64_t size, uint8_t* dst) {
    const auto x = static_cast<int64_t>(box.x0), y = static_cast<int64_t>(box.y0);
    const int64_t w = ceil_to_int(box.x1) - x, h = ceil_to_int(box.y1) - y;
    RN50_REQUIRE(box.x0 >= 0 && box.y0 >= 0 && w > 0 && h > 0 && x + w <= picture.width && y + h <= picture.height,
                 "crop outside of the picture");
    const PictureView view = {picture.rgb.data() + (y * picture.width + x) * 3, h, w, picture.width * 3};
    const auto left = static_cast<double>(x), top = static_cast<double>(y);
    resizer.bilinear(view, {box.x0 - left, box.y0 - top, box.x1 - left, box.y1 - top}, dst, size, size, size * 3);
}

void flip_rows(uint8_t* pixels, int64_t size) {
    for (int64_t y = 0; y < size / 2; ++y)
        std::swap_ranges(pixels + y * size * 3, pixels + (y + 1) * size * 3, pixels + (size - 1 - y) * size * 3);
}

void flip_columns(uint8_t* pixels, int64_t size) {
    for (int64_t y = 0; y < size; ++y) {
        uint8_t* left = pixels + y * size * 3;
        uint8_t* right = left + (size - 1) * 3;
        for (; left < right; left += 3, right -= 3) {
            std::swap(left[0], right[0]);
            std::swap(left[1], right[1]);
            std::swap(left[2], right[2]);
        }
    }
}

/// a + (b - a) * factor, cut to a byte; the factor in units of 2^-13, so that all systems agree.
struct Blend {
    explicit Blend(float factor) : fixed(static_cast<int32_t>(factor * 8192.0f + 0.5f)) {}
    uint8_t operator()(int32_t a, int32_t b) const {
        const int32_t value = (a * 8192 + (b - a) * fixed + 4096) >> 13;
        return static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
    }
    int32_t fixed;
};

/// ITU-R 601 luma in 16-bit fixed point, as Pillow converts RGB to L.
int32_t luma(const uint8_t* rgb) {
    return (rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16;
}

/// Pillow's ImageEnhance: a blend with black, with the mean grey, with the picture's own grey.
void jitter(const AugmentParameters& drawn, uint8_t* pixels, int64_t count) {
    for (const uint8_t kind : drawn.jitter_order) {
        const float factor = kind == 0 ? drawn.brightness : kind == 1 ? drawn.contrast : drawn.saturation;
        if (factor == 1) continue;
        const Blend blend(factor);
        if (kind == 2) {
            for (uint8_t* p = pixels; p < pixels + count * 3; p += 3) {
                const int32_t gray = luma(p);
                for (int c = 0; c < 3; ++c)
                    p[c] = blend(gray, p[c]);
            }
            continue;
        }
        int32_t base = 0;
        if (kind == 1) {
            int64_t sum = 0;
            for (const uint8_t* p = pixels; p < pixels + count * 3; p += 3)
                sum += luma(p);
            base = static_cast<int32_t>((2 * sum + count) / (2 * count));
        }
        uint8_t table[256];
        for (int32_t value = 0; value < 256; ++value)
            table[value] = blend(base, value);
        for (uint8_t* p = pixels; p < pixels + count * 3; ++p)
            *p = table[*p];
    }
}

}  // namespace

void Renderer::render(const Picture& picture, const PictureOptions& options, const AugmentParameters* parameters,
                      uint8_t* dst) {
    const int64_t size = options.image_size;
    RN50_REQUIRE(size > 0 && picture.height > 0 && picture.width > 0, "rendering ", picture.width, "x", picture.height,
                 " to ", size);
    if (parameters && parameters->cropped) {
        crop(resizer_, picture, parameters->crop, size, dst);
    } else {
        switch (options.resize) {
            case Resize::squash:
                resizer_.bilinear(view_of(picture), whole(picture), dst, size, size, size * 3);
                break;
            case Resize::letterbox:
                letterbox(resizer_, picture, options, dst);
                break;
            case Resize::center:
                center(resizer_, picture, options, dst);
                break;
        }
    }
    if (!parameters) return;
    if (parameters->flip_vertical) flip_rows(dst, size);
    if (parameters->flip_horizontal) flip_columns(dst, size);
    jitter(*parameters, dst, size * size);
}

void render(const Picture& picture, const PictureOptions& options, const AugmentParameters* parameters, uint8_t* dst) {
    Renderer().render(picture, options, parameters, dst);
}

}  // namespace rn50
