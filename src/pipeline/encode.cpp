#include "pipeline/encode.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>

// libjpeg's header needs FILE and size_t declared before it.
#include <jpeglib.h>

#include "base/error.h"
#include "pipeline/resize.h"

namespace rn50 {

namespace {

/// libjpeg reports errors by longjmp, because an exception must not cross C code.
struct Handler {
    jpeg_error_mgr base;
    std::jmp_buf jump;
    char reason[JMSG_LENGTH_MAX];
};

void fail(j_common_ptr info) {
    auto* handler = reinterpret_cast<Handler*>(info->err);
    handler->base.format_message(info, handler->reason);
    std::longjmp(handler->jump, 1);
}

/// What C code allocates and fills.
struct Output {
    unsigned char* data = nullptr;
    unsigned long size = 0;
};

/// Holds no object with a destructor, for longjmp's sake. False: handler.reason says why.
bool compress(const Picture& picture, int quality, Handler& handler, jpeg_compress_struct& info, Output& output) {
    if (setjmp(handler.jump)) return false;
    jpeg_create_compress(&info);
    jpeg_mem_dest(&info, &output.data, &output.size);
    info.image_width = static_cast<JDIMENSION>(picture.width);
    info.image_height = static_cast<JDIMENSION>(picture.height);
    info.input_components = 3;
    info.in_color_space = JCS_RGB;
    jpeg_set_defaults(&info);
    jpeg_set_quality(&info, quality, TRUE);
    jpeg_start_compress(&info, TRUE);
    while (info.next_scanline < info.image_height) {
        // Older headers lack the const; the row is only read.
        JSAMPROW row = const_cast<uint8_t*>(picture.rgb.data()) + int64_t{info.next_scanline} * picture.width * 3;
        jpeg_write_scanlines(&info, &row, 1);
    }
    jpeg_finish_compress(&info);
    return true;
}

}  // namespace

void encode_jpeg(const Picture& picture, int quality, std::vector<uint8_t>& bytes) {
    RN50_REQUIRE(picture.height > 0 && picture.width > 0 && quality >= 1 && quality <= 100, "a JPEG of ", picture.width,
                 " x ", picture.height, ", quality ", quality);
    if (std::max(picture.height, picture.width) > JPEG_MAX_DIMENSION)
        throw Error(Exit::data, cat("a JPEG holds at most ", JPEG_MAX_DIMENSION, " pixels a side"));
    Handler handler{};
    jpeg_compress_struct info{};
    info.err = jpeg_std_error(&handler.base);
    handler.base.error_exit = fail;
    Output output;
    const bool good = compress(picture, quality, handler, info, output);
    if (good) bytes.assign(output.data, output.data + output.size);
    jpeg_destroy_compress(&info);
    std::free(output.data);
    if (!good) throw Error(Exit::data, cat("cannot be encoded as JPEG: ", handler.reason));
}

bool shrink(const Picture& picture, int64_t longest, int64_t shortest, Picture& smaller) {
    const int64_t side =
        longest > 0 ? std::max(picture.height, picture.width) : std::min(picture.height, picture.width);
    const int64_t bound = longest > 0 ? longest : shortest;
    if (bound <= 0 || side <= bound) return false;
    // Rounded to the nearest.
    const auto scaled = [&](int64_t n) { return std::max<int64_t>(1, (2 * n * bound + side) / (2 * side)); };
    smaller.height = scaled(picture.height);
    smaller.width = scaled(picture.width);
    smaller.rgb.resize(static_cast<size_t>(smaller.height * smaller.width * 3));
    Resizer resizer;
    const Box whole{0, 0, static_cast<double>(picture.width), static_cast<double>(picture.height)};
    resizer.bilinear({picture.rgb.data(), picture.height, picture.width, picture.width * 3}, whole, smaller.rgb.data(),
                     smaller.height, smaller.width, smaller.width * 3);
    return true;
}

}  // namespace rn50
