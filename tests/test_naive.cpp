// Closes the chain: each naive backward is the derivative of its naive forward, by central differences in double.
#include <doctest/doctest.h>

#include <cmath>

#include "op_support.h"

using namespace rn50;
using namespace rn50::test;

namespace {

double dot(const Array& a, const Array& b) {
    REQUIRE(a.shape == b.shape);
    double sum = 0;
    for (int64_t i = 0; i < a.count(); ++i)
        sum += a[i] * b[i];
    return sum;
}

/// The derivative of `loss` with respect to every element of `x`, which it reads.
template <class Loss>
Array numeric_gradient(Array& x, Loss loss) {
    constexpr double step = 1e-5;
    Array gradient(x.shape);
    for (int64_t i = 0; i < x.count(); ++i) {
        const double value = x[i];
        x[i] = value + step;
        const double above = loss();
        x[i] = value - step;
        gradient[i] = (above - loss()) / (2 * step);
        x[i] = value;
    }
    return gradient;
}

constexpr double tolerance = 1e-7;
constexpr double eps = 1e-5;

ConvDesc describe(Shape src, int64_t out, int64_t kernel, int64_t stride) {
    ConvDesc desc;
    desc.batch = src[0];
    desc.height = src[1];
    desc.width = src[2];
    desc.in_channels = src[3];
    desc.out_channels = out;
    desc.kernel = kernel;
    desc.stride = stride;
    desc.pad = kernel / 2;
    return desc;
}

naive::Norm batch_norm(const Array& raw, const Array& gamma, const Array& beta) {
    return naive::norm_from_batch(naive::statistics(raw), raw.count() / raw.channels(), gamma, beta, eps);
}

naive::NormGradient norm_gradient(const Array& dz, const Array& raw, const naive::Norm& norm, const Array& gamma) {
    const Array sums = naive::norm_sums(dz, raw, norm.mean, norm.inv_std);
    return naive::norm_backward(sums, raw.count() / raw.channels(), norm, gamma);
}

}  // namespace

TEST_CASE("naive unit: raw, norm, ReLU, convolution, norm; every gradient is the derivative") {
    for (const bool frozen : {false, true})
        for (const ConvDesc& desc : {describe({2, 5, 4, 3}, 4, 3, 2), describe({2, 3, 4, 2}, 3, 1, 1)}) {
            INFO((frozen ? "frozen" : "batch"), ", kernel ", desc.kernel);
            Array raw = uniform(desc.src_shape(), 1), weights = uniform(desc.weights_shape(), 2);
            Array gamma1 = uniform({desc.in_channels}, 3, -2, 2), beta1 = uniform({desc.in_channels}, 4);
            Array gamma2 = uniform({desc.out_channels}, 5, -2, 2), beta2 = uniform({desc.out_channels}, 6);
            const Array dz2 = uniform(desc.dst_shape(), 7);
            const Array running = uniform({2, desc.out_channels}, 8, 0.5, 1);
            const auto source = [&] { return naive::Pending{raw, batch_norm(raw, gamma1, beta1), true, true}; };
            const auto norm2 = [&](const Array& dst) {
                naive::Norm norm =
                    frozen ? naive::norm_from_running(running, gamma2, beta2, eps) : batch_norm(dst, gamma2, beta2);
                norm.frozen = frozen;
                return norm;
            };
            const auto loss = [&] {
                const Array dst = naive::conv(desc, naive::value(source()), weights);
                return dot(naive::before_relu({dst, norm2(dst), false, true}), dz2);
            };

            const naive::Pending src = source();
            const Array dst = naive::conv(desc, naive::value(src), weights);
            const naive::Norm norm = norm2(dst);
            const Array sums2 = naive::norm_sums(dz2, dst, norm.mean, norm.inv_std);
            const Array d_dst = naive::apply(norm_gradient(dz2, dst, norm, gamma2), dz2, dst);
            CHECK_NEAR(sums2.row(1), numeric_gradient(gamma2, loss), tolerance);
            CHECK_NEAR(sums2.row(0), numeric_gradient(beta2, loss), tolerance);
            CHECK_NEAR(naive::conv_backward_weights(desc, naive::value(src), d_dst), numeric_gradient(weights, loss),
                       tolerance);
            const Array dz1 = naive::leave(naive::conv_backward_src(desc, d_dst, weights), nullptr, src);
            const Array sums1 = naive::norm_sums(dz1, raw, src.norm.mean, src.norm.inv_std);
            CHECK_NEAR(sums1.row(1), numeric_gradient(gamma1, loss), tolerance);
            CHECK_NEAR(sums1.row(0), numeric_gradient(beta1, loss), tolerance);
            CHECK_NEAR(naive::apply(norm_gradient(dz1, raw, src.norm, gamma1), dz1, raw), numeric_gradient(raw, loss),
                       tolerance);
        }
}

