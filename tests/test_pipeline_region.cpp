// Decoding no more of a JPEG than a crop needs, beside the same crop of the whole picture. The files are written here,
// by libjpeg.
#include <cmath>

#include "jpeg_support.h"
#include "pipeline/sample_maker.h"

using namespace rn50;
using namespace rn50::test;

namespace {

const Writing ways[] = {
    {"4:2:0"},
    {"4:2:2", 2, 1},
    {"4:4:4", 1, 1},
    {"4:4:0", 1, 2},
    {"gray", 1, 1, true},
    {"progressive", 2, 2, false, true},
    {"restarts", 2, 2, false, false, 1},
    {"turned left to right", 2, 2, false, false, 0, 2},
    {"turned by 180", 2, 2, false, false, 0, 3},
    {"turned upside down", 2, 2, false, false, 0, 4},
    {"transposed", 2, 2, false, false, 0, 5},
    {"turned right", 2, 1, false, false, 0, 6},
    {"transversed", 2, 2, false, false, 0, 7},
    {"turned left", 2, 2, false, true, 0, 8},
    {"a restart every third row", 2, 2, false, false, 3},
    {"tiles, 4:2:0", 2, 2, false, false, 0, 1, 2},
    {"tiles, 4:2:2", 2, 1, false, false, 0, 1, 2},
    {"tiles, 4:4:4", 1, 1, false, false, 0, 1, 4},
    {"tiles, 4:4:0", 1, 2, false, false, 0, 1, 4},
    {"tiles, 4:1:1", 4, 1, false, false, 0, 1, 13},
    {"tiles of one unit", 2, 2, false, false, 0, 1, 1},
    {"tiles, gray", 1, 1, true, false, 0, 1, 4},
    {"tiles, turned by 180", 2, 2, false, false, 0, 3, 2},
    {"tiles, transposed", 2, 2, false, false, 0, 5, 2},
    {"tiles, turned right", 2, 1, false, false, 0, 6, 2},
    {"tiles, turned left", 2, 2, false, false, 0, 8, 2},
    {"restarts amid a row", 2, 2, false, false, 0, 1, 17},
    {"two rows and a half", 2, 2, false, false, 0, 1, 65},
};

double mean_difference(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b) {
    REQUIRE(a.size() == b.size());
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i)
        sum += std::abs(int{a[i]} - int{b[i]});
    return sum / static_cast<double>(a.size());
}

/// Pictures in memory.
class Files : public Source {
  public:
    void add(const std::string& name, std::vector<uint8_t> bytes) {
        names_.push_back(name);
        bytes_.push_back(std::move(bytes));
    }
    int64_t size() const override { return static_cast<int64_t>(names_.size()); }
    int32_t label(int64_t) const override { return 0; }
    std::string name(int64_t i) const override { return names_[static_cast<size_t>(i)]; }
    std::string path_inside(int64_t i) const override { return name(i); }
    void read(int64_t i, std::vector<uint8_t>& bytes) const override { bytes = bytes_[static_cast<size_t>(i)]; }
    const std::vector<std::string>& classes() const override { return classes_; }

  private:
    std::vector<std::string> names_, classes_{"all"};
    std::vector<std::vector<uint8_t>> bytes_;
};

/// Boxes at all edges, in the middle, whole, and one pixel large.
std::vector<Box> boxes_of(const PictureSize& size) {
    const auto h = static_cast<double>(size.height), w = static_cast<double>(size.width);
    return {{0, 0, w, h},       {0, 0, 130, 120},          {w - 140, h - 133, w, h},
            {17, 23, 217, 203}, {w / 2, 0, w / 2 + 96, h}, {0, 101, w, 217},
            {64, 64, 128, 192}, {w - 1, h - 1, w, h},      {33, 40, 34, 41}};
}

Box whole_pixels(Box box) {
    for (double* edge : {&box.x0, &box.y0, &box.x1, &box.y1})
        *edge = std::floor(*edge);
    return box;
}

}  // namespace

