// The ops of inference and of the classifier: packed convolutions with a folded norm, and the linear layer.
#include <doctest/doctest.h>

#include <cmath>

#include "op_support.h"

using namespace rn50;
using namespace rn50::test;

namespace {

ConvDesc describe(Shape src, int64_t out, int64_t kernel, int64_t stride, DType src_dtype, DType dtype) {
    ConvDesc desc;
    desc.name = cat("infer ", src.str(), " -> ", out, ", kernel ", kernel, ", stride ", stride);
    desc.batch = src[0];
    desc.height = src[1];
    desc.width = src[2];
    desc.in_channels = src[3];
    desc.out_channels = out;
    desc.kernel = kernel;
    desc.stride = stride;
    desc.pad = kernel / 2;
    desc.src_dtype = src_dtype;
    desc.dtype = dtype;
    desc.training = false;
    return desc;
}

void check_infer(Rig& rig, const ConvDesc& prepared, int64_t batch, const naive::Pending& src, bool with_residual,
                 bool relu) {
    INFO(prepared.name, ", batch ", batch, ", residual ", with_residual, ", relu ", relu);
    ConvDesc desc = prepared;
    desc.batch = batch;
    const double size = 1 / std::sqrt(static_cast<double>(desc.kernel * desc.kernel * desc.in_channels));
    const Array weights = uniform(desc.weights_shape(), 2, -2 * size, 2 * size);
    const naive::Norm norm = some_norm(desc.out_channels, 3);
    const Array residual = with_residual ? uniform(desc.dst_shape(), desc.dtype, 4) : Array{};

    const auto conv = rig.conv(prepared);
    const Tensor packed = rig.rubbish(DType::u8, {conv->packed_bytes()});
    conv->pack(rig.ctx, rig.put_f32(weights), rig.put(norm), packed);
    const Tensor dst = rig.rubbish(rig.act, desc.dst_shape());
    conv->infer(rig.ctx, rig.put(src, desc.src_dtype), packed, rig.put_act(residual), relu, dst);
    const Array expected = naive::infer(desc, naive::value(src), weights, norm, residual, relu);
    CHECK_NEAR(rig.get(dst), expected, rig.tolerance);
    if (!with_residual) return;
    const Tensor in_place = rig.put_act(residual);
    conv->infer(rig.ctx, rig.put(src, desc.src_dtype), packed, in_place, relu, in_place);
    CHECK_NEAR(rig.get(in_place), expected, rig.tolerance);
}

}  // namespace

TEST_CASE("a packed conv equals convolution, norm, residual and ReLU in double precision") {
    struct Geometry {
        Shape src;
        int64_t out, kernel, stride;
    };
    const Geometry geometries[] = {{{3, 7, 5, 13}, 19, 1, 1},
                                   {{1, 9, 9, 16}, 32, 1, 2},
                                   {{2, 7, 9, 12}, 20, 3, 2},
                                   {{5, 1, 1, 7}, 9, 3, 1},
                                   {{2, 8, 8, 64}, 64, 3, 1}};
    for (const Geometry& g : geometries)
        for (const bool residual : {false, true})
            for (const bool relu : {false, true})
                for_each_rig([&](Rig& rig) {
                    const ConvDesc desc = describe(g.src, g.out, g.kernel, g.stride, rig.act, rig.act);
                    check_infer(rig, desc, desc.batch, {uniform(g.src, rig.act, 1), {}, false}, residual, relu);
                });
}

TEST_CASE("a packed conv takes fewer pictures than it was prepared for") {
    for_each_rig([](Rig& rig) {
        const ConvDesc desc = describe({8, 6, 6, 24}, 40, 3, 1, rig.act, rig.act);
        for (const int64_t batch : {1, 3, 4, 8})  // the emulated library refuses odd ones
            check_infer(rig, desc, batch, {uniform({batch, 6, 6, 24}, rig.act, 1), {}, false}, true, true);
    });
}

TEST_CASE("a packed stem reads u8 pictures through their pending mean and std") {
    for (const int64_t channels : {3, 1})
        for_each_rig([&](Rig& rig) {
            const ConvDesc desc = describe({2, 19, 17, channels}, 24, 7, 2, DType::u8, rig.act);
            naive::Pending picture{bytes_0_255(desc.src_shape(), 1), some_norm(channels, 9), false};
            for (int64_t c = 0; c < channels; ++c)
                picture.norm.scale[c] = static_cast<float>(0.015 + 0.002 * static_cast<double>(c));
            for (int64_t c = 0; c < channels; ++c)
                picture.norm.shift[c] = static_cast<float>(-2.1 + 0.2 * static_cast<double>(c));
            check_infer(rig, desc, 2, picture, false, true);
        });
}

