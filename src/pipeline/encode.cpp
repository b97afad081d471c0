#include "pipeline/encode.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>

// libjpeg's header needs FILE and size_t declared before it.
#include <jpeglib.h>

#include <jerror.h>

#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STBI_WRITE_NO_STDIO
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#include <stb/stb_image_write.h>
#pragma GCC diagnostic pop

#include "base/error.h"
#include "pipeline/resize.h"
#include "pipeline/restarts.h"

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

/// Where libjpeg writes to. Not its jpeg_mem_dest(): that tells where its buffer is only when all went well, so after
/// an error nobody knows what there is to be freed.
struct Output {
    jpeg_destination_mgr base{};  ///< first: libjpeg hands this address back
    uint8_t* data = nullptr;
    size_t capacity = 0, size = 0;

    Output() {
        base.init_destination = [](j_compress_ptr info) { more_room(info); };
        base.empty_output_buffer = more_room;
        base.term_destination = [](j_compress_ptr info) {
            auto& self = *reinterpret_cast<Output*>(info->dest);
            self.size = self.capacity - self.base.free_in_buffer;
        };
    }
    ~Output() { std::free(data); }
    Output(const Output&) = delete;
    Output& operator=(const Output&) = delete;

  private:
    /// Called when all of the buffer is full.
    static boolean more_room(j_compress_ptr info) {
        auto& self = *reinterpret_cast<Output*>(info->dest);
        const size_t larger = self.capacity == 0 ? 1 << 16 : 2 * self.capacity;
        auto* const moved = static_cast<uint8_t*>(std::realloc(self.data, larger));
        if (moved == nullptr) ERREXIT1(info, JERR_OUT_OF_MEMORY, 0);
        self.base.next_output_byte = moved + self.capacity;
        self.base.free_in_buffer = larger - self.capacity;
        self.data = moved;
        self.capacity = larger;
        return TRUE;
    }
};

bool starts_with(const jpeg_marker_struct& marker, const char (&five)[6]) {
    return marker.data_length >= 5 && std::memcmp(marker.data, five, 5) == 0;
}

/// The pixels as they are encoded: of a grey picture one channel.
struct Channels {
    explicit Channels(const Picture& picture) : data(picture.rgb.data()), row_bytes(picture.width * 3) {
        const uint8_t* const end = data + picture.rgb.size();
        for (const uint8_t* p = data; p < end; p += 3)
            if (p[0] != p[1] || p[0] != p[2]) return;
        gray.resize(picture.rgb.size() / 3);
        for (size_t i = 0; i < gray.size(); ++i)
            gray[i] = data[3 * i];
        data = gray.data();
        row_bytes = picture.width;
        count = 1;
    }
    Channels(const Channels&) = delete;
    Channels& operator=(const Channels&) = delete;

    std::vector<uint8_t> gray;
    const uint8_t* data;
    int64_t row_bytes;
    int count = 3;
};

/// Holds no object with a destructor, for longjmp's sake. False: handler.reason says why.
bool compress(const Picture& picture, const Channels& pixels, int quality, Handler& handler, jpeg_compress_struct& info,
              Output& output) {
    if (setjmp(handler.jump)) return false;
    jpeg_create_compress(&info);
    info.dest = &output.base;
    info.image_width = static_cast<JDIMENSION>(picture.width);
    info.image_height = static_cast<JDIMENSION>(picture.height);
    info.input_components = pixels.count;
    info.in_color_space = pixels.count == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(&info);
    jpeg_set_quality(&info, quality, TRUE);
    const int64_t unit = pixels.count == 1 ? DCTSIZE : 2 * DCTSIZE;
    info.restart_interval = static_cast<unsigned>(formats::packed_interval(picture.width, unit));
    jpeg_start_compress(&info, TRUE);
    while (info.next_scanline < info.image_height) {
        // Older headers lack the const; the row is only read.
        JSAMPROW row = const_cast<uint8_t*>(pixels.data) + int64_t{info.next_scanline} * pixels.row_bytes;
        jpeg_write_scanlines(&info, &row, 1);
    }
    jpeg_finish_compress(&info);
    return true;
}

