// From a decoded picture to the square that the net sees.
#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/math.h"
#include "base/pixel_ops.h"
#include "pipeline/augment.h"
#include "pipeline/filters.h"

namespace rn50 {

namespace {

/// What a picture is that was decoded whole.
Reduced whole(const Picture& picture) {
    return {{picture.height, picture.width},
            {0, 0, static_cast<double>(picture.width), static_cast<double>(picture.height)}};
}

PictureView view_of(const Picture& picture) {
    return {picture.rgb.data(), picture.height, picture.width, picture.width * 3};
}

/// size * other / longest, rounded, at least 1.
int64_t scaled(int64_t size, int64_t other, int64_t longest) {
    return std::max<int64_t>(1, (2 * size * other + longest) / (2 * longest));
}

void letterbox(Resizer& resizer, const Picture& picture, const Reduced& reduced, const PictureOptions& options,
               uint8_t* dst) {
    const int64_t size = options.image_size;
    const PictureSize inner = resized_size(options, reduced.full);
    const int64_t y = (size - inner.height) / 2, x = (size - inner.width) / 2;
    for (int64_t i = 0; i < size * size; ++i)
        std::memcpy(dst + i * 3, options.letterbox_fill.data(), 3);
    resizer.bilinear(view_of(picture), reduced.where, dst + (y * size + x) * 3, inner.height, inner.width, size * 3);
}

/// The middle of the resized picture. Only that is computed: its output pixels are those of the whole.
void center(Resizer& resizer, const Picture& picture, const Reduced& reduced, const PictureOptions& options,
            uint8_t* dst) {
    const int64_t size = options.image_size;
    const PictureSize outer = resized_size(options, reduced.full);
    // Python's round() of a half goes to the even neighbour.
    const auto half = [](int64_t n) { return n / 2 + (n % 2 && n / 2 % 2 ? 1 : 0); };
    const int64_t top = half(outer.height - size), left = half(outer.width - size);
    const Box& all = reduced.where;
    const double y_step = (all.y1 - all.y0) / static_cast<double>(outer.height);
    const double x_step = (all.x1 - all.x0) / static_cast<double>(outer.width);
    const Box box = {all.x0 + static_cast<double>(left) * x_step, all.y0 + static_cast<double>(top) * y_step,
                     std::min(all.x0 + static_cast<double>(left + size) * x_step, all.x1),
                     std::min(all.y0 + static_cast<double>(top + size) * y_step, all.y1)};
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

}  // namespace

PictureSize resized_size(const PictureOptions& options, PictureSize picture) {
    const int64_t size = options.image_size;
    switch (options.resize) {
        case Resize::squash:
            break;
        case Resize::letterbox: {
            const int64_t longest = std::max(picture.height, picture.width);
            return {scaled(size, picture.height, longest), scaled(size, picture.width, longest)};
        }
        case Resize::center: {
            // The shorter side to size * 256 / 224, the longer in proportion, both rounded down as torchvision does.
            const int64_t shorter = size * 256 / 224;
            if (picture.width <= picture.height) return {shorter * picture.height / picture.width, shorter};
            return {shorter, shorter * picture.width / picture.height};
        }
    }
    return {size, size};
}

/// The geometry: dst is {size, size, 3}.
void Renderer::place(const Picture& picture, const PictureOptions& options, const AugmentParameters* parameters,
                     const Reduced* reduced, uint8_t* dst) {
    const int64_t size = options.image_size;
    if (parameters && parameters->cropped) return crop(resizer_, picture, parameters->crop, size, dst);
    const Reduced how = reduced ? *reduced : whole(picture);
    switch (options.resize) {
        case Resize::squash:
            return resizer_.bilinear(view_of(picture), how.where, dst, size, size, size * 3);
        case Resize::letterbox:
            return letterbox(resizer_, picture, how, options, dst);
        case Resize::center:
            return center(resizer_, picture, how, options, dst);
    }
}

void Renderer::render(const Picture& picture, const PictureOptions& options, const AugmentParameters* parameters,
                      uint8_t* dst, const Reduced* reduced, pixel::Changes* apart) {
    const int64_t size = options.image_size, count = size * size;
    const int channels = options.channels;
    RN50_REQUIRE(size > 0 && picture.height > 0 && picture.width > 0, "rendering ", picture.width, "x", picture.height,
                 " to ", size);
    RN50_REQUIRE(channels == 1 || channels == 3, channels, " channels");
    if (channels == 3) {
        place(picture, options, parameters, reduced, dst);
    } else {
        rgb_.resize(static_cast<size_t>(count * 3));
        place(picture, options, parameters, reduced, rgb_.data());
        for (int64_t i = 0; i < count; ++i)
            dst[i] = static_cast<uint8_t>(pixel::luma(&rgb_[static_cast<size_t>(i * 3)]));
    }
    if (!parameters) return;
    const pixel::Changes changes = changes_of(*parameters, options);
    if (apart != nullptr) {
        RN50_REQUIRE(belongs_to_pixels(options), "what is left to others is more than they can do");
        *apart = changes;
        return;
    }
    pixel::turn(changes, dst, size, channels, scratch_);
    for (int i = 0; i < parameters->policy.count; ++i)
        apply_op(parameters->policy.ops[static_cast<size_t>(i)], dst, size, channels, options.letterbox_fill.data(),
                 scratch_);
    pixel::jitter(changes, dst, size, channels);
    if (parameters->blur > 0) gaussian_blur(parameters->blur, dst, size, channels, blurred_);
    if (parameters->noise > 0) add_noise(parameters->noise, parameters->key, dst, count * channels);
    pixel::erase(changes, dst, size, channels);
}

void render(const Picture& picture, const PictureOptions& options, const AugmentParameters* parameters, uint8_t* dst) {
    Renderer().render(picture, options, parameters, dst);
}

}  // namespace rn50
