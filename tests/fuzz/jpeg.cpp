// JPEG: header, orientation, and a region of the picture at a scale that the input's last bytes choose, in RGB
// or grey; and the whole, by libjpeg alone and with HuffmanReader.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/error.h"
#include "pipeline/decode.h"
#include "pipeline/formats.h"

namespace {

/// The pixels of the whole, or the reason why there are none.
std::string outcome(rn50::formats::Jpeg& jpeg, rn50::formats::Bytes bytes, const rn50::DecodeLimits& limits,
                    rn50::Picture& picture) {
    try {
        const rn50::PictureSize size = jpeg.open(bytes, limits);
        const rn50::Box box{0, 0, static_cast<double>(size.width), static_cast<double>(size.height)};
        jpeg.decode({box, size.height, size.width}, picture);
    } catch (const rn50::Error& error) {
        if (error.code() != rn50::Exit::data) throw;
        picture.rgb.clear();
        return error.what();
    }
    return "";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace rn50;
    static Decoder decoder;  // one for all, as a worker has: nothing may be left of the picture before
    static Picture picture;
    constexpr size_t choices = 5;
    if (size <= choices) return 0;
    size -= choices;
    const uint8_t* const chosen = data + size;
    DecodeLimits limits;
    limits.max_pixels = 1 << 20;
    limits.max_scans = 20;
    try {
        const PictureSize whole = decoder.open(data, size, "x", limits, chosen[4] % 2 == 1);
        const int64_t x = chosen[0] * (whole.width - 1) / 255, y = chosen[1] * (whole.height - 1) / 255;
        const int64_t w = 1 + chosen[2] * (whole.width - x - 1) / 255, h = 1 + chosen[3] * (whole.height - y - 1) / 255;
        const Box box{static_cast<double>(x), static_cast<double>(y), static_cast<double>(x + w),
                      static_cast<double>(y + h)};
        const Box where = decoder.decode_region({box, 1 + chosen[4] / 4, 1 + chosen[4] / 4}, picture);
        RN50_REQUIRE(where.x0 >= 0 && where.y0 >= 0 && where.x1 <= static_cast<double>(picture.width) &&
                         where.y1 <= static_cast<double>(picture.height) && where.x0 < where.x1 && where.y0 < where.y1,
                     "the box lies outside of what was decoded");
    } catch (const Error& error) {
        if (error.code() != Exit::data) throw;
    }
    // HuffmanReader in libjpeg's place changes nothing.
    static formats::Jpeg own, alone(true);
    static Picture by_own, by_alone;
    RN50_REQUIRE(outcome(own, {data, size}, limits, by_own) == outcome(alone, {data, size}, limits, by_alone) &&
                     by_own.rgb == by_alone.rgb,
                 "other pixels than libjpeg's");
    return 0;
}