/// JFIF's and Adobe's markers are written by libjpeg, where they belong.
bool is_written_by_libjpeg(const jpeg_compress_struct& to, const jpeg_marker_struct& marker) {
    if (marker.marker == JPEG_APP0) return to.write_JFIF_header && starts_with(marker, "JFIF\0");
    return marker.marker == JPEG_APP0 + 14 && to.write_Adobe_marker && starts_with(marker, "Adobe");
}

/// As compress().
bool transcode(const std::vector<uint8_t>& bytes, Handler& handler, jpeg_decompress_struct& from,
               jpeg_compress_struct& to, Output& output) {
    if (setjmp(handler.jump)) return false;
    jpeg_create_decompress(&from);
    jpeg_create_compress(&to);
    for (int marker = JPEG_APP0; marker < JPEG_APP0 + 16; ++marker)
        jpeg_save_markers(&from, marker, 0xFFFF);
    jpeg_save_markers(&from, JPEG_COM, 0xFFFF);
    // Older headers lack the const; the data are only read.
    jpeg_mem_src(&from, const_cast<uint8_t*>(bytes.data()), static_cast<unsigned long>(bytes.size()));
    jpeg_read_header(&from, TRUE);
    jvirt_barray_ptr* const coefficients = jpeg_read_coefficients(&from);
    to.dest = &output.base;
    jpeg_copy_critical_parameters(&from, &to);
    // A lone component is coded in single blocks, whatever its sampling says; 1x1 says the same.
    if (to.num_components == 1) to.comp_info[0].h_samp_factor = to.comp_info[0].v_samp_factor = 1;
    to.optimize_coding = TRUE;
    const int64_t unit = (to.num_components == 1 ? 1 : int64_t{from.max_h_samp_factor}) * DCTSIZE;
    to.restart_interval = static_cast<unsigned>(formats::packed_interval(from.image_width, unit));
    jpeg_write_coefficients(&to, coefficients);
    for (const jpeg_marker_struct* marker = from.marker_list; marker != nullptr; marker = marker->next)
        if (!is_written_by_libjpeg(to, *marker))
            jpeg_write_marker(&to, marker->marker, marker->data, marker->data_length);
    jpeg_finish_compress(&to);
    jpeg_finish_decompress(&from);
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
    const Channels pixels(picture);
    const bool good = compress(picture, pixels, quality, handler, info, output);
    if (good) bytes.assign(output.data, output.data + output.size);
    jpeg_destroy_compress(&info);
    if (!good) throw Error(Exit::data, cat("cannot be encoded as JPEG: ", handler.reason));
}

void encode_png(const Picture& picture, std::vector<uint8_t>& bytes) {
    RN50_REQUIRE(picture.height > 0 && picture.width > 0, "a PNG of ", picture.width, " x ", picture.height);
    const Channels pixels(picture);
    bytes.clear();
    const auto add = [](void* context, void* data, int size) {
        auto& all = *static_cast<std::vector<uint8_t>*>(context);
        all.insert(all.end(), static_cast<uint8_t*>(data), static_cast<uint8_t*>(data) + size);
    };
    // stb_image_write counts in int.
    const bool fits = picture.rgb.size() < INT32_MAX / 2;
    if (!fits || stbi_write_png_to_func(add, &bytes, static_cast<int>(picture.width), static_cast<int>(picture.height),
                                        pixels.count, pixels.data, static_cast<int>(pixels.row_bytes)) == 0)
        throw Error(Exit::data,
                    cat("cannot be encoded as PNG: ", fits ? "there is not enough memory" : "it is too large"));
}

void add_restart_markers(const std::vector<uint8_t>& bytes, std::vector<uint8_t>& marked) {
    Handler handler{};
    jpeg_decompress_struct from{};
    jpeg_compress_struct to{};
    from.err = to.err = jpeg_std_error(&handler.base);
    handler.base.error_exit = fail;
    handler.base.output_message = [](j_common_ptr) {};
    Output output;
    const bool good = transcode(bytes, handler, from, to, output);
    if (good) marked.assign(output.data, output.data + output.size);
    jpeg_destroy_compress(&to);
    jpeg_destroy_decompress(&from);
    if (!good) throw Error(Exit::data, cat("cannot be given restart markers: ", handler.reason));
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
