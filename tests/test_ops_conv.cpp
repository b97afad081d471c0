// Convolution of a pending activation, its statistics, and its backward, against double precision.
#include <doctest/doctest.h>

#include <cmath>

#include "base/error.h"
#include "op_support.h"

using namespace rn50;
using namespace rn50::test;

namespace {

struct Geometry {
    int64_t batch, height, width, in, out, kernel, stride, pad;
};

// Odd sizes on purpose: channels that fill no vector register, one pixel, one picture, strides that leave a rest.
const Geometry geometries[] = {
    {1, 1, 1, 5, 3, 1, 1, 0},     {3, 7, 5, 13, 19, 1, 1, 0},   {2, 9, 7, 16, 32, 1, 2, 0},  {1, 8, 8, 24, 40, 3, 1, 1},
    {3, 7, 9, 12, 20, 3, 2, 1},   {5, 1, 1, 7, 9, 3, 1, 1},     {1, 3, 3, 8, 8, 3, 2, 1},    {2, 2, 1, 33, 17, 1, 2, 0},
    {2, 14, 14, 64, 64, 3, 1, 1}, {4, 7, 7, 128, 256, 1, 1, 0}, {1, 12, 11, 3, 24, 7, 2, 3},
};

ConvDesc describe(const Geometry& g, DType src_dtype, DType dtype) {
    ConvDesc desc;
    desc.name = cat("conv ", g.batch, "x", g.height, "x", g.width, "x", g.in, " -> ", g.out, ", kernel ", g.kernel,
                    ", stride ", g.stride);
    desc.batch = g.batch;
    desc.height = g.height;
    desc.width = g.width;
    desc.in_channels = g.in;
    desc.out_channels = g.out;
    desc.kernel = g.kernel;
    desc.stride = g.stride;
    desc.pad = g.pad;
    desc.src_dtype = src_dtype;
    desc.dtype = dtype;
    return desc;
}

enum class Source { plain, normed, normed_relu, plain_relu };

naive::Pending some_source(const ConvDesc& desc, Source kind, uint64_t seed) {
    naive::Pending src;
    src.raw = uniform(desc.src_shape(), desc.dtype, seed);
    if (kind == Source::normed || kind == Source::normed_relu) src.norm = some_norm(desc.in_channels, seed + 10);
    src.relu = kind == Source::normed_relu || kind == Source::plain_relu;
    return src;
}

/// A picture: bytes, and ImageNet's mean and std as its pending normalisation.
naive::Pending some_picture(const ConvDesc& desc, uint64_t seed) {
    naive::Pending src;
    src.raw = bytes_0_255(desc.src_shape(), seed);
    const double mean[] = {0.485, 0.456, 0.406}, std[] = {0.229, 0.224, 0.225};
    src.norm = some_norm(desc.in_channels, seed);
    for (int64_t c = 0; c < desc.in_channels; ++c) {
        src.norm.scale[c] = static_cast<float>(1 / (255 * std[c]));
        src.norm.shift[c] = static_cast<float>(-mean[c] / std[c]);
    }
    return src;
}

/// Weights that keep the size of the values; each output channel has its own sum, so that means differ from 0.
Array some_weights(const ConvDesc& desc, uint64_t seed) {
    const double size = std::sqrt(3.0 / static_cast<double>(desc.kernel * desc.kernel * desc.in_channels));
    return uniform(desc.weights_shape(), seed, -0.8 * size, 1.2 * size);
}

void check_statistics(const Array& stored, const Array& stats) {
    const Array expected = naive::statistics(stored);
    CHECK_NEAR(stats.row(0), expected.row(0), 1e-5);
    // Where every value of a channel is the same, M2 is 0 and double precision itself gives only rounding.
    double size = 0;
    for (int64_t c = 0; c < stats.shape[1]; ++c)
        size += expected[stats.shape[1] + c];
    if (size > 1e-12) CHECK_NEAR(stats.row(1), expected.row(1), 1e-5);
    for (int64_t c = 0; c < stats.shape[1]; ++c) {
        CHECK(stats[stats.shape[1] + c] >= 0);
        if (size <= 1e-12) CHECK(stats[stats.shape[1] + c] <= 1e-10);
    }
}

void check_forward(Rig& rig, const ConvDesc& desc, const naive::Pending& src) {
    INFO(desc.name);
    const Array weights = some_weights(desc, 5);
    const auto conv = rig.conv(desc);
    const Tensor dst = rig.rubbish(rig.act, desc.dst_shape());
    const Tensor stats = rig.rubbish(DType::f32, {2, desc.out_channels});
    const Activation pending = rig.put(src, desc.src_dtype);
    const Tensor uploaded = rig.put_f32(weights);
    conv->forward(rig.ctx, pending, uploaded, dst, stats);
    const Array stored = rig.get(dst);
    CHECK_NEAR(stored, naive::conv(desc, naive::value(src), weights), rig.tolerance);
    // Statistics are those of dst as stored, so its own rounding is no excuse.
    check_statistics(stored, rig.get(stats));

    rig.backend.memory().fill(dst.data, 0xFF, dst.bytes());
    conv->forward(rig.ctx, pending, uploaded, dst, Tensor{});
    CHECK_NEAR(rig.get(dst), stored, rig.tolerance);
}

}  // namespace

