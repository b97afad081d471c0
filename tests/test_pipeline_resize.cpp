// Resampling against Pillow's results (tools/golden_pictures.py), and the same bits on every instruction set.
#include <algorithm>

#include "pipeline/kernels.h"
#include "pipeline/resize.h"
#include "pipeline_support.h"

using namespace rn50;
using namespace rn50::test;

TEST_CASE("pipeline: bilinear resampling is within 1 of Pillow's") {
    struct Case {
        int64_t height, width;
        Box box;
    };
    const std::vector<Case> cases = {
        {40, 60, {0, 0, 60, 40}},   {40, 60, {3, 5, 50, 39}},     {40, 60, {7.25, 4.5, 41.75, 30.125}},
        {11, 7, {0, 0, 7, 11}},     {11, 7, {1.5, 2.5, 5.25, 9}}, {300, 200, {0, 0, 200, 300}},
        {1, 50, {0, 0, 50, 1}},     {50, 1, {0, 0, 1, 50}},       {24, 24, {0, 0, 24, 24}},
        {33, 129, {0, 0, 129, 33}},
    };
    for (size_t i = 0; i < cases.size(); ++i) {
        CAPTURE(i);
        const Picture src = formula_picture(cases[i].height, cases[i].width);
        const Picture expected = golden_rgb(cat("resize_", i));
        std::vector<uint8_t> dst(expected.rgb.size(), 77);
        resize_bilinear_antialias(src.rgb.data(), src.height, src.width, cases[i].box, dst.data(), expected.height,
                                  expected.width);
        CHECK(difference(dst, expected.rgb) <= 1);
    }
}

TEST_CASE("pipeline: a flat picture stays flat, whatever the sizes") {
    Resizer resizer;
    for (int64_t side : {1, 2, 3, 7, 50, 333}) {
        const std::vector<uint8_t> src(static_cast<size_t>(side * side * 3), 201);
        for (int64_t to : {1, 5, 64, 100}) {
            std::vector<uint8_t> dst(static_cast<size_t>(to * to * 3), 0);
            const auto end = static_cast<double>(side);
            resizer.bilinear({src.data(), side, side, side * 3}, {end * 0.1, end * 0.2, end, end * 0.9}, dst.data(), to,
                             to, to * 3);
            CHECK(dst == std::vector<uint8_t>(dst.size(), 201));
        }
    }
    const int64_t wide = 300000;  // each weight is a few units of its fixed point
    const std::vector<uint8_t> src(static_cast<size_t>(wide * 3), 201);
    uint8_t dst[3];
    resizer.bilinear({src.data(), 1, wide, wide * 3}, {0, 0, static_cast<double>(wide), 1}, dst, 1, 1, 3);
    CHECK(dst[0] == 201);
}

TEST_CASE("pipeline: pixels outside of a view take no part, those around a box do") {
    std::vector<uint8_t> src(10 * 10 * 3, 0);
    for (int64_t y = 3; y < 6; ++y)
        for (int64_t x = 3; x < 6; ++x)
            std::memset(&src[static_cast<size_t>((y * 10 + x) * 3)], 255, 3);
    std::vector<uint8_t> dst(6 * 6 * 3);
    Resizer resizer;
    resizer.bilinear({&src[(3 * 10 + 3) * 3], 3, 3, 30}, {0, 0, 3, 3}, dst.data(), 6, 6, 18);
    CHECK(dst == std::vector<uint8_t>(dst.size(), 255));
    resizer.bilinear({src.data(), 10, 10, 30}, {3, 3, 6, 6}, dst.data(), 6, 6, 18);
    CHECK(dst[0] < 255);
    CHECK(dst[(2 * 6 + 2) * 3] == 255);
}

TEST_CASE("pipeline: a resized row is its formula, on every instruction set, and nothing behind it is written") {
    const Picture src = formula_picture(1, 80);
    for (const char* isa : {"v2", "v3", "v4"}) {
        const ResizeKernels* kernels = resize_kernels_for(isa);
        if (!kernels) continue;
        CAPTURE(isa);
        for (const int64_t taps : {4, 8, 12})
            for (int64_t width = 1; width <= 13; ++width) {
                std::vector<int32_t> first;
                std::vector<int16_t> weights;
                for (int64_t x = 0; x < width; ++x) {
                    first.push_back(static_cast<int32_t>(x * 5 % 61));
                    for (int64_t t = 0; t < taps; ++t)
                        weights.push_back(static_cast<int16_t>((x * 31 + t * 77) % 700 * 12 / taps - 300));
                }
                constexpr uint8_t untouched = 0xA5;
                std::vector<uint8_t> dst(static_cast<size_t>(width * 3 + 16), untouched);
                kernels->row(src.rgb.data(), first.data(), weights.data(), taps, 12, dst.data(), width);
                for (int64_t i = 0; i < width * 3; ++i) {
                    int64_t sum = 1 << 11;
                    for (int64_t t = 0; t < taps; ++t)
                        sum +=
                            int64_t{src.rgb[static_cast<size_t>((first[static_cast<size_t>(i / 3)] + t) * 3 + i % 3)]} *
                            weights[static_cast<size_t>(i / 3 * taps + t)];
                    CAPTURE(taps);
                    CAPTURE(i);
                    REQUIRE(int64_t{dst[static_cast<size_t>(i)]} == std::clamp<int64_t>(sum >> 12, 0, 255));
                }
                CHECK(std::count(dst.end() - 16, dst.end(), untouched) == 16);
            }
    }
}

TEST_CASE("pipeline: resize kernels give the same bits on every instruction set") {
    const ResizeKernels& plain = *resize_kernels_for("v2");
    CHECK(resize_kernels_for("v9") == nullptr);
    const Picture src = formula_picture(9, 50);
    for (const char* isa : {"v3", "v4"}) {
        const ResizeKernels* kernels = resize_kernels_for(isa);
        if (!kernels) continue;
        CAPTURE(isa);
        const std::vector<int32_t> first = {0, 3, 17, 30, 38};
        std::vector<int16_t> weights;
        for (int i = 0; i < 5 * 12; ++i)
            weights.push_back(static_cast<int16_t>((i * 7919) % 4000));
        std::vector<uint8_t> a(15), b(15);
        plain.row(src.rgb.data(), first.data(), weights.data(), 12, 14, a.data(), 5);
        kernels->row(src.rgb.data(), first.data(), weights.data(), 12, 14, b.data(), 5);
        CHECK(a == b);
        for (int64_t taps : {1, 2, 5, 8}) {
            std::vector<uint8_t> c(150), d(150);
            plain.column(src.rgb.data(), 150, taps, weights.data(), 14, c.data(), 149);
            kernels->column(src.rgb.data(), 150, taps, weights.data(), 14, d.data(), 149);
            CHECK(c == d);
        }
    }
}
