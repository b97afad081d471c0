// The optimizer step: the look at all gradients, then AdamW and SGD, against double precision.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "op_support.h"

using namespace rn50;
using namespace rn50::test;

namespace {

constexpr double tolerance = 1e-5;

void check_state(const StepState& got, const StepState& expected) {
    CHECK(got.skip == expected.skip);
    CHECK(got.skipped == expected.skipped);
    CHECK(got.skipped_in_row == expected.skipped_in_row);
    CHECK(got.t == expected.t);
    CHECK(got.loss_scale == expected.loss_scale);
    CHECK(got.lr == expected.lr);
    if (expected.skip) return;
    CHECK(got.grad_norm == doctest::Approx(static_cast<double>(expected.grad_norm)).epsilon(tolerance));
    CHECK(got.multiplier == doctest::Approx(static_cast<double>(expected.multiplier)).epsilon(tolerance));
}

}  // namespace

TEST_CASE("check_gradients measures, unscales and clips") {
    for (const int64_t count : {1, 77, 100003})
        for (const float clip : {0.0f, 1.0f, 1e6f})
            for (const float scale : {1.0f, 1024.0f})
                for_each_fp32_rig([&](Rig& rig) {
                    const double divisor = scale > 1 ? 1 : 3.5;
                    INFO(count, " gradients, clip ", clip, ", loss scale ", scale, ", divisor ", divisor);
                    const Array gradients =
                        uniform({count}, 1, -3 * static_cast<double>(scale), 4 * static_cast<double>(scale));
                    StepState state;
                    state.lr = 0.25f;
                    state.loss_scale = scale;
                    const Tensor on = rig.put(state);
                    rig.backend.check_gradients(rig.ctx, rig.put_f32(gradients), clip, {}, on,
                                                divisor > 1 ? rig.put_f32(Array({1}, divisor)) : Tensor());
                    check_state(rig.get_state(on),
                                naive::check_gradients(gradients, static_cast<double>(clip), {}, state, 1 / divisor));
                });
}

TEST_CASE("large finite gradients are no reason to skip a step") {
    for_each_fp32_rig([](Rig& rig) {
        // Their squares do not fit f32, their norm does.
        const Array gradients = uniform({333}, 1, -1e25, 1e25);
        const Tensor state = rig.put(StepState{});
        rig.backend.check_gradients(rig.ctx, rig.put_f32(gradients), 0, {}, state);
        check_state(rig.get_state(state), naive::check_gradients(gradients, 0, {}, StepState{}));
    });
}

TEST_CASE("what a check of more gradients left behind has no part in one of fewer") {
    for_each_fp32_rig([](Rig& rig) {
        // A GPU sums by blocks of 1024 into memory that stays from step to step.
        for (const int64_t count : {9000, 3000, 1024, 1025, 1}) {
            const double size = count == 9000 ? 1000 : 0.5;
            const Array gradients = uniform({count}, 1, -size, size);
            const Tensor state = rig.put(StepState{});
            rig.backend.check_gradients(rig.ctx, rig.put_f32(gradients), 0, {}, state);
            check_state(rig.get_state(state), naive::check_gradients(gradients, 0, {}, StepState{}));
        }
    });
}

TEST_CASE("the loss scale grows after good steps, falls at inf or NaN, and rests without dynamics") {
    const double infinity = std::numeric_limits<double>::infinity();
    const double nan = std::numeric_limits<double>::quiet_NaN();
    for (const bool dynamic : {true, false})
        for_each_fp32_rig([&](Rig& rig) {
            ScalePolicy policy;
            policy.dynamic = dynamic;
            policy.interval = 3;
            StepState expected;
            expected.loss_scale = 256;
            const Tensor state = rig.put(expected);
            Array gradients = uniform({1001}, 1);
            // What is wrong with the gradients of each step, and where: 0 is a good step.
            const double plan[] = {0, 0, 0, 0, infinity, 0, nan, -infinity, 0, 0, 0, 0, 0};
            int64_t place = 0;
            for (const double wrong : plan) {
                Array these = gradients;
                if (wrong != 0) these[place = (place + 500) % 1001] = wrong;
                rig.backend.check_gradients(rig.ctx, rig.put_f32(these), 0, policy, state);
                expected = naive::check_gradients(these, 0, policy, expected);
                check_state(rig.get_state(state), expected);
                if (dynamic) CHECK(rig.get_state(state).good_steps == expected.good_steps);
            }
            CHECK(expected.t == 10);
            CHECK(expected.skipped == 3);
            CHECK(expected.loss_scale == (dynamic ? 128.0f : 256.0f));
        });
}

