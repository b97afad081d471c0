#include "jpeg_support.h"

#include <cmath>
#include <cstdio>
// jpeglib.h needs cstdio before it.
#include <jpeglib.h>

#include "base/random.h"

namespace rn50::test {

Picture soft_picture(int64_t height, int64_t width) {
    Picture picture;
    picture.height = height;
    picture.width = width;
    Random random(7, 0, 0, Purpose::demo);
    for (int64_t y = 0; y < height; ++y) {
        for (int64_t x = 0; x < width; ++x) {
            const auto u = static_cast<double>(x), v = static_cast<double>(y);
            const double noise = random.uniform(-6, 6), corner = x < 40 && y < 30 ? 60 : 0;
            for (int c = 0; c < 3; ++c) {
                const double value = 110 + 50 * std::sin(u / (9 + 4 * c)) * std::cos(v / (17 - 3 * c)) + noise + corner;
                picture.rgb.push_back(static_cast<uint8_t>(value));
            }
        }
    }
    return picture;
}

std::vector<uint8_t> encode(const Picture& picture, const Writing& way) {
    jpeg_compress_struct info;
    jpeg_error_mgr errors;
    info.err = jpeg_std_error(&errors);
    jpeg_create_compress(&info);
    unsigned char* bytes = nullptr;
    unsigned long size = 0;
    jpeg_mem_dest(&info, &bytes, &size);
    info.image_width = static_cast<JDIMENSION>(picture.width);
    info.image_height = static_cast<JDIMENSION>(picture.height);
    info.input_components = 3;
    info.in_color_space = JCS_RGB;
    jpeg_set_defaults(&info);
    if (way.gray) jpeg_set_colorspace(&info, JCS_GRAYSCALE);
    jpeg_set_quality(&info, way.quality, TRUE);
    info.optimize_coding = way.optimized ? TRUE : FALSE;
    info.comp_info[0].h_samp_factor = way.horizontal;
    info.comp_info[0].v_samp_factor = way.vertical;
    info.restart_in_rows = way.restart_rows;
    info.restart_interval = static_cast<unsigned>(way.interval);
    if (way.progressive) jpeg_simple_progression(&info);
    const jpeg_scan_info dc{3, {0, 1, 2}, 0, 0, 0, 0};
    if (way.dc_alone) {
        info.scan_info = &dc;
        info.num_scans = 1;
    }
    jpeg_start_compress(&info, TRUE);
    const unsigned char exif[] = {
        'E', 'x', 'i', 'f', 0,    0, 'M', 'M', 0, 42, 0, 0, 0,
        8,   0,   1,   1,   0x12, 0, 3,   0,   0, 0,  1, 0, static_cast<unsigned char>(way.orientation),
        0,   0,   0,   0,   0,    0};
    jpeg_write_marker(&info, JPEG_APP0 + 1, exif, sizeof exif);
    while (info.next_scanline < info.image_height) {
        auto* row = const_cast<JSAMPROW>(&picture.rgb[static_cast<size_t>(info.next_scanline * picture.width * 3)]);
        jpeg_write_scanlines(&info, &row, 1);
    }
    jpeg_finish_compress(&info);
    jpeg_destroy_compress(&info);
    const std::vector<uint8_t> result(bytes, bytes + size);
    std::free(bytes);
    return result;
}

std::vector<uint8_t> cropped(const Picture& picture, const Box& box, int64_t size) {
    PictureOptions options;
    options.image_size = size;
    AugmentParameters drawn;
    drawn.cropped = true;
    drawn.crop = box;
    std::vector<uint8_t> dst(static_cast<size_t>(size * size * 3));
    render(picture, options, &drawn, dst.data());
    return dst;
}

}  // namespace rn50::test
