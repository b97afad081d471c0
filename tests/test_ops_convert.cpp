// Conversions to 16 bits and back, against arithmetic in double precision.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "backend/cpu/kernels.h"
#include "base/half.h"
#include "op_support.h"

using namespace rn50;
using namespace rn50::test;

namespace {

/// The value nearest to x that a float of `digits` binary digits and a smallest normal exponent `least` holds, ties to
/// the even one; infinite from `beyond` on.
double nearest(double x, int digits, int least, double beyond) {
    if (x == 0 || std::isnan(x) || std::isinf(x)) return x;
    int exponent = 0;
    std::frexp(x, &exponent);
    const double unit = std::ldexp(1.0, std::max(exponent, least + 1) - digits);
    const double rounded = std::nearbyint(x / unit) * unit;
    return std::abs(rounded) >= beyond ? std::copysign(std::numeric_limits<double>::infinity(), x) : rounded;
}

double nearest(double x, DType dtype) {
    return dtype == DType::f16 ? nearest(x, 11, -14, 65536) : nearest(x, 8, -126, std::ldexp(1.0, 128));
}

/// Values of every exponent, near and at the ties of both types, and those that are no numbers.
std::vector<float> many_values() {
    std::vector<float> values{0.0f, 65504.0f, 65519.996f, 65520.0f, 65536.0f, 1e30f, 3.4e38f, 1e-45f};
    for (int exponent = -150; exponent < 128; ++exponent)
        for (const double mantissa :
             {1.0, 1 + 0x1p-11, 1 + 0x3p-11, 1 + 0x1p-11 + 0x1p-23, 1 + 0x1p-8, 1 + 0x3p-8, 1.999999, 1.2345678})
            values.push_back(static_cast<float>(std::ldexp(mantissa, exponent)));
    for (size_t i = 0, n = values.size(); i < n; ++i)
        values.push_back(-values[i]);
    return values;
}

}  // namespace

TEST_CASE("convert rounds to nearest even in both 16-bit types, and back is exact") {
    const std::vector<float> values = many_values();
    Array src(Shape{static_cast<int64_t>(values.size())});
    for (size_t i = 0; i < values.size(); ++i)
        src[static_cast<int64_t>(i)] = static_cast<double>(values[i]);
    for (const DType dtype : {DType::f16, DType::bf16})
        for (const int64_t offset : {0, 1, 2})  // an odd begin and count; whole packs that begin between two
            for_each_fp32_rig([&](Rig& rig) {
                const int64_t count = src.count() - 2 * offset;
                const Tensor from = rig.put_f32(src).slice(offset, count);
                const Tensor half = rig.rubbish(dtype, src.shape).slice(offset, count);
                const Tensor back = rig.rubbish(DType::f32, src.shape).slice(offset, count);
                rig.backend.convert(rig.ctx, from, half);
                rig.backend.convert(rig.ctx, half, back);
                const Array got = rig.get(back);
                for (int64_t i = 0; i < count; ++i) {
                    const double x = src[i + offset];
                    if (got[i] != nearest(x, dtype))
                        FAIL_CHECK(rig.name, " ", name_of(dtype), ": ", x, " became ", got[i], ", not ",
                                   nearest(x, dtype));
                }
            });
}

TEST_CASE("convert keeps infinities and NaN") {
    const float infinity = std::numeric_limits<float>::infinity();
    for (const DType dtype : {DType::f16, DType::bf16})
        for_each_fp32_rig([&](Rig& rig) {
            const float values[] = {infinity, -infinity, std::nanf("")};
            float got[3];
            const Tensor src = rig.rubbish(DType::f32, {3}), half = rig.rubbish(dtype, {3});
            rig.backend.copy_in(rig.ctx, values, src);
            rig.backend.convert(rig.ctx, src, half);
            rig.backend.convert(rig.ctx, half, src);
            rig.backend.copy_out(rig.ctx, src, got);
            CHECK(got[0] == infinity);
            CHECK(got[1] == -infinity);
            CHECK(std::isnan(got[2]));
        });
}

TEST_CASE("every 16-bit number becomes f32 and itself again, on every instruction set") {
    std::vector<uint16_t> all(65536), back(65536);
    std::vector<float> wide(65536);
    for (size_t i = 0; i < all.size(); ++i)
        all[i] = static_cast<uint16_t>(i);
    for (const char* isa : {"v2", "v3", "v4"}) {
        const cpu::Kernels* kernels = cpu::kernels_for(isa);
        if (kernels == nullptr) continue;
        for (const DType dtype : {DType::f16, DType::bf16}) {
            kernels->convert(all.data(), dtype, wide.data(), DType::f32, 65536);
            kernels->convert(wide.data(), DType::f32, back.data(), dtype, 65536);
            for (size_t i = 0; i < all.size(); ++i) {
                const bool nan = std::isnan(wide[i]);
                if (nan ? !std::isnan(dtype == DType::f16 ? f16_to_f32(back[i]) : bf16_to_f32(back[i]))
                        : all[i] != back[i])
                    FAIL_CHECK(isa, " ", name_of(dtype), ": ", i, " came back as ", back[i]);
            }
        }
    }
}