namespace {

OptimizerDesc some_optimizer(OptimizerDesc::Kind kind, float decay, float momentum, bool nesterov) {
    OptimizerDesc desc;
    desc.kind = kind;
    desc.weight_decay = decay;
    desc.momentum = momentum;
    desc.nesterov = nesterov;
    // A gap at [40, 53) and an end before the buffer's.
    desc.ranges = {{0, 17, true}, {17, 40, false}, {53, 90, true}, {90, 101, false}};
    return desc;
}

/// Steps with a large rate, so that each term of the formula weighs in the parameters themselves; a scaled and clipped
/// gradient; a step that is skipped in the middle.
void check_optimizer(Rig& rig, const OptimizerDesc& desc) {
    const Shape shape{107};
    Array parameters = uniform(shape, 1, -0.3, 0.3);
    const Array start = parameters;
    const bool adamw = desc.kind == OptimizerDesc::Kind::adamw;
    Array moment1(shape), moment2(shape);
    const Tensor parameters_on = rig.put_f32(parameters), moment1_on = rig.put_f32(moment1),
                 moment2_on = adamw ? rig.put_f32(moment2) : Tensor{};
    for (int step = 1; step <= 6; ++step) {
        const Array gradients = uniform(shape, 10 + static_cast<uint64_t>(step), -8, 8);
        StepState state;
        state.lr = 0.05f * static_cast<float>(step);
        state.multiplier = 0.125f;
        state.skip = step == 3;
        state.t = step < 3 ? step : step - 1;
        const std::string before = rig.bytes(parameters_on) + rig.bytes(moment1_on);
        rig.backend.optimize(rig.ctx, desc, parameters_on, rig.put_f32(gradients), moment1_on, moment2_on,
                             rig.put(state));
        naive::optimize(desc, parameters, gradients, moment1, moment2, state);
        if (state.skip) CHECK(rig.bytes(parameters_on) + rig.bytes(moment1_on) == before);
        CHECK_NEAR(rig.get(parameters_on), parameters, tolerance);
        CHECK_NEAR(rig.get(moment1_on), moment1, tolerance);
        if (adamw) CHECK_NEAR(rig.get(moment2_on), moment2, tolerance);
    }
    const Array after = rig.get(parameters_on);
    for (int64_t i = 0; i < shape[0]; ++i)
        if ((i >= 40 && i < 53) || i >= 101) CHECK(after[i] == start[i]);
}

}  // namespace

TEST_CASE("AdamW follows its formula, decay decoupled and by range") {
    for (const float decay : {0.0f, 0.2f})
        for_each_fp32_rig([&](Rig& rig) {
            INFO("weight decay ", decay);
            check_optimizer(rig, some_optimizer(OptimizerDesc::Kind::adamw, decay, 0.9f, true));
        });
}

TEST_CASE("AdamW's first step is the rate, whatever the size of the gradient") {
    for_each_fp32_rig([](Rig& rig) {
        OptimizerDesc desc;
        desc.ranges = {{0, 3, true}};
        Array gradients({3});
        gradients.values = {1e-3, -5, 1e4};
        const Tensor parameters = rig.put_f32(Array({3}, 1));
        StepState state;
        state.lr = 0.01f;
        state.t = 1;
        rig.backend.optimize(rig.ctx, desc, parameters, rig.put_f32(gradients), rig.put_f32(Array({3})),
                             rig.put_f32(Array({3})), rig.put(state));
        const Array after = rig.get(parameters);
        CHECK(after[0] == doctest::Approx(0.99).epsilon(1e-5));
        CHECK(after[1] == doctest::Approx(1.01).epsilon(1e-5));
        CHECK(after[2] == doctest::Approx(0.99).epsilon(1e-5));
    });
}

TEST_CASE("SGD follows its formula with and without momentum, Nesterov and decay") {
    for (const float decay : {0.0f, 0.2f})
        for (const float momentum : {0.0f, 0.9f})
            for (const bool nesterov : {false, true})
                for_each_fp32_rig([&](Rig& rig) {
                    INFO("weight decay ", decay, ", momentum ", momentum, ", Nesterov ", nesterov);
                    check_optimizer(rig, some_optimizer(OptimizerDesc::Kind::sgd, decay, momentum, nesterov));
                });
}
