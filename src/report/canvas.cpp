#include "report/canvas.h"

#include <algorithm>

#include "base/error.h"

#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include <stb/stb_easy_font.h>
#include <stb/stb_image_write.h>
#pragma GCC diagnostic pop

namespace rn50::report {

namespace {

constexpr int64_t most_pixels = 400'000'000;  // their bytes are counted in 31 bits by the PNG writer
constexpr int64_t pixel_size = 2;             // the font is made for smaller screens

std::string shown(const std::string& line) {
    std::string ascii = line;
    for (char& c : ascii)
        if (c < 32 || c > 126) c = '?';
    return ascii;
}

/// A corner of a quad as stb_easy_font writes it.
struct Corner {
    float x, y, z;
    uint8_t color[4];
};

}  // namespace

Canvas::Canvas(int64_t height, int64_t width, const Color& background) : height_(height), width_(width) {
    RN50_REQUIRE(height > 0 && width > 0, "a canvas of ", width, "x", height);
    if (height > most_pixels / width)
        throw Error(Exit::usage, cat("a picture of ", width, "x", height, " pixels is too large to write"),
                    "show fewer pictures");
    rgb_.resize(static_cast<size_t>(height * width * 3));
    for (size_t i = 0; i < rgb_.size(); i += 3)
        std::copy_n(background, 3, &rgb_[i]);
}

void Canvas::place(int64_t y, int64_t x, const uint8_t* pixels, int64_t rows, int64_t columns, int channels) {
    RN50_REQUIRE(y >= 0 && x >= 0 && y + rows <= height_ && x + columns <= width_, "a picture outside of its canvas");
    for (int64_t row = 0; row < rows; ++row) {
        uint8_t* dst = &rgb_[static_cast<size_t>(((y + row) * width_ + x) * 3)];
        for (int64_t i = 0; i < columns; ++i, pixels += channels, dst += 3)
            for (int c = 0; c < 3; ++c)
                dst[c] = pixels[channels == 1 ? 0 : c];
    }
}

int64_t Canvas::text_width(const std::string& line) {
    std::string ascii = shown(line);
    return stb_easy_font_width(ascii.data()) * pixel_size;
}

void Canvas::text(int64_t y, int64_t x, const std::string& line, int64_t columns, const Color& color) {
    std::string ascii = shown(line);
    std::vector<Corner> corners(ascii.size() * 4 * 32 + 4);
    const int quads = stb_easy_font_print(0, 0, ascii.data(), nullptr, corners.data(),
                                          static_cast<int>(corners.size() * sizeof(Corner)));
    const int64_t right = std::min(x + columns, width_);
    for (int q = 0; q < quads; ++q) {
        const Corner& first = corners[static_cast<size_t>(q * 4)];
        const Corner& opposite = corners[static_cast<size_t>(q * 4 + 2)];
        for (auto row = static_cast<int64_t>(first.y) * pixel_size; row < static_cast<int64_t>(opposite.y) * pixel_size;
             ++row)
            for (auto at = static_cast<int64_t>(first.x) * pixel_size;
                 at < static_cast<int64_t>(opposite.x) * pixel_size; ++at)
                if (y + row < height_ && x + at < right)
                    std::copy_n(color, 3, &rgb_[static_cast<size_t>(((y + row) * width_ + x + at) * 3)]);
    }
}

std::string Canvas::png() const {
    std::string bytes;
    const auto add = [](void* to, void* data, int size) {
        static_cast<std::string*>(to)->append(static_cast<const char*>(data), static_cast<size_t>(size));
    };
    const int written = stbi_write_png_to_func(add, &bytes, static_cast<int>(width_), static_cast<int>(height_), 3,
                                               rgb_.data(), static_cast<int>(width_ * 3));
    if (written == 0) throw Error(Exit::device, cat("there is not enough memory for a PNG of ", width_, "x", height_));
    return bytes;
}

}  // namespace rn50::report
