#include "pipeline/resize.h"

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "base/math.h"
#include "pipeline/kernels.h"

namespace rn50 {

namespace pipeline {
namespace v2 {
extern const ResizeKernels table;
}
namespace v3 {
extern const ResizeKernels table;
}
namespace v4 {
extern const ResizeKernels table;
}
}  // namespace pipeline

const ResizeKernels* resize_kernels_for(const char* isa) {
    __builtin_cpu_init();
    const bool has_v3 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    const bool has_v4 = has_v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512cd");
    if (!std::strcmp(isa, "v4")) return has_v4 ? &pipeline::v4::table : nullptr;
    if (!std::strcmp(isa, "v3")) return has_v3 ? &pipeline::v3::table : nullptr;
    return std::strcmp(isa, "v2") ? nullptr : &pipeline::v2::table;
}

const ResizeKernels& resize_kernels() {
    static const ResizeKernels& chosen = []() -> const ResizeKernels& {
        const char* asked = std::getenv("RN50_ISA");
        for (const char* isa : {"v4", "v3"}) {
            if (asked && std::strcmp(asked, isa) < 0) continue;
            if (const ResizeKernels* table = resize_kernels_for(isa)) return *table;
        }
        return *resize_kernels_for("v2");
    }();
    return chosen;
}

namespace {

constexpr int64_t max_side = int64_t{1} << 24;

/// Whether all weights are 0 or 1.
bool is_copy(const Box& box, int64_t height, int64_t width) {
    return box.x0 == std::floor(box.x0) && box.y0 == std::floor(box.y0) &&
           box.x1 - box.x0 == static_cast<double>(width) && box.y1 - box.y0 == static_cast<double>(height);
}

}  // namespace

void Resizer::bilinear(const PictureView& src, const Box& box, uint8_t* dst, int64_t dst_h, int64_t dst_w,
                       int64_t dst_stride) {
    RN50_REQUIRE(src.height > 0 && src.width > 0 && src.height < max_side && src.width < max_side && dst_h > 0 &&
                     dst_w > 0 && dst_h < max_side && dst_w < max_side,
                 "resize from ", src.width, "x", src.height, " to ", dst_w, "x", dst_h);
    RN50_REQUIRE(box.x0 >= 0 && box.y0 >= 0 && box.x1 > box.x0 && box.y1 > box.y0 &&
                     box.x1 <= static_cast<double>(src.width) && box.y1 <= static_cast<double>(src.height),
                 "box ", box.x0, ",", box.y0, " to ", box.x1, ",", box.y1, " in a picture of ", src.width, "x",
                 src.height);
    if (is_copy(box, dst_h, dst_w)) {
        const uint8_t* row = src.data + static_cast<int64_t>(box.y0) * src.stride + static_cast<int64_t>(box.x0) * 3;
        for (int64_t y = 0; y < dst_h; ++y, row += src.stride, dst += dst_stride)
            std::memcpy(dst, row, static_cast<size_t>(dst_w * 3));
        return;
    }
    horizontal_.make(src.width, box.x0, box.x1, dst_w);
    vertical_.make(src.height, box.y0, box.y1, dst_h);
    const ResizeKernels& kernels = resize_kernels();

    // The horizontal pass, for the rows that the vertical pass reads.
    const int64_t begin = vertical_.first.front(), end = vertical_.first.back() + vertical_.count.back();
    const int64_t row_bytes = dst_w * 3;
    rows_.resize(static_cast<size_t>((end - begin) * row_bytes));
    // The kernel reads groups of taps whole, past the end of the row; near the picture's end there may be nothing
    // there.
    const int64_t reach = (src.width + horizontal_.taps) * 3 + 16;
    const int64_t src_bytes = (src.height - 1) * src.stride + src.width * 3;
    padded_row_.resize(static_cast<size_t>(reach));
    for (int64_t y = begin; y < end; ++y) {
        const uint8_t* row = src.data + y * src.stride;
        if (src_bytes - y * src.stride < reach) {
            std::memcpy(padded_row_.data(), row, static_cast<size_t>(src.width * 3));
            row = padded_row_.data();
        }
        kernels.row(row, horizontal_.first.data(), horizontal_.weights.data(), horizontal_.taps, horizontal_.shift,
                    &rows_[static_cast<size_t>((y - begin) * row_bytes)], dst_w);
    }
    for (int64_t y = 0; y < dst_h; ++y) {
        const auto at = static_cast<size_t>(y);
        kernels.column(&rows_[static_cast<size_t>((vertical_.first[at] - begin) * row_bytes)], row_bytes,
                       vertical_.count[at], &vertical_.weights[at * static_cast<size_t>(vertical_.taps)],
                       vertical_.shift, dst + y * dst_stride, row_bytes);
    }
}

void resize_bilinear_antialias(const uint8_t* src, int64_t src_h, int64_t src_w, const Box& box, uint8_t* dst,
                               int64_t dst_h, int64_t dst_w) {
    Resizer().bilinear({src, src_h, src_w, src_w * 3}, box, dst, dst_h, dst_w, dst_w * 3);
}

}  // namespace rn50