TEST_CASE("naive join and what follows: the gradient of both sides is the derivative") {
    const ConvDesc desc = describe({2, 3, 3, 4}, 2, 1, 1);
    const Array weights = uniform(desc.weights_shape(), 2), diff_dst = uniform(desc.dst_shape(), 3),
                residual = uniform(desc.src_shape(), 4);
    Array a = uniform(desc.src_shape(), 5), b = uniform(desc.src_shape(), 6);
    const Array gamma = uniform({4}, 7, -2, 2), beta = uniform({4}, 8);
    const auto side = [&] { return naive::Pending{a, batch_norm(a, gamma, beta), false, true}; };
    // The joined value goes two ways: into a convolution, and onward as the next block's residual.
    const auto loss = [&] {
        const Array joined = naive::join(side(), {b, {}, false, true});
        return dot(naive::conv(desc, joined, weights), diff_dst) + dot(joined, residual);
    };
    const Array joined = naive::join(side(), {b, {}, false, true});
    const Array dz =
        naive::leave(naive::conv_backward_src(desc, diff_dst, weights), &residual, {joined, {}, true, true});
    CHECK_NEAR(dz, numeric_gradient(b, loss), tolerance);
    CHECK_NEAR(naive::apply(norm_gradient(dz, a, side().norm, gamma), dz, a), numeric_gradient(a, loss), tolerance);
}

TEST_CASE("naive pools: the gradient is the derivative") {
    Array src = uniform({2, 5, 4, 3}, 1);
    const Array diff_max = uniform({2, 3, 2, 3}, 2), diff_avg = uniform({2, 3}, 3);
    CHECK_NEAR(naive::max_pool_backward(src, diff_max),
               numeric_gradient(src, [&] { return dot(naive::max_pool(src), diff_max); }), tolerance);
    CHECK_NEAR(naive::avg_pool_backward(diff_avg, src.shape),
               numeric_gradient(src, [&] { return dot(naive::avg_pool(src), diff_avg); }), tolerance);
}

TEST_CASE("naive max_pool: the first of equal maxima takes the gradient") {
    const Array src({1, 3, 3, 1}, 2);
    Array diff({1, 2, 2, 1}), expected({1, 3, 3, 1});
    diff.values = {1, 2, 4, 8};
    expected.values = {1, 2, 0, 4, 8, 0, 0, 0, 0};
    CHECK(naive::max_pool_backward(src, diff).values == expected.values);
}

TEST_CASE("naive linear, dropout and loss: every gradient is the derivative") {
    Array src = uniform({3, 8}, 1), weights = uniform({5, 8}, 2), bias = uniform({5}, 3);
    const std::vector<int32_t> labels{4, 0, 2};
    const naive::DropoutKey key{3, 1, 7};
    const double smoothing = 0.1, p = 0.3;
    const auto loss = [&] {
        const Array each =
            naive::cross_entropy(naive::linear(naive::dropout(src, p, key), weights, bias), labels, smoothing);
        return (each[0] + each[1] + each[2]) / 3;
    };
    const Array dropped = naive::dropout(src, p, key);
    const Array diff = naive::cross_entropy_backward(naive::linear(dropped, weights, bias), labels, smoothing, 1);
    CHECK_NEAR(naive::linear_backward_weights(dropped, diff), numeric_gradient(weights, loss), tolerance);
    CHECK_NEAR(naive::linear_backward_bias(diff), numeric_gradient(bias, loss), tolerance);
    CHECK_NEAR(naive::dropout(naive::linear_backward_src(diff, weights), p, key), numeric_gradient(src, loss),
               tolerance);
}

TEST_CASE("naive loss with partners and class weights: the gradient is the derivative") {
    Array logits = uniform({3, 4}, 5, -2, 2);
    naive::LossTargets targets;
    targets.labels = {2, 0, 3};
    targets.partners = {3, 2, 3};
    targets.share = 0.625;
    targets.weights = {0.5, 2, 0, 4};
    const auto loss = [&] {
        const Array each = naive::cross_entropy(logits, targets, 0.1);
        return (each[0] + each[1] + each[2]) / targets.total();
    };
    CHECK_NEAR(naive::cross_entropy_backward(logits, targets, 0.1, 1), numeric_gradient(logits, loss), tolerance);
}

TEST_CASE("naive optimizers agree with torch.optim's documented first steps") {
    // p = 1, g = 0.5, lr 0.1, decay 0.1. AdamW: 1 - 0.01 - 0.1. SGD with Nesterov: g' = 0.6, p - 0.1 * (0.6 + 0.9 *
    // 0.6).
    OptimizerDesc desc;
    desc.weight_decay = 0.1f;
    desc.ranges = {{0, 1, true}};
    StepState state;
    state.lr = 0.1f;
    state.t = 1;
    Array p({1}, 1), m({1}), v({1});
    naive::optimize(desc, p, Array({1}, 0.5), m, v, state);
    CHECK(p[0] == doctest::Approx(0.89));
    desc.kind = OptimizerDesc::Kind::sgd;
    p[0] = 1;
    naive::optimize(desc, p, Array({1}, 0.5), m, v, state);
    CHECK(p[0] == doctest::Approx(1 - 0.114));
}