TEST_CASE("conv forward equals the double-precision convolution of the pending value, and its statistics") {
    for (const Geometry& geometry : geometries)
        for (const Source kind : {Source::plain, Source::normed, Source::normed_relu, Source::plain_relu})
            for_each_rig([&](Rig& rig) {
                const ConvDesc desc = describe(geometry, rig.act, rig.act);
                check_forward(rig, desc, some_source(desc, kind, 1));
            });
}

TEST_CASE("conv forward reads u8 pictures through their pending mean and std") {
    for (const Geometry& geometry : {Geometry{2, 17, 19, 3, 20, 7, 2, 3}, Geometry{1, 32, 32, 3, 64, 7, 2, 3},
                                     Geometry{3, 5, 6, 3, 8, 3, 1, 1}, Geometry{2, 17, 19, 1, 20, 7, 2, 3}})
        for_each_rig([&](Rig& rig) {
            const ConvDesc desc = describe(geometry, DType::u8, rig.act);
            check_forward(rig, desc, some_picture(desc, 3));
        });
}

TEST_CASE("zero padding comes after the shift and the ReLU") {
    // One channel, raw 0, shift 1: the value is 1 inside and 0 in the padding, so dst counts the pixels in the window.
    for_each_rig([](Rig& rig) {
        const ConvDesc desc = describe({1, 3, 3, 1, 1, 3, 1, 1}, rig.act, rig.act);
        naive::Pending src{Array(desc.src_shape()), some_norm(1, 1), true};
        src.norm.shift[0] = 1;
        const Tensor dst = rig.rubbish(rig.act, desc.dst_shape());
        rig.conv(desc)->forward(rig.ctx, rig.put(src), rig.put_f32(Array(desc.weights_shape(), 1)), dst, {});
        const std::vector<double> counts{4, 6, 4, 6, 9, 6, 4, 6, 4};
        CHECK(rig.get(dst).values == counts);
    });
}

TEST_CASE("statistics of flat pictures keep their small variance") {
    for (const int64_t batch : {1, 3})
        for_each_rig([&](Rig& rig) {
            // Mean 100, std 0.01: sums of squares in f32 would lose the variance altogether.
            const ConvDesc desc = describe({batch, 24, 24, 4, 12, 1, 1, 0}, rig.act, rig.act);
            naive::Pending src;
            src.raw = uniform(desc.src_shape(), rig.act, 7, 100 - 0.01 * std::sqrt(3), 100 + 0.01 * std::sqrt(3));
            Array weights = uniform(desc.weights_shape(), 8, 0.2, 0.3);
            const Tensor dst = rig.rubbish(rig.act, desc.dst_shape());
            const Tensor stats = rig.rubbish(DType::f32, {2, desc.out_channels});
            rig.conv(desc)->forward(rig.ctx, rig.put(src), rig.put_f32(weights), dst, stats);
            check_statistics(rig.get(dst), rig.get(stats));
        });
}