TEST_CASE("pipeline: a region that is not reduced is bit for bit that of the whole picture") {
    const Picture drawing = soft_picture(301, 411);
    Decoder decoder;
    Picture part;
    for (const Writing& way : ways) {
        CAPTURE(way.name);
        const std::vector<uint8_t> bytes = encode(drawing, way);
        const Picture full = decode(bytes.data(), bytes.size(), "x");
        for (const Box& any : boxes_of({full.height, full.width})) {
            const Box box = whole_pixels(any);
            const std::string at = cat(box.x0, " ", box.y0, " ", box.x1, " ", box.y1);
            CAPTURE(at);
            const PictureSize size = decoder.open(bytes.data(), bytes.size(), "x", {});
            REQUIRE(size.height == full.height);
            REQUIRE(size.width == full.width);
            const Box where = decoder.decode_region({box, 1000, 1000}, part);
            CHECK(where.x1 - where.x0 == box.x1 - box.x0);
            CHECK(where.y1 - where.y0 == box.y1 - box.y0);
            CHECK(cropped(part, where, 50) == cropped(full, box, 50));
        }
    }
}

TEST_CASE("pipeline: a region that is reduced while decoding stays near to the whole picture's") {
    const Picture drawing = soft_picture(611, 803);
    Decoder decoder;
    Picture part;
    for (const Writing& way : ways) {
        CAPTURE(way.name);
        const std::vector<uint8_t> bytes = encode(drawing, way);
        const Picture full = decode(bytes.data(), bytes.size(), "x");
        for (const int64_t size : {32, 50, 90}) {
            CAPTURE(size);
            for (const Box& any : boxes_of({full.height, full.width})) {
                const Box box = whole_pixels(any);
                const std::string at = cat(box.x0, " ", box.y0, " ", box.x1, " ", box.y1);
                CAPTURE(at);
                decoder.open(bytes.data(), bytes.size(), "x", {});
                const Box where = decoder.decode_region({box, size, size}, part);
                CHECK(mean_difference(cropped(part, where, size), cropped(full, box, size)) < 2);
            }
        }
    }
}

TEST_CASE("pipeline: training without a crop decodes no larger than it needs, evaluation always all") {
    const Picture wide = soft_picture(611, 803), tall = soft_picture(803, 97);
    Files source;
    for (const Writing& way : ways) {
        source.add(cat("wide ", way.name), encode(wide, way));
        source.add(cat("tall ", way.name), encode(tall, way));
    }
    SampleMaker maker;
    std::vector<uint8_t> made(50 * 50 * 3), expected(50 * 50 * 3);
    for (const Resize resize : {Resize::squash, Resize::letterbox, Resize::center}) {
        CAPTURE(name_of(resize));
        PictureOptions options;
        options.image_size = 50;
        options.resize = resize;
        int reduced = 0;
        for (int64_t i = 0; i < source.size(); ++i) {
            CAPTURE(source.name(i));
            const SampleKey key{7, 1, i};
            const auto make = [&](Augment augment, Decode decode, std::vector<uint8_t>& dst) {
                options.augment = augment;
                options.decode = decode;
                maker.make(source, i, options, key, nullptr, dst.data());
            };
            make(Augment::flip, Decode::whole, expected);
            make(Augment::flip, Decode::region, made);
            CHECK(mean_difference(made, expected) < 2);
            reduced += made != expected;
            make(Augment::none, Decode::whole, expected);
            make(Augment::none, Decode::region, made);
            CHECK(made == expected);
        }
        CHECK(reduced > source.size() / 3);  // it was not all decoded whole after all
    }
}

TEST_CASE("pipeline: CMYK is never reduced") {
    const std::vector<uint8_t> bytes = read_file(golden_path("cmyk.jpg"));
    Decoder decoder;
    Picture part;
    decoder.open(bytes.data(), bytes.size(), "x", {});
    decoder.decode_region({{0, 0, 26, 19}, 3, 3}, part);
    CHECK(part.rgb == decode(bytes.data(), bytes.size(), "x").rgb);
}

