// JPEGs with restart markers: which tiles a crop takes, what damaged markers do, and markers put into files that had
// none. That the pixels are right is seen in test_pipeline_region.cpp.
#include "jpeg_support.h"
#include "pipeline/encode.h"
#include "pipeline/restarts.h"

using namespace rn50;
using namespace rn50::test;
using formats::Cut;
using formats::cut_tiles;
using formats::PixelRange;
using formats::RestartLayout;

namespace {

const Writing tiles{"tiles", 2, 2, false, false, 0, 1, 2};

/// Behind the header of the one scan.
size_t scan_of(const std::vector<uint8_t>& jpeg) {
    size_t at = 2;
    while (jpeg.at(at + 1) != 0xDA)
        at += 2 + (size_t{jpeg.at(at + 2)} << 8 | jpeg.at(at + 3));
    return at + 2 + (size_t{jpeg.at(at + 2)} << 8 | jpeg.at(at + 3));
}

/// Offsets of the restart markers' second bytes.
std::vector<size_t> markers_of(const std::vector<uint8_t>& jpeg) {
    std::vector<size_t> markers;
    for (size_t i = scan_of(jpeg); i + 1 < jpeg.size(); ++i)
        if (jpeg[i] == 0xFF && jpeg[i + 1] >= 0xD0 && jpeg[i + 1] <= 0xD7) markers.push_back(i + 1);
    return markers;
}

std::vector<uint8_t> region_of(const std::vector<uint8_t>& jpeg, const Box& box) {
    Decoder decoder;
    Picture part;
    decoder.open(jpeg.data(), jpeg.size(), "x", {});
    const Box where = decoder.decode_region({box, 1000, 1000}, part);
    return cropped(part, where, 40);
}

}  // namespace

TEST_CASE("restarts: a crop takes the tiles that it touches") {
    const std::vector<uint8_t> jpeg = encode(soft_picture(150, 190), tiles);  // 6 by 10 tiles of 32 by 16, less at ends
    const RestartLayout layout{150, 190, 16, 16, 2, scan_of(jpeg)};
    formats::TilePart part;
    const auto cut = [&](PixelRange range, const PixelRange& expected) {
        CHECK(cut_tiles({jpeg.data(), jpeg.size()}, layout, range, part) == Cut::done);
        CHECK(range.x0 == expected.x0);
        CHECK(range.y0 == expected.y0);
        CHECK(range.x1 == expected.x1);
        CHECK(range.y1 == expected.y1);
        const Picture made = decode(part.jpeg.data(), part.jpeg.size(), "part");
        CHECK(made.height == expected.y1 - expected.y0);
        CHECK(made.width == expected.x1 - expected.x0);
        return part.jpeg.size();
    };
    CHECK(cut({33, 17, 60, 30}, {32, 16, 64, 32}) < scan_of(jpeg) + 500);
    cut({31, 15, 65, 33}, {0, 0, 96, 48});
    cut({189, 149, 190, 150}, {160, 144, 190, 150});
    cut({0, 64, 190, 96}, {0, 64, 190, 96});
    cut({64, 0, 96, 150}, {64, 0, 96, 150});
    PixelRange all{0, 0, 190, 150};
    CHECK(cut_tiles({jpeg.data(), jpeg.size()}, layout, all, part) == Cut::none);
    PixelRange some{0, 0, 10, 10};
    RestartLayout uneven = layout;
    uneven.interval = 5;
    CHECK(cut_tiles({jpeg.data(), jpeg.size()}, uneven, some, part) == Cut::none);
    CHECK(cut_tiles({jpeg.data(), jpeg.size() - 2}, layout, some, part) == Cut::damaged);
}

TEST_CASE("restarts: a file whose markers are damaged gives no pixels, wherever the crop lies") {
    const std::vector<uint8_t> jpeg = encode(soft_picture(150, 190), tiles);
    const std::vector<size_t> markers = markers_of(jpeg);
    REQUIRE(markers.size() == 59);
    const Box box{70, 60, 118, 90};
    const auto check = [&](const std::vector<uint8_t>& damaged) {
        CHECK(error_of([&] { region_of(damaged, box); }).code() == Exit::data);
    };
    for (size_t m = 0; m < markers.size(); ++m) {
        CAPTURE(m);
        std::vector<uint8_t> damaged = jpeg;
        damaged[markers[m]] = static_cast<uint8_t>(0xD0 + (m + 3) % 8);
        check(damaged);
        damaged[markers[m]] = 0;  // a byte of data
        check(damaged);
        damaged.erase(damaged.begin() + static_cast<std::ptrdiff_t>(markers[m]) - 1,
                      damaged.begin() + static_cast<std::ptrdiff_t>(markers[m]) + 1);
        check(damaged);
        damaged = jpeg;
        damaged[markers[m]] = 0xD9;  // the end
        check(damaged);
        if (m + 8 < markers.size()) {  // the eighth one after it has the same number
            damaged = jpeg;
            damaged.erase(damaged.begin() + static_cast<std::ptrdiff_t>(markers[m]) + 1,
                          damaged.begin() + static_cast<std::ptrdiff_t>(markers[m + 8]) + 1);
            check(damaged);
        }
        check({jpeg.begin(), jpeg.begin() + static_cast<std::ptrdiff_t>(markers[m])});
    }
}

