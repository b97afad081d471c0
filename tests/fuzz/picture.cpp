// Any picture file, decoded whole: JPEG, PNG, BMP, PNM, and TGA where the first byte says so.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "pipeline/decode.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace rn50;
    static Decoder decoder;
    static Picture picture;
    DecodeLimits limits;
    limits.max_pixels = 1 << 20;
    limits.max_scans = 20;
    const bool tga = size > 0 && data[0] == 0;
    try {
        decoder.decode(data, size, tga ? "x.tga" : "x", limits, picture);
        RN50_REQUIRE(static_cast<int64_t>(picture.rgb.size()) == picture.height * picture.width * 3, "a picture of ",
                     picture.width, "x", picture.height, " with ", picture.rgb.size(), " bytes");
    } catch (const Error& error) {
        if (error.code() != Exit::data) throw;
    }
    return 0;
}
