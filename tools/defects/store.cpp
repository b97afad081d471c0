#include "store.h"

#include <jpeglib.h>

#include <cerrno>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <system_error>

#include "base/error.h"

#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#include <stb/stb_image_write.h>

namespace rn50::defects {

namespace {

namespace fs = std::filesystem;

using Bytes = std::unique_ptr<unsigned char, decltype(&std::free)>;

const char* const kRemedy = "see that there is room and that you may write there, or name another folder with --out";

void write_bytes(const fs::path& file, const void* bytes, size_t count) {
    std::FILE* out = std::fopen(file.c_str(), "wb");
    if (out == nullptr) throw Error(Exit::data, with_errno("cannot open " + file.string()), kRemedy);
    const bool written = std::fwrite(bytes, 1, count, out) == count;
    const int reason = errno;
    const bool closed = std::fclose(out) == 0;
    if (written && closed) return;
    if (!written) errno = reason;
    throw Error(Exit::data, with_errno("cannot write " + file.string()), kRemedy);
}

struct JpegErrors {
    jpeg_error_mgr manager;
    std::jmp_buf escape;
    char text[JMSG_LENGTH_MAX];
};

void leave_jpeg(j_common_ptr info) {
    auto* errors = reinterpret_cast<JpegErrors*>(info->err);
    info->err->format_message(info, errors->text);
    std::longjmp(errors->escape, 1);
}

/// Fills `bytes` (malloc'ed) and `count`; false, with the reason in `errors`, if libjpeg gives up. Holds nothing that
/// a jump out of libjpeg would leak.
bool encode_jpeg(const uint8_t* rgb, int size, JpegErrors& errors, unsigned char** bytes, unsigned long* count) {
    jpeg_compress_struct info;
    info.err = jpeg_std_error(&errors.manager);
    errors.manager.error_exit = leave_jpeg;
    if (setjmp(errors.escape) != 0) {
        jpeg_destroy_compress(&info);
        return false;
    }
    jpeg_create_compress(&info);
    jpeg_mem_dest(&info, bytes, count);
    info.image_width = info.image_height = static_cast<JDIMENSION>(size);
    info.input_components = 3;
    info.in_color_space = JCS_RGB;
    jpeg_set_defaults(&info);
    jpeg_set_quality(&info, 90, TRUE);
    jpeg_start_compress(&info, TRUE);
    while (info.next_scanline < info.image_height) {
        JSAMPROW row = const_cast<uint8_t*>(rgb) + size_t{3} * static_cast<size_t>(size) * info.next_scanline;
        jpeg_write_scanlines(&info, &row, 1);
    }
    jpeg_finish_compress(&info);
    jpeg_destroy_compress(&info);
    return true;
}

}  // namespace

void make_folder(const fs::path& folder) {
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) throw Error(Exit::data, cat("cannot make the folder ", folder.string(), ": ", error.message()), kRemedy);
}

void move_into_place(const fs::path& from, const fs::path& to) {
    std::error_code error;
    fs::rename(from, to, error);
    if (error) {
        throw Error(Exit::data, cat("cannot move ", from.string(), " to ", to.string(), ": ", error.message()),
                    kRemedy);
    }
}

void write_jpeg(const fs::path& file, const std::vector<uint8_t>& rgb, int size) {
    JpegErrors errors{};
    unsigned char* raw = nullptr;
    unsigned long count = 0;
    const bool encoded = encode_jpeg(rgb.data(), size, errors, &raw, &count);
    const Bytes bytes(raw, &std::free);
    if (!encoded) throw Error(Exit::internal, cat("cannot encode ", file.string(), ": ", errors.text));
    write_bytes(file, bytes.get(), count);
}

void write_png(const fs::path& file, const std::vector<uint8_t>& mask, int size) {
    // Rows of a mask repeat themselves: leaving them unfiltered packs as well as any filter, and takes a fifth of the
    // time.
    static const bool unfiltered = [] {
        stbi_write_force_png_filter = 0;
        stbi_write_png_compression_level = 5;
        return true;
    }();
    int count = 0;
    const Bytes bytes(stbi_write_png_to_mem(mask.data(), size, size, size, 1, &count), &std::free);
    if (!unfiltered || !bytes) throw Error(Exit::device, cat("out of memory while encoding ", file.string()));
    write_bytes(file, bytes.get(), static_cast<size_t>(count));
}

void write_text(const fs::path& file, const std::string& text) {
    write_bytes(file, text.data(), text.size());
}

}  // namespace rn50::defects
