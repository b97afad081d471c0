#include "pipeline/decode.h"

#include <cstring>

#include "base/error.h"
#include "pipeline/formats.h"

namespace rn50 {

namespace formats {

void set_size(Picture& picture, int64_t height, int64_t width, const DecodeLimits& limits) {
    if (height <= 0 || width <= 0) throw bad_picture("the picture has no pixels");
    if (height > limits.max_pixels / width)
        throw bad_picture(
            cat("a picture of ", width, "x", height, " pixels is above the limit of ", limits.max_pixels));
    picture.height = height;
    picture.width = width;
    picture.rgb.resize(static_cast<size_t>(height * width * 3));
}

}  // namespace formats

namespace {

bool starts_with(formats::Bytes bytes, const char* magic, size_t n) {
    return bytes.size >= n && std::memcmp(bytes.data, magic, n) == 0;
}

bool ends_with_tga(const std::string& name) {
    if (name.size() < 4) return false;
    const char* end = name.c_str() + name.size() - 4;
    return end[0] == '.' && (end[1] | 32) == 't' && (end[2] | 32) == 'g' && (end[3] | 32) == 'a';
}

/// What a file is that is none of ours, as far as that helps.
std::string describe_unknown(formats::Bytes bytes) {
    if (bytes.size == 0) return "the file is empty";
    const auto is = [&](const char* magic, size_t n) { return starts_with(bytes, magic, n); };
    const char* kind = nullptr;
    if (is("GIF8", 4)) kind = "a GIF";
    if (is("RIFF", 4) && bytes.size >= 12 && std::memcmp(bytes.data + 8, "WEBP", 4) == 0) kind = "a WebP";
    if (is("II*\0", 4) || is("MM\0*", 4)) kind = "a TIFF";
    if (bytes.size >= 12 && std::memcmp(bytes.data + 4, "ftyp", 4) == 0) kind = "an AVIF, HEIF or video";
    if (kind) return cat("the file is ", kind, ", which is not read");
    bool text = true;
    for (size_t i = 0; i < bytes.size && i < 64; ++i)
        text = text && bytes.data[i] != 127 && (bytes.data[i] >= 32 || (bytes.data[i] >= 9 && bytes.data[i] <= 13));
    return text ? "the file is a text, not a picture" : "the file is not a picture of a known kind";
}

/// Turns a picture upright: EXIF orientations 2 to 8, where 5 to 8 swap height and width.
void apply_orientation(int orientation, Picture& picture, std::vector<uint8_t>& scratch) {
    if (orientation == 1) return;
    const int64_t h = picture.height, w = picture.width;
    const bool swaps = orientation >= 5;
    const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    const bool from_bottom = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    // In the source: where the upright picture begins, and the way to its next column and its next row.
    const int64_t begin = ((from_bottom ? h - 1 : 0) * w + (from_right ? w - 1 : 0)) * 3;
    const int64_t along_x = from_right ? -3 : 3, along_y = from_bottom ? -w * 3 : w * 3;
    const int64_t next_column = swaps ? along_y : along_x, next_row = swaps ? along_x : along_y;

    if (swaps) std::swap(picture.height, picture.width);
    scratch.resize(picture.rgb.size());
    uint8_t* dst = scratch.data();
    for (int64_t y = 0; y < picture.height; ++y) {
        const uint8_t* src = picture.rgb.data() + begin + y * next_row;
        for (int64_t x = 0; x < picture.width; ++x, src += next_column, dst += 3) {
            dst[0] = src[0];
            dst[1] = src[1];
            dst[2] = src[2];
        }
    }
    picture.rgb.swap(scratch);
}

}  // namespace

struct Decoder::State {
    formats::Jpeg jpeg;
    std::vector<uint8_t> turned;
};

Decoder::Decoder() : state_(std::make_unique<State>()) {}
Decoder::~Decoder() = default;

void Decoder::decode(const uint8_t* data, size_t size, const std::string& name, const DecodeLimits& limits,
                     Picture& picture) {
    const formats::Bytes bytes{data, size};
    try {
        if (starts_with(bytes, "\xFF\xD8\xFF", 3)) {
            state_->jpeg.decode(bytes, limits, picture);
            apply_orientation(formats::jpeg_orientation(bytes), picture, state_->turned);
        } else if (starts_with(bytes, "\x89PNG\r\n\x1A\n", 8)) {
            formats::decode_png(bytes, limits, picture);
            apply_orientation(formats::png_orientation(bytes), picture, state_->turned);
        } else if (starts_with(bytes, "P5", 2) || starts_with(bytes, "P6", 2)) {
            formats::decode_pnm(bytes, limits, picture);
        } else if (starts_with(bytes, "BM", 2)) {
            formats::decode_bmp(bytes, limits, picture);
        } else if (ends_with_tga(name) && size > 18) {
            formats::decode_tga(bytes, limits, picture);
        } else {
            throw formats::bad_picture(describe_unknown(bytes));
        }
    } catch (const Error& error) {
        if (error.code() != Exit::data) throw;
        throw Error(Exit::data, cat(name, ": ", error.what()));
    } catch (const std::bad_alloc&) {
        throw Error(Exit::data, cat(name, ": there is not enough memory to decode it"));
    }
}

Picture decode(const uint8_t* bytes, size_t size, const std::string& name, const DecodeLimits& limits) {
    Decoder decoder;
    Picture picture;
    decoder.decode(bytes, size, name, limits, picture);
    return picture;
}

}  // namespace rn50
