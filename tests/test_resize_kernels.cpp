// The kernels that resample decoded pictures, on the emulator, bit for bit beside the CPU's.
#define RN50_SIMT
#include <doctest/doctest.h>

#include "pipeline/resize.h"
#include "pipeline_support.h"
#include "resize.h"
#include "simt_backend.h"

using namespace rn50;
using namespace rn50::test;

namespace {

cuda::DeviceFilter view_of(const ResampleFilter& filter) {
    return {filter.first.data(), filter.count.data(), filter.weights.data(), static_cast<int>(filter.taps),
            filter.shift};
}

}  // namespace

TEST_CASE("resize kernels: the CPU's pixels, bit for bit") {
    struct Case {
        int64_t src_h, src_w, dst_h, dst_w;
    };
    // Down by much and by little, up, unevenly, one way each, not at all, and to or from a single pixel.
    for (const Case& size : {Case{301, 213, 32, 32}, Case{40, 37, 32, 32}, Case{9, 11, 32, 32}, Case{200, 20, 31, 33},
                             Case{32, 32, 32, 32}, Case{1, 1, 5, 5}, Case{77, 64, 1, 1}})
        for (const EmulatorOrder order : {EmulatorOrder::forward, EmulatorOrder::shuffled}) {
            CAPTURE(cat(size.src_h, "x", size.src_w, " to ", size.dst_h, "x", size.dst_w));
            set_emulator_order(order);
            const Picture picture = formula_picture(size.src_h, size.src_w);
            const auto h = static_cast<double>(size.src_h), w = static_cast<double>(size.src_w);
            std::vector<uint8_t> expected(static_cast<size_t>(size.dst_h * size.dst_w * 3)), got(expected.size(), 7);
            resize_bilinear_antialias(picture.rgb.data(), size.src_h, size.src_w, {0, 0, w, h}, expected.data(),
                                      size.dst_h, size.dst_w);
            ResampleFilter across, down;
            across.make(size.src_w, 0, w, size.dst_w);
            down.make(size.src_h, 0, h, size.dst_h);
            std::vector<uint8_t> rows(static_cast<size_t>(size.src_h * size.dst_w * 3));
            cuda::resize_picture(nullptr, picture.rgb.data(), size.src_h, size.src_w, view_of(across), view_of(down),
                                 rows.data(), got.data(), size.dst_h, size.dst_w);
            CHECK(got == expected);
        }
}
