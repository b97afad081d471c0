// Decoding against Pillow's results (tools/golden_pictures.py), and every way in which a file can be bad.
#include "pipeline/decode.h"
#include "pipeline_support.h"
#include "png_support.h"

using namespace rn50;
using namespace rn50::test;

namespace {

Picture decode_bytes(const std::vector<uint8_t>& bytes, const std::string& name = "x",
                     const DecodeLimits& limits = {}) {
    return decode(bytes.data(), bytes.size(), name, limits);
}

/// Every kind of golden picture.
const std::vector<std::string> files = {
    "baseline.jpg",      "444.jpg",           "progressive.jpg",   "restart.jpg",       "gray.jpg",
    "cmyk.jpg",          "orientation_1.jpg", "orientation_2.jpg", "orientation_3.jpg", "orientation_4.jpg",
    "orientation_5.jpg", "orientation_6.jpg", "orientation_7.jpg", "orientation_8.jpg", "rgb.png",
    "stored.png",        "gray.png",          "bits.png",          "palette.png",       "alpha.png",
    "deep.png",          "rgb.bmp",           "gray.bmp",          "palette.bmp",       "rgb.tga",
    "runs.tga",          "rgb.ppm",           "gray.pgm",
};

/// A sound RGB PNG that says it has this size, and whose data unpack to 1 + 258 * runs zeros.
std::string png_of(uint32_t width, uint32_t height, int runs) {
    std::string packed = "\x78\x01";
    int bits = 0;
    const auto put = [&](const char* digits) {
        for (; *digits != 0; ++digits, ++bits) {
            if (bits % 8 == 0) packed += '\0';
            if (*digits == '1') packed.back() = static_cast<char>(packed.back() | 1 << bits % 8);
        }
    };
    put("110");       // the last block, of fixed codes
    put("00110000");  // a zero
    for (int i = 0; i < runs; ++i)
        put("1100010100000");  // 258 more of what was last
    put("0000000");
    const std::string header = big_endian(width) + big_endian(height) + std::string("\x08\x02\0\0\0", 5);
    return "\x89PNG\r\n\x1a\n" + png_chunk("IHDR", header) + png_chunk("IDAT", packed + big_endian(0)) +
           png_chunk("IEND", "");
}

}  // namespace

TEST_CASE("pipeline: pictures of every kind decode as Pillow decodes them") {
    Decoder decoder;
    Picture picture;
    for (const std::string& file : files) {
        CAPTURE(file);
        const std::vector<uint8_t> bytes = read_file(golden_path(file));
        const Picture expected = golden_rgb(file);
        decoder.decode(bytes.data(), bytes.size(), file, {}, picture);
        REQUIRE(picture.height == expected.height);
        REQUIRE(picture.width == expected.width);
        // Two builds of libjpeg may differ by a level or two in their inverse DCT; nothing else may differ at all.
        const bool jpeg = contains(file, ".jpg");
        CHECK(difference(picture.rgb, expected.rgb) <= (jpeg ? 2 : 0));
    }
}

TEST_CASE("pipeline: the content tells the format, not the name") {
    const Picture expected = golden_rgb("baseline.jpg");
    CHECK(difference(decode_bytes(read_file(golden_path("baseline.jpg")), "picture.png").rgb, expected.rgb) <= 2);
    CHECK(decode_bytes(read_file(golden_path("rgb.bmp")), "picture.jpg").rgb == golden_rgb("rgb.bmp").rgb);
    // TGA has no signature: only its extension lets it in.
    CHECK_NOTHROW(decode_bytes(read_file(golden_path("rgb.tga")), "A.TGA"));
    CHECK_THROWS_AS(decode_bytes(read_file(golden_path("rgb.tga")), "a.jpg"), Error);
}

TEST_CASE("pipeline: a file cut short anywhere is an error, never half a picture") {
    for (const std::string& file : files) {
        CAPTURE(file);
        const std::vector<uint8_t> whole = read_file(golden_path(file));
        // The optional footer of TGA and the zeros that Pillow pads BMP rows with may go.
        const size_t slack = contains(file, ".tga") ? 26 : contains(file, ".bmp") ? 4 : 1;
        for (size_t size = 0; size + slack <= whole.size(); size += 1 + size / 40) {
            CAPTURE(size);
            const std::vector<uint8_t> cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
            const Error error = error_of([&] { decode_bytes(cut, file); });
            CHECK(error.code() == Exit::data);
            CHECK(std::string(error.what()).rfind(file + ": ", 0) == 0);
        }
    }
}

TEST_CASE("pipeline: rubbish in a JPEG is an error when pixels are lost, and not when none is") {
    const std::vector<uint8_t> whole = read_file(golden_path("restart.jpg"));
    const Picture clean = decode_bytes(whole);
    // Bytes between the picture and its end marker.
    std::vector<uint8_t> padded = whole;
    padded.insert(padded.end() - 2, {0x12, 0x34, 0x56});
    CHECK(decode_bytes(padded).rgb == clean.rgb);
    // Bytes behind the end.
    padded = whole;
    padded.insert(padded.end(), 100, 0xAB);
    CHECK(decode_bytes(padded).rgb == clean.rgb);
    // A restart marker lost on the way, so that a part of the picture is missing.
    std::vector<uint8_t> damaged = whole;
    for (size_t i = damaged.size() - 3; i > 0; --i) {
        if (damaged[i] == 0xFF && damaged[i + 1] >= 0xD0 && damaged[i + 1] <= 0xD7) {
            damaged[i + 1] = 0x00;
            break;
        }
    }
    CHECK_THROWS_AS(decode_bytes(damaged), Error);
}

