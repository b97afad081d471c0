// BMP, of Windows and of OS/2. Own, because stb_image reads neither run lengths nor OS/2's headers, takes a palette
// where there is none, and looks up what a palette does not have.
// https://learn.microsoft.com/windows/win32/gdi/bitmap-storage, and for the odd ones
// https://entropymine.com/jason/bmpsuite
#include <algorithm>
#include <cstring>

#include "pipeline/formats.h"

namespace rn50::formats {

namespace {

constexpr size_t file_header = 14;
constexpr uint32_t core_header = 12, info_header = 40;  // OS/2 1.x and Windows 2; Windows 3

enum Compression : uint32_t {
    plain = 0,
    run_length_8 = 1,
    run_length_4 = 2,
    masks = 3,
    jpeg = 4,
    png = 5,
    alpha_masks = 6
};

/// A picture's header, and where its parts lie in the file.
struct Layout {
    int64_t width = 0, height = 0;
    bool top_down = false;
    uint32_t bits = 0, compression = plain;
    uint32_t channel_masks[3] = {};  ///< red, green, blue, of 16 and 32 bits
    size_t palette_at = 0, colors = 0, color_bytes = 4;
    size_t pixels_at = 0;
};

/// Little-endian. Behind the end there are zeros; the caller checks the sizes that matter.
uint32_t number(Bytes bytes, size_t at, size_t n) {
    uint32_t value = 0;
    while (n-- > 0)
        value = value << 8 | (at + n < bytes.size ? bytes.data[at + n] : 0u);
    return value;
}

/// OS/2 2.x cuts its header off anywhere behind the bit depth; 64 is all of it. The others are Windows'.
bool known_header(uint32_t size) {
    return size == core_header || (size >= 16 && size <= 64 && size % 4 == 0) || size == 108 || size == 124;
}

void read_masks(Bytes bytes, uint32_t header, Layout& layout) {
    if (layout.compression == masks || layout.compression == alpha_masks) {
        if (layout.bits != 16 && layout.bits != 32 && layout.bits != 24)
            throw bad_picture(cat("a BMP of ", layout.bits, " bits has no colour masks"));
        for (size_t i = 0; i < 3; ++i)
            layout.channel_masks[i] = number(bytes, file_header + info_header + 4 * i, 4);
        if (header == info_header) layout.palette_at += layout.compression == masks ? 12 : 16;
        if (layout.channel_masks[0] != 0 || layout.channel_masks[1] != 0 || layout.channel_masks[2] != 0) return;
    }
    const bool wide = layout.bits != 16;
    layout.channel_masks[0] = wide ? 0xFF0000 : 0x7C00;
    layout.channel_masks[1] = wide ? 0x00FF00 : 0x03E0;
    layout.channel_masks[2] = wide ? 0x0000FF : 0x001F;
}

/// Where the palette ends and the pixels begin. The file says it twice, and not always alike.
void place_palette(Bytes bytes, uint32_t colors_used, Layout& layout) {
    layout.pixels_at = number(bytes, 10, 4);
    if (layout.bits > 8) {
        if (layout.pixels_at < layout.palette_at) layout.pixels_at = layout.palette_at;
        return;
    }
    const size_t all = size_t{1} << layout.bits;
    layout.colors = colors_used == 0 ? all : std::min<size_t>(colors_used, all);
    if (layout.pixels_at > layout.palette_at)
        layout.colors = std::min(layout.colors, (layout.pixels_at - layout.palette_at) / layout.color_bytes);
    else  // some writers leave the palette out of the offset
        layout.pixels_at = layout.palette_at + layout.colors * layout.color_bytes;
}

Layout read_header(Bytes bytes) {
    if (bytes.size < file_header + core_header) throw bad_picture("the BMP is cut short");
    const uint32_t header = number(bytes, file_header, 4);
    if (!known_header(header)) throw bad_picture(cat("a BMP with a header of ", header, " bytes, which is not known"));
    const auto field = [&](size_t at, size_t n) { return at + n <= header ? number(bytes, file_header + at, n) : 0; };
    Layout layout;
    layout.palette_at = file_header + header;
    if (bytes.size < layout.palette_at) throw bad_picture("the BMP is cut short");
    uint32_t colors_used = 0;
    if (header == core_header) {
        layout.width = field(4, 2);
        layout.height = field(6, 2);
        layout.bits = field(10, 2);
        layout.color_bytes = 3;
    } else {
        layout.width = static_cast<int32_t>(field(4, 4));
        layout.height = static_cast<int32_t>(field(8, 4));
        layout.bits = field(14, 2);
        layout.compression = field(16, 4);
        colors_used = field(32, 4);
    }
    layout.top_down = layout.height < 0;
    if (layout.top_down) layout.height = -layout.height;
    const uint32_t bits = layout.bits, how = layout.compression;
    if (how == jpeg || how == png)
        throw bad_picture(cat("a BMP that holds a ", how == jpeg ? "JPEG" : "PNG", ", which is not read"));
    const bool fits = how == run_length_8 ? bits == 8 : how == run_length_4 ? bits == 4 : how <= alpha_masks;
    const bool os2 = header < info_header || header == 64;  // there 3 and 4 are other compressions
    if (!fits || (os2 && how > run_length_4))
        throw bad_picture(cat("a BMP of ", bits, " bits and compression ", how, ", which is not read"));
    if (bits != 1 && bits != 2 && bits != 4 && bits != 8 && bits != 16 && bits != 24 && bits != 32)
        throw bad_picture(cat("a BMP of ", bits, " bits a pixel"));
    read_masks(bytes, header, layout);
    place_palette(bytes, colors_used, layout);
    return layout;
}

/// Looks colours up; throws for one that is not there.
class Palette {
  public:
    Palette(Bytes bytes, const Layout& layout) : colors_(layout.colors) {
        if (bytes.size < layout.palette_at + colors_ * layout.color_bytes) throw bad_picture("the BMP is cut short");
        for (size_t i = 0; i < colors_; ++i)
            for (size_t c = 0; c < 3; ++c)  // stored blue first
                rgb_[i][c] = bytes.data[layout.palette_at + i * layout.color_bytes + 2 - c];
    }
    void put(unsigned index, uint8_t* dst) const {
        if (index >= colors_) throw bad_picture("the BMP uses a colour that its palette does not have");
        std::memcpy(dst, rgb_[index], 3);
    }

