#include "pipeline/formats.h"

namespace rn50::formats {

namespace {

/// The next decimal number of the header, which blanks and comments (# to the end of the line) may precede.
int64_t header_number(Bytes bytes, size_t& at) {
    const auto peek = [&] { return at < bytes.size ? bytes.data[at] : 0; };
    for (;;) {
        const uint8_t c = peek();
        if (c == '#') {
            while (at < bytes.size && bytes.data[at] != '\n')
                ++at;
        } else if (c == ' ' || (c >= '\t' && c <= '\r')) {
            ++at;
        } else {
            break;
        }
    }
    if (peek() < '0' || peek() > '9') throw bad_picture("damaged PNM header");
    int64_t value = 0;
    while (peek() >= '0' && peek() <= '9') {
        value = value * 10 + (bytes.data[at++] - '0');
        if (value > INT32_MAX) throw bad_picture("damaged PNM header");
    }
    return value;
}

}  // namespace

int decode_pnm(Bytes bytes, const DecodeLimits& limits, int bits, Picture& picture) {
    const int64_t channels = bytes.data[1] == '6' ? 3 : 1;
    size_t at = 2;
    const int64_t width = header_number(bytes, at);
    const int64_t height = header_number(bytes, at);
    const int64_t maxval = header_number(bytes, at);
    if (maxval < 1 || maxval > 65535) throw bad_picture("damaged PNM header");
    ++at;  // exactly one blank
    const int64_t width_of_value = maxval > 255 ? 2 : 1;
    const int64_t white = maxval > 255 && bits > 0 ? (int64_t{1} << bits) - 1 : maxval;
    // Before the memory is taken: the limit, and whether the file can hold so much.
    if (height > 0 && width > 0 && height <= limits.max_pixels / width &&
        (bytes.size < at || static_cast<int64_t>(bytes.size - at) < height * width * channels * width_of_value))
        throw bad_picture("the file is cut short");
    set_size(picture, height, width, limits);
    const uint8_t* src = bytes.data + at;
    uint8_t* dst = picture.rgb.data();
    int64_t highest = 0;
    for (int64_t i = 0; i < height * width; ++i) {
        for (int64_t c = 0; c < channels; ++c, src += width_of_value) {
            int64_t value = width_of_value == 2 ? src[0] << 8 | src[1] : src[0];
            if (value > highest) highest = value;
            if (value > white) value = white;
            dst[c] = static_cast<uint8_t>(white == 255 ? value : (value * 255 + white / 2) / white);
        }
        if (channels == 1) dst[1] = dst[2] = dst[0];
        dst += 3;
    }
    return maxval == UINT16_MAX && bits == 0 ? static_cast<int>(highest) : -1;
}

}  // namespace rn50::formats
