#include <algorithm>
#include <csetjmp>
#include <cstdio>

// libjpeg's header needs FILE and size_t declared before it.
#include <jpeglib.h>

#include <jerror.h>

#include "base/math.h"
#include "pipeline/formats.h"
#include "pipeline/huffman.h"
#include "pipeline/restarts.h"

#ifdef LIBJPEG_TURBO_VERSION
/// As in jpegint.h, which not every distribution installs: how libjpeg reaches its readers of entropy-coded data. These
/// two come first in all of its versions.
struct jpeg_entropy_decoder {
    void (*start_pass)(j_decompress_ptr info);
    boolean (*decode_mcu)(j_decompress_ptr info, JBLOCKROW* blocks);
};
#endif

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
bool read_header(jpeg_decompress_struct& info, Handler& handler, Bytes bytes, bool luma) {
    if (setjmp(handler.jump)) return false;
    // Older headers lack the const; the data are only read.
    jpeg_mem_src(&info, const_cast<uint8_t*>(bytes.data), static_cast<unsigned long>(bytes.size));
    jpeg_read_header(&info, TRUE);
    info.out_color_space = info.num_components == 4                     ? JCS_CMYK
                           : luma && info.jpeg_color_space == JCS_YCbCr ? JCS_GRAYSCALE
                                                                        : JCS_RGB;
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

void gray_to_rgb(const uint8_t* gray, uint8_t* rgb, int64_t width) {
    for (int64_t x = 0; x < width; ++x, rgb += 3)
        rgb[0] = rgb[1] = rgb[2] = gray[x];
}

/// Our reader of entropy-coded data in the place of libjpeg's.
struct OwnReading {
    HuffmanReader reader;
    int64_t units_left = 0;
    bool gave_up = false;  ///< the data are not in order: libjpeg is to read them, from the beginning
};

#ifdef LIBJPEG_TURBO_VERSION
boolean read_unit(j_decompress_ptr info, JBLOCKROW* blocks) {
    auto* own = static_cast<OwnReading*>(info->client_data);
    if (!own->reader.next(blocks)) {
        own->gave_up = true;
        info->err->msg_code = JERR_BAD_DCT_COEF;  // nobody sees it
        fail(reinterpret_cast<j_common_ptr>(info));
    }
    if (--own->units_left == 0) {  // libjpeg goes on with the end marker, or finds none
        const uint8_t* const marker = own->reader.marker();
        info->src->bytes_in_buffer -= static_cast<size_t>(marker - info->src->next_input_byte);
        info->src->next_input_byte = marker;
    }
    return TRUE;
}

HuffmanCodes codes_of(const JHUFF_TBL* table) {
    HuffmanCodes codes;
    if (table == nullptr) return codes;
    std::copy(table->bits, table->bits + codes.count.size(), codes.count.begin());
    std::copy(table->huffval, table->huffval + codes.symbol.size(), codes.symbol.begin());
    return codes;
}

/// Takes the place of libjpeg's reader, which has begun, where the picture is one sequential scan.
void read_ourselves(jpeg_decompress_struct& info, OwnReading& own) {
    if (info.progressive_mode || info.arith_code || jpeg_has_multiple_scans(&info) || info.data_precision != 8 ||
        info.blocks_in_MCU > HuffmanScan::most_blocks)
        return;
    HuffmanScan scan;
    scan.data = {info.src->next_input_byte, info.src->bytes_in_buffer};
    scan.interval = info.restart_interval;
    scan.blocks = info.blocks_in_MCU;
    for (int i = 0; i < scan.blocks; ++i)
        scan.part[static_cast<size_t>(i)] = static_cast<uint8_t>(info.MCU_membership[i]);
    for (int i = 0; i < info.comps_in_scan; ++i) {
        const jpeg_component_info& part = *info.cur_comp_info[i];
        const auto dc = static_cast<size_t>(part.dc_tbl_no), ac = static_cast<size_t>(part.ac_tbl_no);
        if (dc >= scan.dc_codes.size() || ac >= scan.ac_codes.size()) return;
        scan.dc[static_cast<size_t>(i)] = static_cast<uint8_t>(dc);
        scan.ac[static_cast<size_t>(i)] = static_cast<uint8_t>(ac);
        scan.dc_codes[dc] = codes_of(info.dc_huff_tbl_ptrs[dc]);
        scan.ac_codes[ac] = codes_of(info.ac_huff_tbl_ptrs[ac]);
    }
    if (!own.reader.begin(scan)) return;
    own.units_left = int64_t{info.MCUs_per_row} * info.MCU_rows_in_scan;
    info.client_data = &own;
    info.entropy->decode_mcu = read_unit;
}
#else
void read_ourselves(jpeg_decompress_struct&, OwnReading&) {}
#endif

/// The part of the scaled picture that is kept: columns as libjpeg gives them, rows as asked.
struct Window {
    int64_t x, y, width, height;
};

/// Sets the scale and starts; narrows the window's columns to what libjpeg can leave out. `own`: reads the coded data
/// (null: libjpeg does). False: handler.reason says why not.
bool start(jpeg_decompress_struct& info, Handler& handler, int scale, OwnReading* own, Window& window) {
    if (setjmp(handler.jump)) return false;
    info.scale_num = static_cast<unsigned>(scale);
    info.scale_denom = DCTSIZE;
    jpeg_start_decompress(&info);
    if (own != nullptr) read_ourselves(info, *own);
    // Upsampled chroma looks at its neighbours, so some columns more are decoded, and dropped by whoever resamples.
    constexpr int64_t margin = 2;
    const auto end = static_cast<int64_t>(info.output_width);
    const int64_t x0 = window.x > margin ? window.x - margin : 0;
    const int64_t x1 = window.x + window.width + margin < end ? window.x + window.width + margin : end;
    window.x = 0;
    window.width = end;
#ifdef RN50_JPEG_PARTIAL
    if (x0 > 0 || x1 < end) {
        auto x = static_cast<JDIMENSION>(x0), width = static_cast<JDIMENSION>(x1 - x0);
        jpeg_crop_scanline(&info, &x, &width);
        window.x = x;
        window.width = width;
    }
#else
    (void)x0, (void)x1;
#endif
    return true;
}

/// Decodes the next `count` rows into rgb. `other_row`: room for one that is not RGB, where they are not.
void read_scanlines(jpeg_decompress_struct& info, JSAMPARRAY other_row, uint8_t* rgb, int64_t count) {
    const int64_t width = info.output_width, first = info.output_scanline, end = first + count;
    while (info.output_scanline < end) {
        const int64_t y = info.output_scanline;
        if (other_row) {
            jpeg_read_scanlines(&info, other_row, 1);
            const auto to_rgb = info.out_color_space == JCS_CMYK ? cmyk_to_rgb : gray_to_rgb;
            to_rgb(other_row[0], rgb + (y - first) * width * 3, width);
            continue;
        }
        constexpr int64_t batch = 16;
        JSAMPROW rows[batch];
        const int64_t n = end - y < batch ? end - y : batch;
        for (int64_t i = 0; i < n; ++i)
            rows[i] = rgb + (y - first + i) * width * 3;
        jpeg_read_scanlines(&info, rows, static_cast<JDIMENSION>(n));
    }
}

/// Decodes the window's rows into rgb. False: handler.reason says why not, and rgb is half filled.
bool read_window(jpeg_decompress_struct& info, Handler& handler, const Window& window, uint8_t* rgb) {
    if (setjmp(handler.jump)) return false;
    JSAMPARRAY other_row = nullptr;
    if (info.out_color_space != JCS_RGB)
        other_row =
            info.mem->alloc_sarray(reinterpret_cast<j_common_ptr>(&info), JPOOL_IMAGE, info.output_width * 4, 1);
    if (window.y > 0) {
#ifdef RN50_JPEG_PARTIAL
        jpeg_skip_scanlines(&info, static_cast<JDIMENSION>(window.y));
#else
        for (int64_t y = 0; y < window.y; ++y)  // each over the one before
            read_scanlines(info, other_row, rgb, 1);
#endif
    }
    read_scanlines(info, other_row, rgb, window.height);
    // Reads on to the end marker: a file that stops short of it was cut.
    if (info.output_scanline == info.output_height) jpeg_finish_decompress(&info);
    return true;
}

/// False: it is not one sequential scan, or it has no restart markers.
bool has_restarts(const jpeg_decompress_struct& info, Bytes bytes, RestartLayout& layout) {
    if (info.progressive_mode || info.arith_code || info.restart_interval == 0 ||
        info.comps_in_scan != info.num_components)
        return false;
    // A lone component is coded in single blocks, whatever its sampling.
    if (info.num_components == 1 && (info.max_h_samp_factor != 1 || info.max_v_samp_factor != 1)) return false;
    layout = {info.image_height,
              info.image_width,
              int64_t{info.max_v_samp_factor} * DCTSIZE,
              int64_t{info.max_h_samp_factor} * DCTSIZE,
              info.restart_interval,
              static_cast<size_t>(info.src->next_input_byte - bytes.data)};
    return true;
}

/// Whatever happens, the next picture starts from a clean state.
struct Abort {
    jpeg_decompress_struct& info;
    ~Abort() { jpeg_abort_decompress(&info); }
};

}  // namespace

