#include <csetjmp>
#include <cstdio>

// libjpeg's header needs FILE and size_t declared before it.
#include <jpeglib.h>

#include <jerror.h>

#include "pipeline/formats.h"

namespace rn50::formats {

namespace {

/// What libjpeg calls on errors. It returns by longjmp, because an exception must not cross C code; so the functions
/// below that call setjmp hold no object with a destructor, and the State outlives them.
struct Handler {
    jpeg_error_mgr base;
    std::jmp_buf jump;
    char reason[JMSG_LENGTH_MAX];
};

struct Progress {
    jpeg_progress_mgr base;
    int max_scans;
};

void fail(j_common_ptr info) {
    auto* handler = reinterpret_cast<Handler*>(info->err);
    handler->base.format_message(info, handler->reason);
    std::longjmp(handler->jump, 1);
}

/// Warnings that lose no pixel. All others mean that libjpeg made data up.
bool harmless(int code) {
    return code == JWRN_EXTRANEOUS_DATA || code == JWRN_ADOBE_XFORM || code == JWRN_JFIF_MAJOR ||
           code == JWRN_NOT_SEQUENTIAL;
}

void emit_message(j_common_ptr info, int level) {
    if (level < 0 && !harmless(info->err->msg_code)) fail(info);
}

void output_message(j_common_ptr) {}

void check_scans(j_common_ptr info) {
    const auto* decompress = reinterpret_cast<j_decompress_ptr>(info);
    const auto* progress = reinterpret_cast<const Progress*>(info->progress);
    if (decompress->input_scan_number <= progress->max_scans) return;
    auto* handler = reinterpret_cast<Handler*>(info->err);
    std::snprintf(handler->reason, sizeof handler->reason, "more than %d scans in a progressive JPEG",
                  progress->max_scans);
    std::longjmp(handler->jump, 1);
}

/// Reads up to the first scan. False: handler.reason says why not.
bool read_header(jpeg_decompress_struct& info, Handler& handler, Bytes bytes) {
    if (setjmp(handler.jump)) return false;
    // Older headers lack the const; the data are only read.
    jpeg_mem_src(&info, const_cast<uint8_t*>(bytes.data), static_cast<unsigned long>(bytes.size));
    jpeg_read_header(&info, TRUE);
    info.out_color_space = info.num_components == 4 ? JCS_CMYK : JCS_RGB;
    return true;
}

/// What Pillow makes of CMYK: samples are taken for inverted, as Adobe writes them, so c is 255 - cyan and so on, and
/// a colour is c * k / 255, rounded.
void cmyk_to_rgb(const uint8_t* cmyk, uint8_t* rgb, int64_t width) {
    const auto times = [](unsigned a, unsigned b) {
        const unsigned product = a * b + 128;
        return ((product >> 8) + product) >> 8;
    };
    for (int64_t x = 0; x < width; ++x, cmyk += 4, rgb += 3) {
        for (int c = 0; c < 3; ++c)
            rgb[c] = static_cast<uint8_t>(cmyk[3] - times(255u - cmyk[c], cmyk[3]));
    }
}

/// Decodes all rows into rgb. False: handler.reason says why not, and rgb is half filled.
bool read_rows(jpeg_decompress_struct& info, Handler& handler, uint8_t* rgb) {
    if (setjmp(handler.jump)) return false;
    jpeg_start_decompress(&info);
    const int64_t width = info.output_width;
    JSAMPARRAY cmyk_row = nullptr;
    if (info.out_color_space == JCS_CMYK)
        cmyk_row = info.mem->alloc_sarray(reinterpret_cast<j_common_ptr>(&info), JPOOL_IMAGE, info.output_width * 4, 1);
    while (info.output_scanline < info.output_height) {
        const int64_t y = info.output_scanline;
        if (cmyk_row) {
            jpeg_read_scanlines(&info, cmyk_row, 1);
            cmyk_to_rgb(cmyk_row[0], rgb + y * width * 3, width);
            continue;
        }
        constexpr int64_t batch = 16;
        JSAMPROW rows[batch];
        const int64_t n = info.output_height - y < batch ? info.output_height - y : batch;
        for (int64_t i = 0; i < n; ++i)
            rows[i] = rgb + (y + i) * width * 3;
        jpeg_read_scanlines(&info, rows, static_cast<JDIMENSION>(n));
    }
    // Reads on to the end marker: a file that stops short of it was cut.
    jpeg_finish_decompress(&info);
    return true;
}

}  // namespace

struct Jpeg::State {
    jpeg_decompress_struct info{};
    Handler handler{};
    Progress progress{};

    bool create() {
        if (setjmp(handler.jump)) return false;
        jpeg_create_decompress(&info);
        return true;
    }
};

Jpeg::Jpeg() : state_(std::make_unique<State>()) {
    State& state = *state_;
    state.info.err = jpeg_std_error(&state.handler.base);
    state.handler.base.error_exit = fail;
    state.handler.base.emit_message = emit_message;
    state.handler.base.output_message = output_message;
    if (!state.create()) throw Error(Exit::internal, cat("libjpeg does not start: ", state.handler.reason));
    state.progress.base.progress_monitor = check_scans;
    state.info.progress = &state.progress.base;
}

Jpeg::~Jpeg() {
    jpeg_destroy_decompress(&state_->info);
}

void Jpeg::decode(Bytes bytes, const DecodeLimits& limits, Picture& picture) {
    State& state = *state_;
    state.progress.max_scans = limits.max_scans;
    // Whatever happens, the next picture starts from a clean state.
    struct Abort {
        jpeg_decompress_struct& info;
        ~Abort() { jpeg_abort_decompress(&info); }
    } const abort{state.info};
    if (!read_header(state.info, state.handler, bytes)) throw bad_picture(state.handler.reason);
    set_size(picture, state.info.image_height, state.info.image_width, limits);
    if (!read_rows(state.info, state.handler, picture.rgb.data())) throw bad_picture(state.handler.reason);
}

}  // namespace rn50::formats
