// Odd picture files, written here byte by byte: BMPs of every header, and orientations that stand in texts.
#include "jpeg_support.h"
#include "pipeline/decode.h"
#include "pipeline_support.h"

using namespace rn50;
using namespace rn50::test;

namespace {

using Bytes = std::vector<uint8_t>;

Bytes operator+(Bytes a, const Bytes& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

Bytes number(uint64_t value, int bytes) {  // little-endian, of any length
    Bytes out;
    for (int i = 0; i < bytes; ++i)
        out.push_back(i < 8 ? static_cast<uint8_t>(value >> 8 * i) : uint8_t{0});
    return out;
}

Bytes text(const std::string& characters) {
    return {characters.begin(), characters.end()};
}

Picture decode_bytes(const Bytes& bytes) {
    return decode(bytes.data(), bytes.size(), "x");
}

std::string reason(const Bytes& bytes) {
    const Error error = error_of([&] { decode_bytes(bytes); });
    CHECK(error.code() == Exit::data);
    return error.what();
}

/// What a BMP says of itself, in the order of the file.
struct Bitmap {
    uint32_t header = 40;
    int32_t width = 0, height = 0;
    uint32_t bits = 8, compression = 0, colors = 0;
    Bytes behind_header;  ///< masks and palette
    Bytes pixels;
    int64_t offset = -1;  ///< of the pixels; -1: where they are
};

Bytes file_of(const Bitmap& bitmap) {
    Bytes info = number(bitmap.header, 4);
    if (bitmap.header == 12) {
        info = info + number(static_cast<uint32_t>(bitmap.width), 2) + number(static_cast<uint32_t>(bitmap.height), 2) +
               number(1, 2) + number(bitmap.bits, 2);
    } else {
        info = info + number(static_cast<uint32_t>(bitmap.width), 4) + number(static_cast<uint32_t>(bitmap.height), 4) +
               number(1, 2) + number(bitmap.bits, 2) + number(bitmap.compression, 4) + number(0, 12) +
               number(bitmap.colors, 4) + number(0, 4);
        // Masks are part of the longer headers.
        if (bitmap.header > 40 && bitmap.compression == 3) info = info + bitmap.behind_header;
        info.resize(bitmap.header);
    }
    const bool apart = bitmap.header <= 40 || bitmap.compression != 3;
    const Bytes head = info + (apart ? bitmap.behind_header : Bytes{});
    const uint32_t offset =
        bitmap.offset >= 0 ? static_cast<uint32_t>(bitmap.offset) : static_cast<uint32_t>(14 + head.size());
    return text("BM") + number(0, 8) + number(offset, 4) + head + bitmap.pixels;
}

/// Colour i is {10 i, 10 i + 1, 10 i + 2}, in a palette of blue, green, red and, with 4 bytes a colour, nothing.
Bytes palette_of(int colors, int bytes_each = 4) {
    Bytes palette;
    for (int i = 0; i < colors; ++i) {
        for (int c = 2; c >= 0; --c)
            palette.push_back(static_cast<uint8_t>(10 * i + c));
        if (bytes_each == 4) palette.push_back(0);
    }
    return palette;
}

Bytes colors_of(const std::vector<int>& indices) {
    Bytes rgb;
    for (const int i : indices)
        for (int c = 0; c < 3; ++c)
            rgb.push_back(static_cast<uint8_t>(10 * i + c));
    return rgb;
}

Bytes runs(uint32_t bits, int32_t width, int32_t height, const Bytes& code) {
    return file_of({40, width, height, bits, bits == 8 ? 1u : 2u, 5, palette_of(5), code});
}

Bytes chunk(const std::string& type, const Bytes& data) {
    Bytes out = number(0, 4) + text(type) + data;
    for (int i = 0; i < 4; ++i)
        out[static_cast<size_t>(i)] = static_cast<uint8_t>(data.size() >> (24 - 8 * i));
    return out + number(0, 4);  // chunks of text may have any checksum
}

/// rgb.png of the golden pictures without its EXIF, and with these chunks in front of the pixels.
Bytes png_with(const Bytes& chunks) {
    Bytes png = test::read_file(golden_path("stored.png"));
    const Bytes begin(png.begin(), png.begin() + 33), rest(png.begin() + 33, png.end());  // behind the header
    return begin + chunks + rest;
}

/// The same pixels, turned right by 90 degrees as EXIF's 6 says.
Picture turned_right(const Picture& picture) {
    Picture turned;
    turned.height = picture.width;
    turned.width = picture.height;
    for (int64_t y = 0; y < turned.height; ++y)
        for (int64_t x = 0; x < turned.width; ++x)
            for (int64_t c = 0; c < 3; ++c)
                turned.rgb.push_back(
                    picture.rgb[static_cast<size_t>(((picture.height - 1 - x) * picture.width + y) * 3 + c)]);
    return turned;
}

const std::string xmp_6 = "<x:xmpmeta><rdf:Description tiff:Orientation=\"6\"/></x:xmpmeta>";
/// MM, 42, one directory of one entry: tag 274, a short, once, 6.
const std::string exif_6_digits = "4578696600004d4d002a000000080001011200030000000100060000\n00000000\n";

}  // namespace

TEST_CASE("pipeline: bitmaps of every depth and header") {
    // Two rows, the lower first, each filled up to four bytes.
    const Bytes eight = {1, 2, 3, 0, 4, 0, 1, 0};
    const Bytes expected = colors_of({4, 0, 1, 1, 2, 3});
    for (const uint32_t header : {16u, 40u, 52u, 56u, 64u, 108u, 124u}) {
        CAPTURE(header);
        CHECK(decode_bytes(
                  file_of({header, 3, 2, 8, 0, header == 16 ? 0u : 5u, palette_of(header == 16 ? 256 : 5), eight}))
                  .rgb == expected);
    }
    CHECK(decode_bytes(file_of({12, 3, 2, 8, 0, 0, palette_of(256, 3), eight})).rgb == expected);
    CHECK(decode_bytes(file_of({12, 3, 2, 8, 0, 0, palette_of(5, 3), eight})).rgb == expected);  // a short palette
    // From top to bottom.
    CHECK(decode_bytes(file_of({40, 3, -2, 8, 0, 5, palette_of(5), eight})).rgb == colors_of({1, 2, 3, 4, 0, 1}));
    CHECK(decode_bytes(file_of({40, 3, 1, 1, 0, 2, palette_of(2), {0b10100000, 0, 0, 0}})).rgb == colors_of({1, 0, 1}));
    CHECK(decode_bytes(file_of({40, 3, 1, 2, 0, 4, palette_of(4), {0b11011000, 0, 0, 0}})).rgb == colors_of({3, 1, 2}));
    CHECK(decode_bytes(file_of({40, 3, 1, 4, 0, 5, palette_of(5), {0x41, 0x20, 0, 0}})).rgb == colors_of({4, 1, 2}));
    // A palette that 24 bits do not need, and an offset that leaves it out, as it may with 8 bits.
    CHECK(decode_bytes(file_of({40, 1, 1, 24, 0, 7, palette_of(7), {3, 2, 1, 0}})).rgb == Bytes{1, 2, 3});
    CHECK(decode_bytes(file_of({40, 3, 2, 8, 0, 5, palette_of(5), eight, 54})).rgb == expected);
    CHECK(decode_bytes(file_of({40, 1, 1, 32, 0, 0, {}, {3, 2, 1, 9}})).rgb == Bytes{1, 2, 3});
}

TEST_CASE("pipeline: bitmaps with colour masks") {
    const auto masks = [](uint32_t red, uint32_t green, uint32_t blue) {
        return number(red, 4) + number(green, 4) + number(blue, 4);
    };
    const auto pixel = [&](uint32_t header, uint32_t bits, const Bytes& behind, uint32_t value) {
        return decode_bytes(file_of({header, 1, 1, bits, behind.empty() ? 0u : 3u, 0, behind, number(value, 4)})).rgb;
    };
    // 5 bits: 255 * 9 / 31 = 74.03, 255 * 17 / 31 = 139.8, 255 * 30 / 31 = 246.8; rounded down.
    CHECK(pixel(40, 16, {}, 9 << 10 | 17 << 5 | 30) == Bytes{74, 139, 246});
    CHECK(pixel(40, 16, masks(0xF800, 0x7E0, 0x1F), 9 << 11 | 35 << 5 | 30) == Bytes{74, 141, 246});
    CHECK(pixel(40, 32, masks(0xFF, 0xFF00, 0xFF0000), 0x99030201) == Bytes{1, 2, 3});
    for (const uint32_t header : {52u, 56u, 124u})
        CHECK(pixel(header, 32, masks(0xFF000000, 0xFF0000, 0xFF00), 0x01020399) == Bytes{1, 2, 3});
    // 10 bits of each: 255 * 512 / 1023 = 127.6.
    CHECK(pixel(56, 32, masks(0x3FF00000, 0xFFC00, 0x3FF), 512u << 20 | 1023 << 10) == Bytes{127, 255, 0});
}

TEST_CASE("pipeline: bitmaps of run lengths") {
    // Lower row: 3 times colour 1, then 2 3 4 as they are, filled up; upper row: one step right, then 2 times colour 3.
    const Bytes eight = {3, 1, 0, 3, 2, 3, 4, 0, 0, 0, 0, 2, 1, 0, 2, 3, 0, 1};
    CHECK(decode_bytes(runs(8, 6, 2, eight)).rgb == colors_of({0, 3, 3, 0, 0, 0, 1, 1, 1, 2, 3, 4}));
    CHECK(decode_bytes(runs(8, 6, -2, eight)).rgb == colors_of({1, 1, 1, 2, 3, 4, 0, 3, 3, 0, 0, 0}));
    // Of four bits: 3 times 1 and 2 by turns, then four as they are.
    const Bytes four = {3, 0x12, 0, 4, 0x34, 0x12, 0, 1};
    CHECK(decode_bytes(runs(4, 7, 1, four)).rgb == colors_of({1, 2, 1, 3, 4, 1, 2}));
    CHECK(decode_bytes(runs(4, 7, 1, {0, 3, 0x12, 0x30, 4, 0x44, 0, 1})).rgb == colors_of({1, 2, 3, 4, 4, 4, 4}));
    // Two ends of rows: one row is left out. A step up by one and right by two. A run that is too long is cut off.
    CHECK(decode_bytes(runs(8, 1, 3, {1, 1, 0, 0, 0, 0, 1, 2, 0, 1})).rgb == colors_of({2, 0, 1}));
    CHECK(decode_bytes(runs(8, 3, 2, {0, 2, 2, 1, 1, 4, 0, 1})).rgb == colors_of({0, 0, 4, 0, 0, 0}));
    CHECK(decode_bytes(runs(8, 3, 2, {9, 1, 0, 0, 9, 2, 0, 0})).rgb == colors_of({2, 2, 2, 1, 1, 1}));
    // Without the marker of the end all must be there.
    CHECK(decode_bytes(runs(8, 3, 1, {3, 1})).rgb == colors_of({1, 1, 1}));
    CHECK(contains(reason(runs(8, 3, 2, {3, 1, 0, 0, 2, 1})), "cut short"));
    CHECK(contains(reason(runs(8, 3, 1, {0, 3, 1})), "cut short"));
    CHECK(contains(reason(runs(8, 3, 1, {3, 5, 0, 1})), "a colour that its palette does not have"));
}

TEST_CASE("pipeline: bitmaps that are not read say why") {
    const Bytes eight = {1, 2, 3, 0};
    CHECK(contains(reason(file_of({66, 3, 1, 8, 0, 5, palette_of(5), eight})), "a header of 66 bytes"));
    CHECK(contains(reason(file_of({40, 3, 1, 7, 0, 5, palette_of(5), eight})), "7 bits"));
    CHECK(contains(reason(file_of({124, 3, 1, 0, 5, 0, {}, eight})), "holds a PNG"));
    CHECK(contains(reason(file_of({124, 3, 1, 0, 4, 0, {}, eight})), "holds a JPEG"));
    CHECK(contains(reason(file_of({40, 3, 1, 4, 1, 5, palette_of(5), eight})), "4 bits and compression 1"));
    CHECK(contains(reason(file_of({64, 3, 1, 1, 3, 2, palette_of(2), eight})), "1 bits and compression 3"));
    CHECK(contains(reason(file_of({40, 3, 1, 8, 0, 3, palette_of(3), eight})),
                   "a colour that its palette does not have"));
    CHECK(contains(reason(file_of({40, 0, 1, 8, 0, 5, palette_of(5), eight})), "no pixels"));
    CHECK(contains(reason(file_of({40, -3, 1, 8, 0, 5, palette_of(5), eight})), "no pixels"));
    CHECK(contains(reason(file_of({40, 3, INT32_MIN, 24, 0, 0, {}, eight})), "above the limit"));
    CHECK(contains(reason(file_of({40, 3, 9, 8, 0, 5, palette_of(5), eight})), "cut short"));
    CHECK(contains(reason(file_of({40, 3, 1, 8, 0, 5, palette_of(5), eight, 2147483440})), "cut short"));
    // Cut anywhere.
    for (const Bytes& whole : {file_of({40, 3, 1, 8, 0, 5, palette_of(5), eight}), runs(8, 3, 1, {3, 1, 0, 1}),
                               file_of({12, 3, 1, 8, 0, 0, palette_of(256, 3), eight})})
        for (size_t size = 2; size + 3 < whole.size(); ++size)
            CHECK(contains(reason({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)}), "x: "));
}