TEST_CASE("restarts: the distance of packed markers makes rectangles of at least 64 pixels") {
    CHECK(formats::packed_interval(1024, 16) == 4);
    CHECK(formats::packed_interval(1024, 8) == 8);
    CHECK(formats::packed_interval(1000, 16) == 7);
    CHECK(formats::packed_interval(752, 16) == 47);  // a prime: the whole row
    CHECK(formats::packed_interval(50, 16) == 4);
    CHECK(formats::packed_interval(1, 8) == 1);
}

TEST_CASE("restarts: markers are put into files of every kind, and no pixel changes") {
    const Picture drawing = soft_picture(203, 333);
    const Writing ways[] = {{"4:2:0"},
                            {"4:2:2", 2, 1},
                            {"4:4:4", 1, 1},
                            {"4:1:1", 4, 1},
                            {"gray", 1, 1, true},
                            {"gray, coded as if subsampled", 2, 2, true},
                            {"progressive", 2, 2, false, true},
                            {"turned right", 2, 2, false, false, 0, 6},
                            {"rows", 2, 2, false, false, 1}};
    std::vector<uint8_t> marked;
    for (const Writing& way : ways) {
        CAPTURE(way.name);
        const std::vector<uint8_t> jpeg = encode(drawing, way);
        add_restart_markers(jpeg, marked);
        CHECK_FALSE(markers_of(marked).empty());
        const Picture before = decode(jpeg.data(), jpeg.size(), "x"), after = decode(marked.data(), marked.size(), "x");
        CHECK(after.height == before.height);
        CHECK(after.rgb == before.rgb);
        CHECK(region_of(marked, {150, 70, 190, 110}) == region_of(jpeg, {150, 70, 190, 110}));
    }
    for (const auto& entry : std::filesystem::directory_iterator(golden_path(""))) {
        if (entry.path().extension() != ".jpg") continue;
        CAPTURE(entry.path().string());
        const std::vector<uint8_t> jpeg = read_file(entry.path().string());
        add_restart_markers(jpeg, marked);
        CHECK(decode(marked.data(), marked.size(), "x").rgb == decode(jpeg.data(), jpeg.size(), "x").rgb);
    }
    const std::vector<uint8_t> half(marked.begin(), marked.begin() + 300);
    CHECK(contains(error_of([&] { add_restart_markers(half, marked); }).what(), "cannot be given restart markers"));
}

TEST_CASE("restarts: what rn50 encodes has them") {
    std::vector<uint8_t> jpeg;
    encode_jpeg(soft_picture(100, 256), 90, jpeg);
    CHECK(markers_of(jpeg).size() == 4 * 7 - 1);
}

TEST_CASE("restarts: a JPEG that cannot be coded anew is an error, however much was written before") {
    // Grey, 8 x 8, all of one coefficient: the first step of the mean is 2048, of 12 bits, and encoders may write 11.
    std::vector<uint8_t> bytes = {0xFF, 0xD8};
    const auto segment = [&](uint8_t marker, const std::vector<uint8_t>& body) {
        const size_t length = body.size() + 2;
        bytes.insert(bytes.end(), {0xFF, marker, static_cast<uint8_t>(length >> 8), static_cast<uint8_t>(length)});
        bytes.insert(bytes.end(), body.begin(), body.end());
    };
    for (int i = 0; i < 3; ++i)
        segment(0xFE, std::vector<uint8_t>(60'000, 'x'));  // comments, which are written first
    std::vector<uint8_t> quantizers(65, 1);
    quantizers[0] = 0;
    segment(0xDB, quantizers);
    segment(0xC0, {8, 0, 8, 0, 8, 1, 1, 0x11, 0});
    for (const uint8_t kind : {0x00, 0x10}) {  // one code, of one bit: 12 bits follow; the end of the block
        std::vector<uint8_t> codes(18, 0);
        codes[0] = kind;
        codes[1] = 1;
        codes[17] = kind == 0 ? 12 : 0;
        segment(0xC4, codes);
    }
    segment(0xDA, {1, 1, 0x00, 0, 63, 0});
    bytes.insert(bytes.end(), {0b01000000, 0b00000011, 0xFF, 0xD9});
    CHECK(decode(bytes.data(), bytes.size(), "x").rgb == std::vector<uint8_t>(8 * 8 * 3, 255));
    std::vector<uint8_t> marked;
    CHECK(contains(error_of([&] { add_restart_markers(bytes, marked); }).what(), "out of range"));
}