TEST_CASE("pipeline: damaged PNG data are an error") {
    // Not compressed: a damaged pixel is a pixel like any other, and only the checksum tells.
    std::vector<uint8_t> bytes = read_file(golden_path("stored.png"));
    bytes[bytes.size() / 2] ^= 1;
    CHECK(contains(error_of([&] { decode_bytes(bytes); }).what(), "checksum"));
}

TEST_CASE("pipeline: what is no picture is called by its name") {
    const auto reason = [](const std::string& text, const std::string& name = "a.jpg") {
        return std::string(
            error_of([&] { decode(reinterpret_cast<const uint8_t*>(text.data()), text.size(), name); }).what());
    };
    CHECK(contains(reason(""), "a.jpg: the file is empty"));
    CHECK(contains(reason("this is a text\n"), "text"));
    CHECK(contains(reason("GIF89a......"), "GIF"));
    CHECK(contains(reason(std::string("RIFF\1\0\0\0WEBPVP8 ", 16)), "WebP"));
    CHECK(contains(reason("\xFF\xD8"), "not a picture"));
    CHECK(contains(reason("\xFF\xD8\xFF\xD9"), "a.jpg: "));
    CHECK(contains(reason("BM"), "cut short"));
    CHECK(contains(reason(std::string(40, 'x'), "a.tga"), "a.tga: "));
    // Headers of 4096 x 4096 pixels, of 24 bits and of runs, and nothing else.
    for (const char kind : {'\2', '\12'})
        CHECK(contains(reason(std::string("\0\0", 2) + kind + std::string(10, '\0') + '\x10' + std::string(1, '\0') +
                                  '\x10' + '\x18' + std::string(9, '\0'),
                              "a.tga"),
                       "cut short, or no TGA"));  // before anything is decoded
}

TEST_CASE("pipeline: enormous pictures are refused before memory is taken") {
    const auto refused = [](const std::vector<uint8_t>& bytes, const DecodeLimits& limits) {
        return contains(error_of([&] { decode_bytes(bytes, "x", limits); }).what(), "above the limit");
    };
    DecodeLimits limits;
    limits.max_pixels = 19 * 26 - 1;
    for (const char* file : {"baseline.jpg", "rgb.png", "deep.png", "rgb.bmp", "rgb.ppm"}) {
        CAPTURE(file);
        CHECK(refused(read_file(golden_path(file)), limits));
    }
    limits.max_pixels = 19 * 26;
    CHECK_NOTHROW(decode_bytes(read_file(golden_path("baseline.jpg")), "x", limits));
    const std::string ppm = "P6 100000 100000 255\n";
    CHECK(refused({ppm.begin(), ppm.end()}, {}));
    // The JPEG header's height and width follow its frame marker.
    std::vector<uint8_t> jpeg = read_file(golden_path("baseline.jpg"));
    for (size_t i = 0; i + 8 < jpeg.size(); ++i) {
        if (jpeg[i] == 0xFF && jpeg[i + 1] == 0xC0) {
            jpeg[i + 5] = jpeg[i + 6] = jpeg[i + 7] = jpeg[i + 8] = 0xFE;
            break;
        }
    }
    CHECK(refused(jpeg, {}));
    limits = {};
    limits.max_scans = 2;
    CHECK_THROWS_AS(decode_bytes(read_file(golden_path("progressive.jpg")), "x", limits), Error);
}

TEST_CASE("pipeline: a PNG that unpacks to more than it says, or says too much, is refused") {
    const auto reason = [](const std::string& png) {
        return std::string(error_of([&] { decode_bytes({png.begin(), png.end()}); }).what());
    };
    const std::string sound = png_of(10, 31, 4);  // 31 rows of 1 + 30 bytes, and some more
    CHECK(decode_bytes({sound.begin(), sound.end()}).rgb == std::vector<uint8_t>(10 * 31 * 3));
    CHECK(contains(reason(png_of(10, 31, 100'000)), "unpacks to more than a picture of its size can hold"));
    CHECK(contains(reason(png_of(60'000, 60'000, 10)), "60000x60000 pixels is above the limit"));
    CHECK(contains(reason(png_of(0x7FFFFFFF, 0x7FFFFFFF, 10)), "above the limit"));
    CHECK(contains(reason(png_of(0, 5, 10)), "no pixels"));
}

TEST_CASE("pipeline: PNM scales by its maximum and reads comments") {
    const auto pixels = [](const std::string& text) { return decode_bytes({text.begin(), text.end()}).rgb; };
    CHECK(pixels("P5\n# comment\n2 1 # another\n15\n\x05\x0F") == std::vector<uint8_t>{85, 85, 85, 255, 255, 255});
    CHECK(pixels(std::string("P5 1 1 65535\n\x80\x00", 15)) == std::vector<uint8_t>{128, 128, 128});
    CHECK(pixels("P6 1 1 255\nabc") == std::vector<uint8_t>{'a', 'b', 'c'});
    CHECK_THROWS_AS(pixels("P6 1 1 0\nabc"), Error);
    CHECK_THROWS_AS(pixels("P6 1 x 255\nabc"), Error);
    CHECK_THROWS_AS(pixels("P6 0 1 255\nabc"), Error);
}

TEST_CASE("pipeline: a decoder goes on after an error") {
    Decoder decoder;
    Picture picture;
    const std::vector<uint8_t> good = read_file(golden_path("progressive.jpg"));
    for (int i = 0; i < 3; ++i) {
        CHECK_THROWS_AS(decoder.decode(good.data(), good.size() / 2, "x", {}, picture), Error);
        decoder.decode(good.data(), good.size(), "x", {}, picture);
        CHECK(difference(picture.rgb, golden_rgb("progressive.jpg").rgb) <= 2);
    }
}