TEST_CASE("pipeline: a PNG's orientation stands in EXIF, in EXIF written as text, or in XMP") {
    const Picture stored = golden_rgb("stored.png"), turned = turned_right(stored);
    const auto is_turned = [&](const Bytes& chunks) {
        const Picture picture = decode_bytes(png_with(chunks));
        CHECK((picture.rgb == turned.rgb || picture.rgb == stored.rgb));
        return picture.rgb == turned.rgb && picture.height == turned.height;
    };
    const Bytes zero = {0};
    const Bytes raw = text("Raw profile type exif") + zero + text("\nexif\n      34\n" + exif_6_digits);
    CHECK_FALSE(is_turned({}));
    CHECK(is_turned(chunk("tEXt", raw)));
    const auto xmp = [&](const std::string& packet) {
        return text("XML:com.adobe.xmp") + zero + number(0, 2) + zero + zero + text(packet);
    };
    CHECK(is_turned(chunk("iTXt", xmp(xmp_6))));
    CHECK(is_turned(chunk("iTXt", xmp("<tiff:Orientation>6</tiff:Orientation>"))));
    CHECK(is_turned(chunk("iTXt", xmp("tiff:Orientation, and then tiff:Orientation=\"6\""))));
    // Deflated, though only by stored blocks: method 8 with a window of 32K, one last block of so many bytes.
    const auto deflated = [](const Bytes& data) {
        const auto n = static_cast<uint32_t>(data.size());
        return Bytes{0x78, 0x01, 0x01} + number(n, 2) + number(~n, 2) + data + number(0, 4);
    };
    const Bytes hexadecimal = text("\nexif\n      34\n" + exif_6_digits);
    CHECK(is_turned(chunk("zTXt", text("Raw profile type exif") + zero + zero + deflated(hexadecimal))));
    CHECK(is_turned(chunk("iTXt", text("XML:com.adobe.xmp") + Bytes{0, 1, 0, 0, 0} + deflated(text(xmp_6)))));
    // EXIF goes first, even where it says upright; a value that is none is upright.
    const Bytes upright = text(std::string("MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x01\0\0\0\0\0\0", 26));
    CHECK_FALSE(is_turned(chunk("iTXt", xmp(xmp_6)) + chunk("eXIf", upright)));
    CHECK_FALSE(is_turned(chunk("iTXt", xmp("tiff:Orientation=\"9\""))));
    // Damaged texts, and those of others, say nothing.
    for (const Bytes& other : {Bytes{}, text("XML:com.adobe.xmp"), text("XML:com.adobe.xmp") + zero,
                               text("XML:com.adobe.xmp") + Bytes{0, 0, 0, 'x'}, text("Comment") + zero + text(xmp_6),
                               text("Raw profile type exif") + zero + text("\nexif\n 34\n45zz"),
                               text("Raw profile type exif") + Bytes{0, 0, 0x78, 0x01, 0x07}})
        for (const char* type : {"tEXt", "iTXt", "zTXt"})
            CHECK_FALSE(is_turned(chunk(type, other)));
}