TEST_CASE("statistics of a constant channel are its value and 0") {
    for_each_rig([](Rig& rig) {
        const ConvDesc desc = describe({2, 9, 9, 1, 9, 1, 1, 0}, rig.act, rig.act);
        const naive::Pending src{Array(desc.src_shape(), 64), {}, false};
        const Tensor stats = rig.rubbish(DType::f32, {2, 9});
        rig.conv(desc)->forward(rig.ctx, rig.put(src), rig.put_f32(Array(desc.weights_shape(), 3)),
                                rig.rubbish(rig.act, desc.dst_shape()), stats);
        const Array got = rig.get(stats);
        for (int64_t c = 0; c < 9; ++c) {
            CHECK(got[c] == doctest::Approx(192).epsilon(1e-6));
            CHECK(got[9 + c] >= 0);
            CHECK(got[9 + c] <= 162 * 192e-6 * 192e-6);  // a deviation of a millionth of the value
        }
    });
}

namespace {

/// How conv backward is asked to leave the gradient of its src.
enum class Leave { nowhere, plainly, added, clipped_one_norm, added_clipped_two_norms };

struct NormInput {
    Array raw, mean, inv_std;
};

NormInput some_norm_input(const Shape& shape, DType act, uint64_t seed) {
    const Shape channels{shape[3]};
    return {uniform(shape, act, seed), uniform(channels, seed + 1), uniform(channels, seed + 2, 0.5, 2)};
}

/// A DiffSrc on the device with what it should come to.
struct Left {
    DiffSrc device;
    bool add = false;
    Array before;
    naive::Pending at;
    std::vector<NormInput> norms;

    void check(Rig& rig, const Array& g) const {
        const Array diff = rig.get(device.diff);
        CHECK_NEAR(diff, naive::leave(g, add ? &before : nullptr, at), rig.tolerance);
        for (size_t i = 0; i < norms.size(); ++i) {
            // Gathered from diff as stored: the rounding of diff itself is no excuse.
            const Array sums = rig.get(device.norms[i].sums);
            const Array expected = naive::norm_sums(diff, norms[i].raw, norms[i].mean, norms[i].inv_std);
            CHECK_NEAR(sums.row(0), expected.row(0), 2e-5);
            CHECK_NEAR(sums.row(1), expected.row(1), 2e-5);
        }
    }
};

Left some_left(Rig& rig, const Shape& shape, Leave leave, const naive::Pending& src, uint64_t seed) {
    Left left;
    left.add = leave == Leave::added || leave == Leave::added_clipped_two_norms;
    left.before = uniform(shape, rig.act, seed);
    left.device.diff = left.add ? rig.put_act(left.before) : rig.rubbish(rig.act, shape);
    left.device.write = left.add ? Write::add : Write::overwrite;
    if (leave == Leave::clipped_one_norm) left.at = src;
    if (leave == Leave::added_clipped_two_norms) left.at = {uniform(shape, rig.act, seed + 1), {}, true};
    left.device.at = rig.put(left.at);
    const int norms = leave == Leave::clipped_one_norm ? 1 : leave == Leave::added_clipped_two_norms ? 2 : 0;
    for (int i = 0; i < norms; ++i) {
        left.norms.push_back(some_norm_input(shape, rig.act, seed + 10 * static_cast<uint64_t>(i + 1)));
        const NormInput& input = left.norms.back();
        left.device.norms[i] = {rig.put_act(input.raw), rig.put_f32(input.mean), rig.put_f32(input.inv_std),
                                rig.rubbish(DType::f32, {2, shape[3]})};
    }
    return left;
}

void check_backward(Rig& rig, const ConvDesc& desc, const naive::Pending& src, Leave leave, Write write) {
    INFO(desc.name, ", DiffSrc ", static_cast<int>(leave), ", weights ", write == Write::add ? "added" : "overwritten");
    const Array weights = some_weights(desc, 5);
    const Array dz = uniform(desc.dst_shape(), desc.dtype, 21), raw = uniform(desc.dst_shape(), desc.dtype, 22);
    const naive::NormGradient gradient = some_norm_gradient(desc.out_channels, 23);
    const Array d_raw = naive::apply(gradient, dz, raw);
    const Array diff_before = uniform(desc.weights_shape(), 24);

    const auto conv = rig.conv(desc);
    const Left left = leave == Leave::nowhere ? Left{} : some_left(rig, desc.src_shape(), leave, src, 30);
    const Tensor diff_weights =
        write == Write::add ? rig.put_f32(diff_before) : rig.rubbish(DType::f32, desc.weights_shape());
    conv->backward(rig.ctx, rig.put(src, desc.src_dtype), rig.put_f32(weights),
                   {rig.put_act(dz), rig.put_act(raw), rig.put(gradient)},
                   leave == Leave::nowhere ? nullptr : &left.device, diff_weights, write);

    Array expected = naive::conv_backward_weights(desc, naive::value(src), d_raw);
    if (write == Write::add)
        for (int64_t i = 0; i < expected.count(); ++i)
            expected[i] += diff_before[i];
    CHECK_NEAR(rig.get(diff_weights), expected, rig.tolerance);
    if (leave != Leave::nowhere) left.check(rig, naive::conv_backward_src(desc, d_raw, weights));
}

}  // namespace