/// The smallest scale, in eighths, at which the box still has as many pixels as are wanted of it, and four tenths more:
/// the inverse DCT reduces more sharply than the filter that resamples, and nearer to 1 that shows (photographs of 1024
/// px to 224: 2.1 of 255 on average in the worst crop without the reserve, 1.1 with it, at the same speed within 3%).
/// Scales in between (3, 5, 6, 7) cost more than the next power of two: libjpeg-turbo has no vector code for them.
static int smallest_scale(const jpeg_decompress_struct& info, const Region& region) {
    // CMYK stays whole: its conversion multiplies, and what is multiplied after it was averaged is darker or lighter
    // than the other way round (2.1 of 255 on average in a noisy picture).
    if (info.out_color_space == JCS_CMYK) return DCTSIZE;
    // Where chroma is coarser both ways, libjpeg reduces it less. Coarser in one direction alone, it is reduced all the
    // same: by 2 that hardly shows, by 4 (4:1:1) it does.
    for (int i = 0; i < info.num_components; ++i) {
        const jpeg_component_info& part = info.comp_info[i];
        const int across = info.max_h_samp_factor / part.h_samp_factor;
        const int down = info.max_v_samp_factor / part.v_samp_factor;
        if (across >= 4 * down || down >= 4 * across) return DCTSIZE;
    }
    const double w = region.box.x1 - region.box.x0, h = region.box.y1 - region.box.y0;
    const double least_w = 1.4 * static_cast<double>(region.width), least_h = 1.4 * static_cast<double>(region.height);
    int scale = DCTSIZE;
    while (scale > 1 && w * (scale / 2) >= least_w * DCTSIZE && h * (scale / 2) >= least_h * DCTSIZE)
        scale /= 2;
    return scale;
}

