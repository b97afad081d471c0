// The kernel that augments batches, on the emulator, bit for bit beside the CPU's renderer.
#define RN50_SIMT
#include <doctest/doctest.h>

#include "augment.h"
#include "pipeline/augment.h"
#include "pipeline_support.h"
#include "simt_backend.h"

using namespace rn50;
using namespace rn50::test;

TEST_CASE("augment kernel: turns, flips, colour and erasing are the CPU's, bit for bit") {
    for (const EmulatorOrder order : {EmulatorOrder::forward, EmulatorOrder::backward, EmulatorOrder::shuffled})
        for (const int channels : {3, 1})
            for (const int64_t size : {19, 40}) {
                CAPTURE(test::name_of(order));
                CAPTURE(cat(channels, " channels, ", size, " pixels"));
                set_emulator_order(order);
                PictureOptions options;
                options.augment = Augment::flip;
                options.image_size = size;
                options.channels = channels;
                options.flip_vertical = options.rotate90 = true;
                options.jitter_brightness = options.jitter_contrast = options.jitter_saturation = 0.5f;
                options.erasing = 0.6;
                const int64_t n = 9, bytes = size * size * channels;
                std::vector<uint8_t> src, expected, one(static_cast<size_t>(bytes));
                std::vector<pixel::Changes> changes;
                for (int64_t i = 0; i < n; ++i) {
                    const Picture picture = formula_picture(size, size + i);
                    options.erasing_noise = i % 2 == 1;
                    AugmentParameters drawn = draw_augment(options, picture.height, picture.width, 11, 1, i);
                    if (i == 0) drawn.contrast = 1;  // the sum is then left out
                    render(picture, options, nullptr, one.data());
                    src.insert(src.end(), one.begin(), one.end());
                    render(picture, options, &drawn, one.data());
                    expected.insert(expected.end(), one.begin(), one.end());
                    changes.push_back(changes_of(drawn, options));
                }
                std::vector<uint8_t> got(src.size(), 7);
                std::vector<int64_t> sums(static_cast<size_t>(n), -1);
                cuda::augment_pictures(nullptr, src.data(), changes.data(), sums.data(), got.data(), n, size, channels);
                CHECK(got == expected);
            }
}

TEST_CASE("augment kernel: what it cannot do is refused") {
    uint8_t pixel[3] = {}, to[3] = {};
    const pixel::Changes changes{};
    int64_t sum = 0;
    CHECK_THROWS_AS(cuda::augment_pictures(nullptr, pixel, &changes, &sum, pixel, 1, 1, 3), Error);
    CHECK_THROWS_AS(cuda::augment_pictures(nullptr, pixel, &changes, &sum, to, 1, 1, 2), Error);
    CHECK_THROWS_AS(cuda::augment_pictures(nullptr, pixel, &changes, &sum, to, 0, 1, 3), Error);
}