TEST_CASE("conv backward equals double precision, wherever its gradient is left") {
    for (const Geometry& geometry : geometries)
        for (const Leave leave :
             {Leave::nowhere, Leave::plainly, Leave::added, Leave::clipped_one_norm, Leave::added_clipped_two_norms})
            for_each_rig([&](Rig& rig) {
                const ConvDesc desc = describe(geometry, rig.act, rig.act);
                const Source kind = leave == Leave::added ? Source::plain : Source::normed_relu;
                const Write write = leave == Leave::added || leave == Leave::nowhere ? Write::add : Write::overwrite;
                check_backward(rig, desc, some_source(desc, kind, 1), leave, write);
            });
}

TEST_CASE("conv gives the same bits from weights that are rounded already, where it takes them") {
    int taken = 0;
    for (const Geometry& geometry : {Geometry{2, 7, 9, 16, 24, 3, 2, 1}, Geometry{2, 5, 5, 13, 19, 1, 1, 0}})
        for_each_rig([&](Rig& rig) {
            const ConvDesc desc = describe(geometry, rig.act, rig.act);
            INFO(desc.name);
            const auto conv = rig.conv(desc);
            const Tensor weights = rig.put_f32(uniform(desc.weights_shape(), 5));
            const Activation src = rig.put(some_source(desc, Source::normed_relu, 1));
            const DiffDst diff_dst{rig.put_act(uniform(desc.dst_shape(), rig.act, 2)),
                                   rig.put_act(uniform(desc.dst_shape(), rig.act, 3)),
                                   rig.put(some_norm_gradient(desc.out_channels, 4))};
            const auto results = [&](const Tensor& with) {
                const Tensor dst = rig.rubbish(rig.act, desc.dst_shape()),
                             diff_weights = rig.rubbish(DType::f32, desc.weights_shape());
                DiffSrc diff_src;
                diff_src.diff = rig.rubbish(rig.act, desc.src_shape());
                conv->forward(rig.ctx, src, with, dst, {});
                conv->backward(rig.ctx, src, with, diff_dst, &diff_src, diff_weights, Write::overwrite);
                return rig.bytes(dst) + rig.bytes(diff_src.diff) + rig.bytes(diff_weights);
            };
            if (rig.act == DType::f32) {
                CHECK(!conv->takes_rounded_weights());
                return;
            }
            const Tensor rounded = rig.rubbish(rig.act, desc.weights_shape());
            rig.backend.convert(rig.ctx, weights, rounded);
            if (conv->takes_rounded_weights()) {
                ++taken;
                CHECK(results(rounded) == results(weights));
            } else {
                CHECK_THROWS_AS(results(rounded), Error);
            }
        });
    CHECK(taken > 0);
}