  private:
    size_t colors_;
    uint8_t rgb_[256][3];
};

/// Bytes from row to row.
size_t stride_of(const Layout& layout) {
    return (static_cast<size_t>(layout.width) * layout.bits + 31) / 32 * 4;
}

/// Rows in the order of the file, each at its place in the picture.
uint8_t* row_of(const Layout& layout, int64_t y, Picture& picture) {
    return picture.rgb.data() + (layout.top_down ? y : layout.height - 1 - y) * layout.width * 3;
}

/// A channel's bits as 0 to 255, rounded down, as Pillow does it.
uint8_t channel(uint32_t pixel, uint32_t mask) {
    if (mask == 0) return 0;
    const uint32_t lowest = mask & (~mask + 1);
    return static_cast<uint8_t>(uint64_t{(pixel & mask) / lowest} * 255 / (mask / lowest));
}

void read_plain(Bytes bytes, const Layout& layout, Picture& picture) {
    const Palette palette(bytes, layout);
    const uint32_t bits = layout.bits;
    const size_t stride = stride_of(layout);
    const bool whole_bytes = bits == 32 && layout.channel_masks[0] == 0xFF0000 && layout.channel_masks[1] == 0xFF00 &&
                             layout.channel_masks[2] == 0xFF;
    for (int64_t y = 0; y < layout.height; ++y) {
        const uint8_t* src = bytes.data + layout.pixels_at + static_cast<size_t>(y) * stride;
        uint8_t* dst = row_of(layout, y, picture);
        if (bits <= 8) {
            for (int64_t x = 0, bit = 0; x < layout.width; ++x, bit += bits, dst += 3)
                palette.put(src[bit / 8] >> (8 - bits - bit % 8) & ((1u << bits) - 1), dst);
        } else if (bits == 24 || whole_bytes) {
            for (int64_t x = 0; x < layout.width; ++x, src += bits / 8, dst += 3)
                for (int c = 0; c < 3; ++c)
                    dst[c] = src[2 - c];
        } else {
            for (int64_t x = 0; x < layout.width; ++x, src += bits / 8, dst += 3)
                for (int c = 0; c < 3; ++c)
                    dst[c] = channel(number({src, bits / 8}, 0, bits / 8), layout.channel_masks[c]);
        }
    }
}

/// RLE8 and RLE4: pairs of a count and a value; a count of 0 escapes. What is stepped over has colour 0.
class RunLengths {
  public:
    RunLengths(Bytes bytes, const Layout& layout, Picture& picture)
        : bytes_(bytes), layout_(layout), picture_(picture), palette_(bytes, layout), at_(layout.pixels_at) {}