struct Jpeg::State {
    jpeg_decompress_struct info{};
    Handler handler{};
    Progress progress{};
    Bytes bytes{};  ///< of the opened picture
    bool luma = false, alone = false;
    TilePart part;  ///< of it
    OwnReading own;

    bool create() {
        if (setjmp(handler.jump)) return false;
        jpeg_create_decompress(&info);
        return true;
    }

    /// Where restart markers make tiles: opens in place of the picture one of those tiles that the window, at that
    /// scale, needs; the window then tells its place in that. Returns the pixels that were opened.
    PixelRange open_tiles(int scale, Window& window) {
        const PixelRange whole{0, 0, info.image_width, info.image_height};
        RestartLayout layout;
        if (!has_restarts(info, bytes, layout)) return whole;
        // Upsampled chroma looks at its neighbours, one sample away, which is two pixels.
        constexpr int64_t margin = 2;
        const auto low = [&](int64_t x) { return std::max<int64_t>(0, (x - margin) * DCTSIZE / scale); };
        const auto high = [&](int64_t x, int64_t end) { return std::min(end, (x + margin) * DCTSIZE / scale); };
        PixelRange range{low(window.x), low(window.y), high(window.x + window.width, whole.x1),
                         high(window.y + window.height, whole.y1)};
        const Cut cut = cut_tiles(bytes, layout, range, part);
        // Markers that were lost by eights would go unseen in a part, and shift it. The whole shows it in the end.
        if (cut == Cut::damaged)
            window = {0, 0, ceil_div(whole.x1 * scale, DCTSIZE), ceil_div(whole.y1 * scale, DCTSIZE)};
        if (cut != Cut::done) return whole;
        jpeg_abort_decompress(&info);
        if (!read_header(info, handler, {part.jpeg.data(), part.jpeg.size()}, luma)) throw bad_picture(handler.reason);
        window.x -= range.x0 * scale / DCTSIZE;
        window.y -= range.y0 * scale / DCTSIZE;
        return range;
    }