TEST_CASE("conv backward of the joined block outputs clips by a value without norm") {
    for (const Geometry& geometry : {Geometry{2, 6, 5, 24, 12, 1, 1, 0}, Geometry{1, 7, 7, 20, 28, 1, 2, 0}})
        for_each_rig([&](Rig& rig) {
            const ConvDesc desc = describe(geometry, rig.act, rig.act);
            check_backward(rig, desc, some_source(desc, Source::plain_relu, 1), Leave::clipped_one_norm,
                           Write::overwrite);
        });
}

TEST_CASE("conv backward of the stem reads u8 pictures and leaves no gradient for them") {
    for (const Geometry& geometry : {Geometry{2, 17, 19, 3, 20, 7, 2, 3}, Geometry{1, 32, 32, 3, 64, 7, 2, 3},
                                     Geometry{2, 17, 19, 1, 20, 7, 2, 3}})
        for (const Write write : {Write::overwrite, Write::add})
            for_each_rig([&](Rig& rig) {
                const ConvDesc desc = describe(geometry, DType::u8, rig.act);
                check_backward(rig, desc, some_picture(desc, 3), Leave::nowhere, write);
            });
}

TEST_CASE("conv backward refuses to leave a gradient for u8 pictures") {
    for_each_fp32_rig([](Rig& rig) {
        const ConvDesc desc = describe({1, 8, 8, 3, 4, 3, 1, 1}, DType::u8, rig.act);
        const naive::Pending src = some_picture(desc, 3);
        const Left left = some_left(rig, desc.src_shape(), Leave::plainly, src, 30);
        const Tensor diff_weights = rig.rubbish(DType::f32, desc.weights_shape());
        CHECK_THROWS_AS(
            rig.conv(desc)->backward(rig.ctx, rig.put(src, DType::u8), rig.put_f32(some_weights(desc, 5)),
                                     {rig.put_act(uniform(desc.dst_shape(), 1)),
                                      rig.put_act(uniform(desc.dst_shape(), 2)), rig.put(some_norm_gradient(4, 3))},
                                     &left.device, diff_weights, Write::overwrite),
            Error);
    });
}

TEST_CASE("a gradient is clipped exactly where the forward's own rounding let the value pass") {
    // raw * scale + shift is 0 in exact arithmetic and tiny after the rounding of the product, or the other way round.
    for_each_fp32_rig([](Rig& rig) {
        const ConvDesc desc = describe({1, 4, 16, 2, 4, 1, 1, 0}, rig.act, rig.act);
        naive::Pending src{uniform(desc.src_shape(), 3), some_norm(2, 4), true};
        for (int64_t c = 0; c < 2; ++c)
            src.norm.scale[c] = static_cast<float>(c ? -1.1 : 0.7);
        const float product = static_cast<float>(src.raw[0]) * static_cast<float>(src.norm.scale[0]);
        for (int64_t i = 0; i < src.raw.count(); i += 4)
            src.raw[i] = src.raw[0];
        src.norm.shift[0] = static_cast<double>(-product);
        src.norm.shift[1] = 0;
        for (int64_t i = 1; i < src.raw.count(); i += 4)
            src.raw[i] = 0;
        check_backward(rig, desc, src, Leave::clipped_one_norm, Write::overwrite);
    });
}