    void read() {
        if (layout_.colors == 0) throw bad_picture("the BMP has no palette");
        for (uint8_t *dst = picture_.rgb.data(), *end = dst + picture_.rgb.size(); dst < end; dst += 3)
            palette_.put(0, dst);
        for (;;) {
            // Some writers leave out the marker of the end.
            if (at_ == bytes_.size && (y_ >= layout_.height || (y_ == layout_.height - 1 && x_ >= layout_.width)))
                return;
            const unsigned count = next(), value = next();
            if (count > 0) {
                for (unsigned i = 0; i < count; ++i)
                    put(nibble(value, i));
            } else if (value == 0) {
                x_ = 0;
                ++y_;
            } else if (value == 1) {
                return;
            } else if (value == 2) {
                x_ += next();
                y_ += next();
            } else {
                literal(value);
            }
        }
    }

  private:
    uint8_t next() {
        if (at_ >= bytes_.size) throw bad_picture("the BMP is cut short");
        return bytes_.data[at_++];
    }
    /// Of RLE4 the upper four bits first.
    unsigned nibble(unsigned byte, unsigned i) const {
        return layout_.bits == 8 ? byte : i % 2 == 0 ? byte >> 4 : byte & 15;
    }
    /// What runs over the row's end is dropped, as all readers do.
    void put(unsigned index) {
        if (x_ < layout_.width && y_ < layout_.height) palette_.put(index, row_of(layout_, y_, picture_) + x_ * 3);
        ++x_;
    }
    /// `count` pixels as they are, filled up to a whole number of 16 bits.
    void literal(unsigned count) {
        unsigned byte = 0;
        for (unsigned i = 0; i < count; ++i) {
            if (layout_.bits == 8 || i % 2 == 0) byte = next();
            put(nibble(byte, i));
        }
        const unsigned used = layout_.bits == 8 ? count : (count + 1) / 2;
        if (used % 2 == 1 && at_ < bytes_.size) ++at_;
    }

    const Bytes bytes_;
    const Layout& layout_;
    Picture& picture_;
    const Palette palette_;
    size_t at_;
    int64_t x_ = 0, y_ = 0;
};

}  // namespace

void decode_bmp(Bytes bytes, const DecodeLimits& limits, Picture& picture) {
    const Layout layout = read_header(bytes);
    if (layout.width <= 0 || layout.height <= 0) throw bad_picture("the picture has no pixels");
    check_size({layout.height, layout.width}, limits);
    const bool runs = layout.compression == run_length_8 || layout.compression == run_length_4;
    // Before the memory is taken: whether the file can hold so much. The last row need not be filled up. A run is two
    // bytes for at most 255 pixels, but what is stepped over takes none.
    const size_t row_bits = static_cast<size_t>(layout.width) * layout.bits;
    const size_t needed = runs ? 0 : static_cast<size_t>(layout.height - 1) * stride_of(layout) + (row_bits + 7) / 8;
    if (bytes.size < layout.pixels_at || bytes.size - layout.pixels_at < needed)
        throw bad_picture("the BMP is cut short");
    set_size(picture, layout.height, layout.width, limits);
    if (runs)
        RunLengths(bytes, layout, picture).read();
    else
        read_plain(bytes, layout, picture);
}

}  // namespace rn50::formats