TEST_CASE("pipeline: a JPEG's orientation stands in XMP where EXIF has none") {
    const Bytes plain = test::read_file(golden_path("baseline.jpg"));  // without EXIF
    const auto with = [&](const std::string& packet) {
        const std::string body = std::string("http://ns.adobe.com/xap/1.0/") + '\0' + packet;
        const auto n = static_cast<uint8_t>(body.size() + 2);
        return Bytes{0xFF, 0xD8, 0xFF, 0xE1, 0, n} + text(body) + Bytes(plain.begin() + 2, plain.end());
    };
    CHECK(decode_bytes(with(xmp_6)).rgb == turned_right(decode_bytes(plain)).rgb);
    CHECK(decode_bytes(with("tiff:Orientation=\"1\"")).rgb == decode_bytes(plain).rgb);
    // Bytes between segments are passed over, as libjpeg passes over them.
    const Bytes segment = with(xmp_6);
    const auto at = [](const Bytes& bytes, size_t i) { return bytes.begin() + static_cast<std::ptrdiff_t>(i); };
    const size_t jfif_end = 20, segment_end = segment.size() - (plain.size() - 2);
    for (const Bytes& between : {Bytes{0}, Bytes{0x12, 0x34}, Bytes{0xFF}, Bytes{0xFF, 0}}) {
        const Bytes junk = Bytes(plain.begin(), at(plain, jfif_end)) + between +
                           Bytes(at(segment, 2), at(segment, segment_end)) + Bytes(at(plain, jfif_end), plain.end());
        CHECK(decode_bytes(junk).rgb == turned_right(decode_bytes(plain)).rgb);
    }
    // EXIF of 3 before XMP of 6.
    const Bytes upside_down = encode(soft_picture(20, 30), {"turned by 180", 1, 1, false, false, 0, 3});
    const std::string body = std::string("http://ns.adobe.com/xap/1.0/") + '\0' + xmp_6;
    const Bytes both = Bytes{0xFF, 0xD8, 0xFF, 0xE1, 0, static_cast<uint8_t>(body.size() + 2)} + text(body) +
                       Bytes(upside_down.begin() + 2, upside_down.end());
    CHECK(decode_bytes(both).rgb == decode_bytes(upside_down).rgb);
}