TEST_CASE("a packed conv takes a pending source") {
    for_each_rig([](Rig& rig) {
        const ConvDesc desc = describe({2, 5, 5, 10}, 6, 3, 1, rig.act, rig.act);
        check_infer(rig, desc, 2, {uniform(desc.src_shape(), rig.act, 1), some_norm(10, 5), true}, false, false);
    });
}

TEST_CASE("linear forward and backward equal double precision") {
    struct Size {
        int64_t batch, in, out;
    };
    for (const Size& size : {Size{1, 1, 1}, Size{3, 37, 5}, Size{8, 64, 200}, Size{5, 512, 1}, Size{1, 2048, 10}})
        for (const Write write : {Write::overwrite, Write::add})
            for_each_rig([&](Rig& rig) {
                INFO("batch ", size.batch, ", ", size.in, " -> ", size.out, ", ",
                     write == Write::add ? "added" : "overwritten");
                const auto linear = rig.linear({"fc", size.batch, size.in, size.out, rig.act});
                const Shape weights_shape{size.out, size.in};
                const Array src = uniform({size.batch, size.in}, rig.act, 1), bias = uniform({size.out}, 3),
                            weights = uniform(weights_shape, 2), diff_dst = uniform({size.batch, size.out}, 4);
                const Tensor src_on = rig.put_act(src), weights_on = rig.put_f32(weights);
                const Tensor dst = rig.rubbish(DType::f32, {size.batch, size.out});
                linear->forward(rig.ctx, src_on, weights_on, rig.put_f32(bias), dst);
                CHECK_NEAR(rig.get(dst), naive::linear(src, weights, bias), rig.tolerance);

                Array expected_weights = naive::linear_backward_weights(src, diff_dst);
                Array expected_bias = naive::linear_backward_bias(diff_dst);
                const Array before_weights = uniform(weights_shape, 5), before_bias = uniform({size.out}, 6);
                const bool add = write == Write::add;
                const Tensor diff_src = rig.rubbish(rig.act, src.shape);
                const Tensor diff_weights = add ? rig.put_f32(before_weights) : rig.rubbish(DType::f32, weights_shape);
                const Tensor diff_bias = add ? rig.put_f32(before_bias) : rig.rubbish(DType::f32, {size.out});
                linear->backward(rig.ctx, src_on, weights_on, rig.put_f32(diff_dst), diff_src, diff_weights, diff_bias,
                                 write);
                for (int64_t i = 0; add && i < expected_weights.count(); ++i)
                    expected_weights[i] += before_weights[i];
                for (int64_t i = 0; add && i < expected_bias.count(); ++i)
                    expected_bias[i] += before_bias[i];
                CHECK_NEAR(rig.get(diff_src), naive::linear_backward_src(diff_dst, weights), rig.tolerance);
                CHECK_NEAR(rig.get(diff_weights), expected_weights, rig.tolerance);
                CHECK_NEAR(rig.get(diff_bias), expected_bias, rig.tolerance);
            });
}

TEST_CASE("linear takes fewer rows than it was prepared for") {
    for_each_rig([](Rig& rig) {
        const auto linear = rig.linear({"fc", 9, 48, 7, rig.act});
        const Array weights = uniform({7, 48}, 2), bias = uniform({7}, 3);
        for (const int64_t batch : {1, 4, 9}) {
            const Array src = uniform({batch, 48}, rig.act, 1), diff_dst = uniform({batch, 7}, 4);
            const Tensor dst = rig.rubbish(DType::f32, {batch, 7}), diff_src = rig.rubbish(rig.act, {batch, 48}),
                         diff_weights = rig.rubbish(DType::f32, {7, 48}), diff_bias = rig.rubbish(DType::f32, {7});
            linear->forward(rig.ctx, rig.put_act(src), rig.put_f32(weights), rig.put_f32(bias), dst);
            CHECK_NEAR(rig.get(dst), naive::linear(src, weights, bias), rig.tolerance);
            linear->backward(rig.ctx, rig.put_act(src), rig.put_f32(weights), rig.put_f32(diff_dst), diff_src,
                             diff_weights, diff_bias, Write::overwrite);
            CHECK_NEAR(rig.get(diff_src), naive::linear_backward_src(diff_dst, weights), rig.tolerance);
            CHECK_NEAR(rig.get(diff_weights), naive::linear_backward_weights(src, diff_dst), rig.tolerance);
        }
    });
}