    /// Of the opened picture, which is closed then, what the region needs; `where` in `picture` its box lies. False:
    /// handler.reason says why not.
    bool decode(const Region& region, OwnReading* reading, Picture& picture, Box& where) {
        const Abort abort{info};
        const int scale = smallest_scale(info, region);
        const auto scaled_down = [&](double x) { return static_cast<int64_t>(x) * scale / DCTSIZE; };
        const auto scaled_up = [&](double x) { return ceil_div(static_cast<int64_t>(x) * scale, DCTSIZE); };
        Window window{scaled_down(region.box.x0), scaled_down(region.box.y0), 0, 0};
        window.width = scaled_up(region.box.x1) - window.x;
        window.height = scaled_up(region.box.y1) - window.y;
        const PixelRange opened = open_tiles(scale, window);
        if (!start(info, handler, scale, reading, window)) return false;
        picture.height = window.height;
        picture.width = window.width;
        picture.rgb.resize(static_cast<size_t>(window.height * window.width * 3));
        if (!read_window(info, handler, window, picture.rgb.data())) return false;
        const double factor = static_cast<double>(scale) / DCTSIZE;
        const double x = static_cast<double>(window.x) + static_cast<double>(opened.x0) * factor;
        const double y = static_cast<double>(window.y) + static_cast<double>(opened.y0) * factor;
        where = {region.box.x0 * factor - x, region.box.y0 * factor - y, region.box.x1 * factor - x,
                 region.box.y1 * factor - y};
        return true;
    }
};

Jpeg::Jpeg(bool alone) : state_(std::make_unique<State>()) {
    State& state = *state_;
    state.alone = alone;
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

PictureSize Jpeg::open(Bytes bytes, const DecodeLimits& limits, bool luma) {
    State& state = *state_;
    jpeg_abort_decompress(&state.info);  // one that was opened and never decoded
    state.progress.max_scans = limits.max_scans;
    state.bytes = bytes;
    state.luma = luma;
    if (!read_header(state.info, state.handler, bytes, luma)) throw bad_picture(state.handler.reason);
    const PictureSize size{state.info.image_height, state.info.image_width};
    check_size(size, limits);
    return size;
}

bool Jpeg::is_plain() const {
    const Bytes bytes = state_->bytes;
    const bool ends = bytes.size > 2 && bytes.data[bytes.size - 2] == 0xFF && bytes.data[bytes.size - 1] == JPEG_EOI;
    const J_COLOR_SPACE colors = state_->info.jpeg_color_space;
    return ends && (colors == JCS_YCbCr || colors == JCS_GRAYSCALE);
}

bool Jpeg::has_restart_markers() const {
    return state_->info.restart_interval > 0;
}

Box Jpeg::decode(const Region& region, Picture& picture) {
    State& state = *state_;
    state.own.gave_up = false;
    Box where;
    if (state.decode(region, state.alone ? nullptr : &state.own, picture, where)) return where;
    if (!state.own.gave_up || !read_header(state.info, state.handler, state.bytes, state.luma) ||
        !state.decode(region, nullptr, picture, where))
        throw bad_picture(state.handler.reason);
    return where;
}

bool Jpeg::gave_up() const {
    return state_->own.gave_up;
}

int64_t Jpeg::kept_bytes() const {
    return state_->own.reader.kept_bytes() + static_cast<int64_t>(state_->part.jpeg.capacity());
}

void Jpeg::release() {
    state_->own.reader.release();
    std::vector<uint8_t>().swap(state_->part.jpeg);
}

}  // namespace rn50::formats
