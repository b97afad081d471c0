#include "cli/self_test_ops.h"

#include <cmath>
#include <limits>

#include "backend/step_state.h"
#include "base/error.h"

namespace rn50::doctor {

namespace {

ConvDesc describe(const Side& side, int64_t batch, int64_t height, int64_t width, int64_t in, int64_t out,
                  int64_t kernel, int64_t stride) {
    ConvDesc desc;
    desc.name = cat("self-test ", kernel, "x", kernel);
    desc.batch = batch;
    desc.height = height;
    desc.width = width;
    desc.in_channels = in;
    desc.out_channels = out;
    desc.kernel = kernel;
    desc.stride = stride;
    desc.pad = kernel / 2;
    desc.dtype = desc.src_dtype = side.act;
    desc.tf32 = side.tf32;
    return desc;
}
ConvDesc pointwise(const Side& side) {
    return describe(side, 3, 7, 5, 24, 40, 1, 1);
}
ConvDesc strided(const Side& side) {
    return describe(side, 2, 9, 13, 20, 36, 3, 2);
}
ConvDesc square(const Side& side) {
    return describe(side, 2, 14, 14, 64, 64, 3, 1);
}

/// Weights that keep the size of the values, about.
Tensor weights_of(Side& side, const ConvDesc& desc) {
    const double terms = static_cast<double>(desc.kernel * desc.kernel * desc.in_channels);
    return side.weights(desc.weights_shape(), 1, std::ldexp(1.0f, -std::ilogb(std::sqrt(terms))));
}

void conv_forward(Side& side, const ConvDesc& desc, const Activation& src) {
    const Tensor dst = side.output(desc.dtype, desc.dst_shape());
    const Tensor stats = side.output(DType::f32, {2, desc.out_channels});
    side.backend.conv(desc)->forward(side.ctx, src, weights_of(side, desc), dst, stats);
    side.give(dst);
    side.give(stats.slice(0, 1));
    side.give(stats.slice(1, 1));
}
void conv_forward(Side& side, const ConvDesc& desc) {
    conv_forward(side, desc, {side.input(desc.src_shape(), 2), side.norm(desc.in_channels, 3), true});
}
void stem_forward(Side& side) {
    ConvDesc desc = describe(side, 2, 17, 19, 3, 20, 7, 2);
    desc.src_dtype = DType::u8;
    Norm norm = side.norm(3, 3);
    norm.scale = side.input_f32({3}, 4, 0.015, 0.02);
    norm.shift = side.input_f32({3}, 5, -2.2, -1.8);
    conv_forward(side, desc, {side.picture(desc.src_shape(), 2), norm, false});
}

/// A DiffSrc that adds or overwrites, clips, and gathers the sums of one or two norms.
DiffSrc leave(Side& side, const Shape& shape, Write write, int norms) {
    DiffSrc left;
    left.diff = write == Write::add ? side.input(shape, 40) : side.output(side.act, shape);
    left.write = write;
    left.at = {side.input(shape, 41), side.norm(shape[3], 42), true};
    for (int i = 0; i < norms; ++i) {
        const uint64_t seed = 50 + 10 * static_cast<uint64_t>(i);
        left.norms[i] = {side.input(shape, seed), side.input_f32({shape[3]}, seed + 1, -1, 1),
                         side.input_f32({shape[3]}, seed + 2, 0.5, 2), side.output(DType::f32, {2, shape[3]})};
    }
    return left;
}
void give(Side& side, const DiffSrc& left) {
    side.give(left.diff);
    for (const NormSums& norm : left.norms)
        if (norm) side.give(norm.sums);
}

void conv_backward(Side& side, const ConvDesc& desc, Write write, int norms) {
    const Shape channels{desc.out_channels};
    const Activation src{side.input(desc.src_shape(), 2), side.norm(desc.in_channels, 3), true};
    const NormGradient gradient{side.input_f32(channels, 30, -2, 2), side.input_f32(channels, 31, -0.3, 0.3),
                                side.input_f32(channels, 32, -0.3, 0.3), side.input_f32(channels, 33, -1, 1)};
    const DiffDst diff_dst{side.input(desc.dst_shape(), 34), side.input(desc.dst_shape(), 35), gradient};
    const DiffSrc left = leave(side, desc.src_shape(), write, norms);
    const Tensor diff_weights = write == Write::add ? side.input_f32(desc.weights_shape(), 36, -1, 1)
                                                    : side.output(DType::f32, desc.weights_shape());
    side.backend.conv(desc)->backward(side.ctx, src, weights_of(side, desc), diff_dst, &left, diff_weights, write);
    give(side, left);
    side.give(diff_weights);
}

void conv_infer(Side& side, ConvDesc desc) {
    desc.training = false;
    const auto conv = side.backend.conv(desc);
    const Tensor packed = side.output(DType::u8, {conv->packed_bytes()});
    conv->pack(side.ctx, weights_of(side, desc), side.norm(desc.out_channels, 3), packed);
    const Tensor dst = side.output(desc.dtype, desc.dst_shape());
    conv->infer(side.ctx, {side.input(desc.src_shape(), 2), {}, false}, packed, side.input(desc.dst_shape(), 4), true,
                dst);
    side.give(dst);
}

LinearDesc classifier(const Side& side) {
    LinearDesc desc;
    desc.name = "self-test fc";
    desc.batch = 6;
    desc.in_features = 72;
    desc.out_features = 11;
    desc.dtype = side.act;
    desc.tf32 = side.tf32;
    return desc;
}
void linear_forward(Side& side) {
    const Tensor dst = side.output(DType::f32, {6, 11});
    side.backend.linear(classifier(side))
        ->forward(side.ctx, side.input({6, 72}, 2), side.weights({11, 72}, 3, 0.125f), side.input_f32({11}, 4, -1, 1),
                  dst);
    side.give(dst);
}
void linear_backward(Side& side) {
    const Tensor diff_src = side.output(side.act, {6, 72}), diff_weights = side.input_f32({11, 72}, 5, -1, 1),
                 diff_bias = side.input_f32({11}, 6, -1, 1);
    side.backend.linear(classifier(side))
        ->backward(side.ctx, side.input({6, 72}, 2), side.weights({11, 72}, 3, 0.125f), side.weights({6, 11}, 4, 1),
                   diff_src, diff_weights, diff_bias, Write::add);
    side.give(diff_src);
    side.give(diff_weights);
    side.give(diff_bias);
}

void join(Side& side) {
    const Shape shape{2, 5, 7, 20};
    const Tensor dst = side.output(side.act, shape);
    side.backend.join(side.ctx, {side.input(shape, 1), side.norm(20, 2), false},
                      {side.input(shape, 6), side.norm(20, 7), false}, dst);
    side.give(dst);
}
void max_pool(Side& side) {
    const Tensor dst = side.output(side.act, {2, 5, 7, 20});
    side.backend.max_pool(side.ctx, {side.input({2, 9, 14, 20}, 1), side.norm(20, 2), true}, dst);
    side.give(dst);
}
void max_pool_backward(Side& side) {
    const Shape shape{2, 9, 14, 20};
    const DiffSrc left = leave(side, shape, Write::overwrite, 1);
    side.backend.max_pool_backward(side.ctx, {side.input(shape, 1), side.norm(20, 2), true},
                                   side.input({2, 5, 7, 20}, 6), left);
    give(side, left);
}
void avg_pool(Side& side) {
    const Tensor dst = side.output(side.act, {3, 44});
    side.backend.avg_pool(side.ctx, side.input({3, 7, 6, 44}, 1), dst);
    side.give(dst);
}
void avg_pool_backward(Side& side) {
    const DiffSrc left = leave(side, {3, 7, 6, 44}, Write::overwrite, 2);
    side.backend.avg_pool_backward(side.ctx, side.input({3, 44}, 1), left);
    give(side, left);
}
void dropout(Side& side) {
    const Tensor dst = side.output(side.act, {5, 77});
    side.backend.dropout(side.ctx, side.input({5, 77}, 1), dst, 0.3f, {7, side.labels({11}), 3});
    side.give(dst);
}

void norm_from_batch(Side& side) {
    const Norm norm = side.output_norm(37);
    const Tensor observed = side.output(DType::f32, {2, 37});
    side.backend.norm_from_batch(side.ctx, side.input_f32({2, 37}, 1, 0, 5), 90, side.input_f32({37}, 2, -2, 2),
                                 side.input_f32({37}, 3, -1, 1), 1e-5f, norm, observed);
    side.give(norm);
    side.give(observed);
}
void norm_from_running(Side& side) {
    const Norm norm = side.output_norm(37);
    side.backend.norm_from_running(side.ctx, side.input_f32({2, 37}, 1, 0, 5), side.input_f32({37}, 2, -2, 2),
                                   side.input_f32({37}, 3, -1, 1), 1e-5f, norm);
    side.give(norm);
}
void norm_backward(Side& side) {
    const NormGradient gradient{
        side.output(DType::f32, {37}), side.output(DType::f32, {37}), side.output(DType::f32, {37}), {}};
    const Tensor diff_gamma = side.input_f32({37}, 7, -1, 1), diff_beta = side.input_f32({37}, 8, -1, 1);
    side.backend.norm_backward(side.ctx, side.input_f32({2, 37}, 1, -5, 5), 90, side.norm(37, 2),
                               side.input_f32({37}, 6, -2, 2), gradient, diff_gamma, diff_beta, Write::add);
    for (const Tensor* part : {&gradient.factor, &gradient.mean_dz, &gradient.slope, &diff_gamma, &diff_beta})
        side.give(*part);
}
void norm_update_running(Side& side) {
    const Tensor running = side.input_f32({2, 37}, 1, 0, 5);
    side.backend.norm_update_running(side.ctx, side.input_f32({2, 37}, 2, 0, 5), running, 0.1f, side.put(StepState{}));
    side.give(running);
}
void merge_statistics(Side& side) {
    const Tensor stats = side.output(DType::f32, {2, 37});
    side.backend.merge_statistics(side.ctx, side.input_f32({3, 2, 37}, 1, 0, 5), 90, stats);
    side.give(stats);
}
void sum_parts(Side& side) {
    const Tensor sums = side.output(DType::f32, {2, 37});
    side.backend.sum_parts(side.ctx, side.input_f32({3, 2, 37}, 1, -5, 5), sums);
    side.give(sums);
}

void softmax_cross_entropy(Side& side) {
    StepState state;
    state.loss_scale = 1024;
    const Tensor loss = side.output(DType::f32, {6}), diff_logits = side.output(DType::f32, {6, 11});
    side.backend.softmax_cross_entropy(side.ctx, side.input_f32({6, 11}, 1, -4, 4), side.labels({3, 0, 10, 7, 7, 1}),
                                       0.1f, side.put(state), loss, diff_logits);
    side.give(loss);
    side.give(diff_logits);
}

/// A good step, then one whose gradients hold an infinity.
void check_gradients(Side& side) {
    ScalePolicy policy;
    policy.dynamic = true;
    policy.interval = 1;
    StepState state;
    state.loss_scale = 1024;
    const Tensor on_device = side.put(state), gradients = side.input_f32({5003}, 1, -3000, 3000);
    const Tensor divisor = side.input_f32({1}, 2, 1.3, 1.4);
    side.backend.check_gradients(side.ctx, gradients, 1.5f, policy, on_device, divisor);
    side.give_state(on_device);
    const float infinity = std::numeric_limits<float>::infinity();
    Tensor one = gradients.slice(4711, 1);
    side.backend.copy_in(side.ctx, &infinity, one);
    side.backend.check_gradients(side.ctx, gradients, 1.5f, policy, on_device);
    StepState after;
    side.backend.copy_out(side.ctx, on_device, &after);
    side.outputs.push_back({static_cast<double>(after.loss_scale)});
    side.outputs.push_back({static_cast<double>(after.skip)});
    side.outputs.push_back({static_cast<double>(after.skipped)});
}

void optimize(Side& side, OptimizerDesc::Kind kind) {
    OptimizerDesc desc;
    desc.kind = kind;
    desc.weight_decay = 0.01f;
    desc.ranges = {{0, 1200, true}, {1203, 2999, false}};  // neither begins nor ends at a vector's edge
    StepState state;
    state.lr = 0.01f;
    state.multiplier = 0.5f;
    state.t = 3;
    const bool adamw = kind == OptimizerDesc::Kind::adamw;
    const Tensor parameters = side.input_f32({3001}, 1, -1, 1), moment1 = side.input_f32({3001}, 3, -0.1, 0.1);
    const Tensor moment2 = adamw ? side.input_f32({3001}, 4, 0.001, 0.1) : Tensor{};
    side.backend.optimize(side.ctx, desc, parameters, side.input_f32({3001}, 2, -1, 1), moment1, moment2,
                          side.put(state));
    side.give(parameters);
    side.give(moment1);
    if (adamw) side.give(moment2);
}

void zero(Side& side) {
    const Tensor dst = side.output(DType::f32, {1025});
    side.backend.zero(side.ctx, dst);
    side.give(dst);
}

/// To both 16-bit types and back; large values to bf16, such as are subnormal in f16 to both.
void convert(Side& side) {
    const auto there_and_back = [&](const Tensor& src, DType dtype) {
        const Tensor half = side.output(dtype, src.shape), back = side.output(DType::f32, src.shape);
        side.backend.convert(side.ctx, src, half);
        side.backend.convert(side.ctx, half, back);
        side.give(back);
    };
    there_and_back(side.input_f32({1037}, 1, -1e30, 1e30), DType::bf16);
    there_and_back(side.input_f32({1037}, 2, -1e-4, 1e-4), DType::bf16);
    there_and_back(side.input_f32({1037}, 2, -1e-4, 1e-4), DType::f16);
}

/// All that may happen to a picture's pixels, to one or the other of four.
void augment(Side& side) {
    const int64_t size = 37;
    const Tensor src = side.picture({4, size, size, 3}, 1), dst = side.output(DType::u8, src.shape);
    std::vector<pixel::Changes> changes(4);
    for (uint8_t i = 0; i < 4; ++i) {
        changes[i].key = {1, i, 0};
        changes[i].turns = i;
        changes[i].flip_horizontal = i % 2;
        changes[i].flip_vertical = i / 2;
        for (uint8_t kind = 0; kind < 3; ++kind) {
            changes[i].factors[kind] = pixel::fixed_factor(0.75f + 0.25f * static_cast<float>((i + kind) % 3));
            changes[i].order[kind] = static_cast<uint8_t>((i + kind) % 3);
        }
        changes[i].fill[0] = 124;
        changes[i].fill_noise = i % 2;
        changes[i].erased = {3, 5, 7 * i, 11};
    }
    side.backend.augment(side.ctx, src, side.put(changes), dst);
    side.give(dst);
}

}  // namespace

const std::vector<Check>& self_test_checks() {
    static const std::vector<Check> checks{
        {"conv 7x7 of a picture", false, stem_forward},
        {"conv 1x1", false, [](Side& side) { conv_forward(side, pointwise(side)); }},
        {"conv 3x3", false, [](Side& side) { conv_forward(side, square(side)); }},
        {"conv 3x3 stride 2", false, [](Side& side) { conv_forward(side, strided(side)); }},
        {"conv 1x1 backward", false, [](Side& side) { conv_backward(side, pointwise(side), Write::add, 2); }},
        {"conv 3x3 backward", false, [](Side& side) { conv_backward(side, square(side), Write::overwrite, 1); }},
        {"conv 3x3 stride 2 backward", false,
         [](Side& side) { conv_backward(side, strided(side), Write::overwrite, 1); }},
        {"conv 1x1 folded", false, [](Side& side) { conv_infer(side, pointwise(side)); }},
        {"conv 3x3 folded", false, [](Side& side) { conv_infer(side, square(side)); }},
        {"linear", false, linear_forward},
        {"linear backward", false, linear_backward},
        {"join", false, join},
        {"max pool", false, max_pool},
        {"max pool backward", false, max_pool_backward},
        {"average pool", false, avg_pool},
        {"average pool backward", false, avg_pool_backward},
        {"dropout", false, dropout},
        {"norm from batch", true, norm_from_batch},
        {"norm from running", true, norm_from_running},
        {"norm backward", true, norm_backward},
        {"norm update running", true, norm_update_running},
        {"norm merge statistics", true, merge_statistics},
        {"norm sum parts", true, sum_parts},
        {"softmax cross-entropy", true, softmax_cross_entropy},
        {"check gradients", true, check_gradients},
        {"AdamW", true, [](Side& side) { optimize(side, OptimizerDesc::Kind::adamw); }},
        {"SGD", true, [](Side& side) { optimize(side, OptimizerDesc::Kind::sgd); }},
        {"zero and copy", true, zero},
        {"convert", true, convert},
        {"augment", true, augment},
    };
    return checks;
}

}  // namespace rn50::doctor