TEST_CASE("pipeline: the luma of a JPEG is that of its RGB, but for roundings, whole or in part") {
    const Picture drawing = soft_picture(301, 411);
    Decoder decoder;
    Picture full, luma, part;
    for (const Writing& way : ways) {
        CAPTURE(way.name);
        const std::vector<uint8_t> bytes = encode(drawing, way);
        decoder.decode(bytes.data(), bytes.size(), "x", {}, full);
        decoder.open(bytes.data(), bytes.size(), "x", {}, true);
        decoder.decode_opened(luma);
        REQUIRE(luma.rgb.size() == full.rgb.size());
        int worst = 0;
        bool gray = true;
        for (size_t i = 0; i < full.rgb.size(); i += 3) {
            worst = std::max(worst, std::abs(pixel::luma(&full.rgb[i]) - int{luma.rgb[i]}));
            gray = gray && luma.rgb[i] == luma.rgb[i + 1] && luma.rgb[i] == luma.rgb[i + 2];
        }
        CHECK(worst <= 1);
        CHECK(gray);
        for (const Box& any : boxes_of({full.height, full.width})) {
            const Box box = whole_pixels(any);
            decoder.open(bytes.data(), bytes.size(), "x", {}, true);
            const Box where = decoder.decode_region({box, 1000, 1000}, part);
            CHECK(cropped(part, where, 50) == cropped(luma, box, 50));
        }
    }
}

TEST_CASE("pipeline: no more is decoded than the region needs") {
    const std::vector<uint8_t> bytes = encode(soft_picture(1024, 1024), ways[0]);
    Decoder decoder;
    Picture part;
    decoder.open(bytes.data(), bytes.size(), "x", {});
    decoder.decode_region({{0, 0, 1024, 1024}, 182, 150}, part);
    CHECK(part.height == 256);
    CHECK(part.width == 256);
    decoder.open(bytes.data(), bytes.size(), "x", {});
    decoder.decode_region({{0, 0, 1024, 1024}, 183, 150}, part);
    CHECK(part.height == 512);
    decoder.open(bytes.data(), bytes.size(), "x", {});
    const Box where = decoder.decode_region({{0, 512, 512, 1024}, 160, 160}, part);
    CHECK(part.height == 256);
    CHECK(part.width <= 512);  // 256, and a block or two where libjpeg leaves out columns
    CHECK(where.y0 == 0);
    CHECK(where.x1 == 256);
    // Nothing is ever enlarged while decoding.
    decoder.open(bytes.data(), bytes.size(), "x", {});
    decoder.decode_region({{100, 100, 150, 150}, 224, 224}, part);
    CHECK(part.height == 50);
}

TEST_CASE("pipeline: a picture may be opened and left, and one that is cut inside the region is an error") {
    const std::vector<uint8_t> bytes = encode(soft_picture(301, 411), ways[0]);
    const std::vector<uint8_t> png = read_file(golden_path("rgb.png"));
    Decoder decoder;
    Picture part;
    decoder.open(bytes.data(), bytes.size(), "left", {});
    decoder.open(png.data(), png.size(), "left too", {});
    decoder.open(bytes.data(), bytes.size() / 2, "cut.jpg", {});
    const Error error = error_of([&] { decoder.decode_region({{0, 0, 411, 301}, 64, 64}, part); });
    CHECK(contains(error.what(), "cut.jpg: "));
    CHECK(error.code() == Exit::data);
    decoder.open(bytes.data(), bytes.size(), "x", {});
    decoder.decode_opened(part);
    CHECK(part.rgb == decode(bytes.data(), bytes.size(), "x").rgb);
    decoder.open(png.data(), png.size(), "x.png", {});
    const Box where = decoder.decode_region({{3, 4, 9, 11}, 64, 64}, part);
    CHECK(where.x0 == 3);
    CHECK(part.rgb == golden_rgb("rgb.png").rgb);
}
