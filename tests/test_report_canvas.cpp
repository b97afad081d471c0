// The canvas of contact sheets: what is written as PNG is read back by the decoder.
#include <algorithm>

#include "pipeline_support.h"
#include "report/canvas.h"

using namespace rn50;
using namespace rn50::test;
using report::Canvas;

namespace {

constexpr report::Color back = {1, 2, 3}, ink = {250, 240, 230};

const uint8_t* at(const std::vector<uint8_t>& rgb, const Canvas& canvas, int64_t y, int64_t x) {
    return &rgb[static_cast<size_t>((y * canvas.width() + x) * 3)];
}

int64_t inked(const Canvas& canvas, int64_t from_x, int64_t to_x) {
    int64_t count = 0;
    for (int64_t y = 0; y < canvas.height(); ++y)
        for (int64_t x = from_x; x < to_x; ++x)
            count += std::equal(ink, ink + 3, at(canvas.rgb(), canvas, y, x));
    return count;
}

}  // namespace

TEST_CASE("canvas: pictures lie where they were put, and PNG keeps every pixel") {
    Canvas canvas(30, 50, back);
    const Picture picture = formula_picture(10, 12);
    canvas.place(3, 7, picture.rgb.data(), 10, 12, 3);
    const std::vector<uint8_t> gray(16, 99);
    canvas.place(26, 46, gray.data(), 4, 4, 1);
    const std::string png = canvas.png();
    const Picture read = decode(reinterpret_cast<const uint8_t*>(png.data()), png.size(), "sheet.png");
    REQUIRE((read.height == 30 && read.width == 50));
    CHECK(read.rgb == canvas.rgb());
    CHECK(std::equal(back, back + 3, at(read.rgb, canvas, 2, 7)));
    CHECK(std::memcmp(at(read.rgb, canvas, 3, 7), picture.rgb.data(), 36) == 0);
    CHECK(std::memcmp(at(read.rgb, canvas, 12, 7), &picture.rgb[9 * 36], 36) == 0);
    CHECK(*at(read.rgb, canvas, 29, 49) == 99);
    CHECK_THROWS_AS(canvas.place(25, 0, picture.rgb.data(), 10, 12, 3), Error);
}

TEST_CASE("canvas: text is drawn, cut where it may not go, and any bytes are harmless") {
    Canvas canvas(Canvas::text_height, 200, back);
    canvas.text(0, 10, "pit 7", 150, ink);
    CHECK(inked(canvas, 0, 10) == 0);
    CHECK(inked(canvas, 10, 10 + Canvas::text_width("pit 7")) > 60);
    CHECK(inked(canvas, 10 + Canvas::text_width("pit 7"), 200) == 0);
    Canvas cut(Canvas::text_height, 200, back);
    cut.text(0, 0, "a rather long name of a class, longer than its place", 40, ink);
    CHECK(inked(cut, 0, 40) > 60);
    CHECK(inked(cut, 40, 200) == 0);
    Canvas odd(4, 20, back);
    odd.text(0, 15, "\xC3\xA4\n\t\x01%s", 100, ink);
    odd.text(2, 0, "", 100, ink);
    CHECK(error_of([] { Canvas(1 << 20, 1 << 20, back); }).code() == Exit::usage);
}
