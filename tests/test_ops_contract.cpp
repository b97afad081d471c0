// What holds for every op: a dry run touches nothing and takes the same memory, the same call gives the same bits, and
// a broken contract is an error at the door.
#include <doctest/doctest.h>

#include <algorithm>
#include <memory>

#include "environment.h"
#include "op_support.h"

using namespace rn50;
using namespace rn50::test;

namespace {

ConvDesc some_conv(DType act) {
    ConvDesc desc;
    desc.name = "conv";
    desc.batch = 3;
    desc.height = 9;
    desc.width = 7;
    desc.in_channels = 12;
    desc.out_channels = 20;
    desc.kernel = 3;
    desc.stride = 2;
    desc.pad = 1;
    desc.dtype = act;
    desc.src_dtype = act;
    return desc;
}

/// Every tensor that one small step needs, and the step itself: each op of the page once.
struct Step {
    Backend& backend;
    Context ctx;
    DType act;
    std::unique_ptr<Conv> conv, inference;
    std::unique_ptr<Linear> linear;
    std::vector<Tensor> outputs;  ///< everything an op wrote, in order

    Step(Backend& on, Context context, DType dtype) : backend(on), ctx(context), act(dtype) {
        conv = backend.conv(some_conv(act));
        ConvDesc desc = some_conv(act);
        desc.training = false;
        inference = backend.conv(desc);
        linear = backend.linear({"fc", 3, 20, 5, act});
    }

    /// A tensor filled with small numbers; in a dry run only allocated.
    Tensor input(DType dtype, const Shape& shape) {
        const Tensor tensor = ctx.arena.alloc(Use::input, dtype, shape);
        if (ctx.dry) return tensor;
        std::vector<char> host(static_cast<size_t>(tensor.bytes()), 0);
        const Array values = uniform(shape, dtype, ++seed_, 0.25, 1);
        for (int64_t i = 0; i < values.count(); ++i) {
            const auto v = static_cast<float>(values[i]);
            const char* bytes = reinterpret_cast<const char*>(&v);
            const int64_t size = size_of(dtype);
            if (dtype == DType::bf16) bytes += 2;  // little endian: the upper half
            if (dtype == DType::f32 || dtype == DType::bf16)
                std::copy_n(bytes, size, host.begin() + static_cast<std::ptrdiff_t>(i * size));
        }
        backend.copy_in(ctx, host.data(), tensor);
        backend.synchronize(ctx);
        return tensor;
    }
    Tensor output(DType dtype, const Shape& shape) {
        outputs.push_back(input(dtype, shape));
        return outputs.back();
    }
    Norm norm(int64_t channels) {
        return {output(DType::f32, {channels}), output(DType::f32, {channels}), output(DType::f32, {channels}),
                output(DType::f32, {channels}), false};
    }

    void run() {
        const ConvDesc desc = some_conv(act);
        const Shape src_shape = desc.src_shape(), dst_shape = desc.dst_shape();
        const int64_t count = dst_shape[0] * dst_shape[1] * dst_shape[2];
        const Tensor weights = input(DType::f32, desc.weights_shape());
        const Activation src{input(act, src_shape), norm(12), true};
        const Tensor gamma = input(DType::f32, {20}), beta = input(DType::f32, {20});
        const Tensor stats = output(DType::f32, {2, 20}), observed = output(DType::f32, {2, 20}),
                     running = output(DType::f32, {2, 20}), sums = output(DType::f32, {2, 20});
        const Activation raw{output(act, dst_shape), norm(20), false};
        const Tensor state = output(DType::u8, {static_cast<int64_t>(sizeof(StepState))});
        const StepState fresh;
        backend.copy_in(ctx, &fresh, state);
        backend.synchronize(ctx);

        conv->forward(ctx, src, weights, raw.raw, stats);
        backend.norm_from_batch(ctx, stats, count, gamma, beta, 1e-5f, raw.norm, observed);
        backend.norm_update_running(ctx, observed, running, 0.1f, state);
        backend.norm_from_running(ctx, running, gamma, beta, 1e-5f, norm(20));
        const Tensor parts = input(DType::f32, {3, 2, 20});
        backend.merge_statistics(ctx, parts, count, output(DType::f32, {2, 20}));
        backend.sum_parts(ctx, parts, output(DType::f32, {2, 20}));
        const Tensor joined = output(act, dst_shape);
        backend.join(ctx, raw, {joined_side(dst_shape), {}, false}, joined);
        const Tensor pooled = output(act, {dst_shape[0], (dst_shape[1] + 1) / 2, (dst_shape[2] + 1) / 2, 20});
        backend.max_pool(ctx, {raw.raw, raw.norm, true}, pooled);
        const Tensor features = output(act, {3, 20}), diff_features = output(act, {3, 20});
        backend.avg_pool(ctx, joined, features);
        const Tensor step = ctx.arena.alloc(Use::input, DType::i32, {1});
        backend.zero(ctx, step);
        backend.dropout(ctx, features, features, 0.3f, {1, step, 3});

        const Tensor fc_weights = input(DType::f32, {5, 20}), fc_bias = input(DType::f32, {5});
        const Tensor logits = output(DType::f32, {3, 5}), diff_logits = output(DType::f32, {3, 5});
        linear->forward(ctx, features, fc_weights, fc_bias, logits);
        const Tensor labels = ctx.arena.alloc(Use::input, DType::i32, {3});
        backend.zero(ctx, labels);
        backend.softmax_cross_entropy(ctx, logits, labels, 0.1f, state, output(DType::f32, {3}), diff_logits);
        linear->backward(ctx, features, fc_weights, diff_logits, diff_features, output(DType::f32, {5, 20}),
                         output(DType::f32, {5}), Write::overwrite);

        DiffSrc left;
        left.diff = output(act, dst_shape);
        left.at = {joined, {}, true};
        left.norms[0] = {raw.raw, raw.norm.mean, raw.norm.inv_std, sums};
        backend.avg_pool_backward(ctx, diff_features, left);
        left.write = Write::add;
        backend.max_pool_backward(ctx, {raw.raw, raw.norm, true}, pooled, left);
        const NormGradient gradient{output(DType::f32, {20}), output(DType::f32, {20}), output(DType::f32, {20}),
                                    raw.norm.mean};
        backend.norm_backward(ctx, sums, count, raw.norm, gamma, gradient, output(DType::f32, {20}),
                              output(DType::f32, {20}), Write::overwrite);
        DiffSrc entry;
        entry.diff = output(act, src_shape);
        entry.at = src;
        entry.norms[0] = {src.raw, src.norm.mean, src.norm.inv_std, output(DType::f32, {2, 12})};
        conv->backward(ctx, src, weights, {left.diff, raw.raw, gradient}, &entry,
                       output(DType::f32, desc.weights_shape()), Write::overwrite);

        const Tensor packed = output(DType::u8, {inference->packed_bytes()});
        inference->pack(ctx, weights, raw.norm, packed);
        inference->infer(ctx, src, packed, joined, true, output(act, dst_shape));

        const Tensor parameters = output(DType::f32, {1000}), gradients = input(DType::f32, {1000});
        OptimizerDesc optimizer;
        optimizer.ranges = {{0, 900, true}};
        const Tensor half = output(DType::f16, {1000});
        backend.convert(ctx, gradients, half);
        backend.convert(ctx, half, output(DType::f32, {1000}));
        backend.check_gradients(ctx, gradients, 1.0f, {}, state);
        backend.optimize(ctx, optimizer, parameters, gradients, output(DType::f32, {1000}), output(DType::f32, {1000}),
                         state);
        backend.synchronize(ctx);
    }

  private:
    Tensor joined_side(const Shape& shape) { return input(act, shape); }
    uint64_t seed_ = 0;
};

}  // namespace

TEST_CASE("a dry run touches nothing and needs exactly the memory of the real run") {
    for_each_rig([](Rig& rig) {
        const ArenaMode mode("shared");
        Arena counting;
        Step(rig.backend, {counting, true}, rig.act).run();  // its addresses are no memory: touching them would crash
        Arena real(rig.backend.memory(), counting.plan().peak);
        Step(rig.backend, {real, false}, rig.act).run();
        CHECK(real.plan().peak == counting.plan().peak);
        CHECK(real.plan().by_use == counting.plan().by_use);
        CHECK(real.in_use() == counting.in_use());
    });
}

TEST_CASE("the same calls give the same bits") {
    for_each_rig([](Rig& rig) {
        std::vector<std::string> first;
        for (int turn = 0; turn < 3; ++turn) {
            Step step(rig.backend, rig.ctx, rig.act);
            step.run();
            for (size_t i = 0; i < step.outputs.size(); ++i) {
                if (turn == 0)
                    first.push_back(rig.bytes(step.outputs[i]));
                else
                    REQUIRE_MESSAGE(rig.bytes(step.outputs[i]) == first[i], "output " << i);
            }
        }
    });
}

TEST_CASE("a broken contract of a convolution is an error at the door") {
    for_each_rig([](Rig& rig) {
        const ConvDesc desc = some_conv(rig.act);
        const auto conv = rig.conv(desc);
        const auto act = [&](const Shape& shape) { return rig.put_act(Array(shape)); };
        const auto f32 = [&](const Shape& shape) { return rig.put_f32(Array(shape)); };
        const Activation src{act(desc.src_shape()), {}, false};
        const Tensor weights = f32(desc.weights_shape()), dst = act(desc.dst_shape()), stats = f32({2, 20});
        CHECK_THROWS_AS(conv->forward(rig.ctx, {act({3, 9, 7, 11}), {}, false}, weights, dst, stats), Error);
        CHECK_THROWS_AS(conv->forward(rig.ctx, {act({2, 9, 7, 12}), {}, false}, weights, dst, stats), Error);
        CHECK_THROWS_AS(conv->forward(rig.ctx, src, f32({20, 12, 3, 3}), dst, stats), Error);
        CHECK_THROWS_AS(conv->forward(rig.ctx, src, weights, act({3, 9, 7, 20}), stats), Error);
        CHECK_THROWS_AS(conv->forward(rig.ctx, src, weights, dst, f32({20, 2})), Error);
        CHECK_THROWS_AS(conv->forward(rig.ctx, src, {}, dst, stats), Error);
        CHECK_THROWS_AS(conv->forward(rig.ctx, {}, weights, dst, stats), Error);
        const Activation wrong_norm{src.raw, rig.put(some_norm(11, 1)), true};
        CHECK_THROWS_AS(conv->forward(rig.ctx, wrong_norm, weights, dst, stats), Error);
        if (rig.act != DType::f32)
            CHECK_THROWS_AS(conv->forward(rig.ctx, src, weights, f32(desc.dst_shape()), stats), Error);

        const NormGradient gradient = rig.put(some_norm_gradient(20, 1));
        const Tensor diff_weights = f32(desc.weights_shape());
        DiffSrc left;
        left.diff = act({3, 9, 7, 11});
        CHECK_THROWS_AS(
            conv->backward(rig.ctx, src, weights, {dst, dst, gradient}, &left, diff_weights, Write::overwrite), Error);
        CHECK_THROWS_AS(conv->backward(rig.ctx, src, weights, {dst, dst, rig.put(some_norm_gradient(19, 1))}, nullptr,
                                       diff_weights, Write::overwrite),
                        Error);
        CHECK_THROWS_AS(
            conv->backward(rig.ctx, src, weights, {dst, {}, gradient}, nullptr, diff_weights, Write::overwrite), Error);

        ConvDesc inference = desc;
        inference.training = false;
        const auto packed_conv = rig.conv(inference);
        CHECK_THROWS_AS(packed_conv->forward(rig.ctx, src, weights, dst, stats), Error);
        const Tensor packed = rig.rubbish(DType::u8, {packed_conv->packed_bytes()});
        packed_conv->pack(rig.ctx, weights, rig.put(some_norm(20, 1)), packed);
        CHECK_THROWS_AS(
            packed_conv->infer(rig.ctx, {act({4, 9, 7, 12}), {}, false}, packed, {}, true, act({4, 5, 4, 20})), Error);
        CHECK_THROWS_AS(packed_conv->infer(rig.ctx, src, packed, act({3, 5, 4, 19}), true, dst), Error);
    });
}

TEST_CASE("a broken contract of the other ops is an error at the door") {
    for_each_rig([](Rig& rig) {
        Backend& backend = rig.backend;
        const auto act = [&](const Shape& shape) { return rig.put_act(Array(shape)); };
        const auto f32 = [&](const Shape& shape) { return rig.put_f32(Array(shape)); };
        const Activation picture{act({2, 4, 4, 8}), {}, false}, other{act({2, 4, 4, 7}), {}, false};
        CHECK_THROWS_AS(backend.join(rig.ctx, picture, other, act({2, 4, 4, 8})), Error);
        CHECK_THROWS_AS(backend.join(rig.ctx, {picture.raw, {}, true}, picture, act({2, 4, 4, 8})), Error);
        CHECK_THROWS_AS(backend.max_pool(rig.ctx, picture, act({2, 3, 2, 8})), Error);
        CHECK_THROWS_AS(backend.avg_pool(rig.ctx, picture.raw, act({2, 7})), Error);
        const DropoutKey key = rig.key(1, 2, 3);
        CHECK_THROWS_AS(backend.dropout(rig.ctx, act({2, 8}), act({8, 2}), 0.5f, key), Error);
        CHECK_THROWS_AS(backend.dropout(rig.ctx, act({2, 8}), act({2, 8}), 1.0f, key), Error);
        CHECK_THROWS_AS(backend.dropout(rig.ctx, act({2, 8}), act({2, 8}), 0.5f, {1, f32({1}), 3}), Error);
        CHECK_THROWS_AS(backend.dropout(rig.ctx, act({2, 8}), act({2, 8}), 0.5f, {}), Error);
        const Tensor state = rig.put(StepState{}), labels = rig.put(std::vector<int32_t>{0, 1});
        CHECK_THROWS_AS(backend.softmax_cross_entropy(rig.ctx, f32({2, 3}), labels, 0, state, f32({3}), {}), Error);
        CHECK_THROWS_AS(backend.softmax_cross_entropy(rig.ctx, f32({3, 3}), labels, 0, state, f32({3}), {}), Error);
        CHECK_THROWS_AS(backend.softmax_cross_entropy(rig.ctx, f32({2, 3}), labels, 0, {}, f32({2}), f32({2, 3})),
                        Error);
        const auto refused = [&](auto change) {
            Targets targets(labels);
            targets.partners = labels;
            targets.share = rig.put_f32(Array({1}, 0.5));
            change(targets);
            CHECK_THROWS_AS(backend.softmax_cross_entropy(rig.ctx, f32({2, 3}), targets, 0, state, f32({2}), {}),
                            Error);
        };
        refused([&](Targets& t) { t.partners = rig.put(std::vector<int32_t>{0, 1, 2}); });
        refused([&](Targets& t) { t.partners = {}; });
        refused([&](Targets& t) { t.share = {}; });
        refused([&](Targets& t) { t.share = f32({2}); });
        if (backend.info().kind == "cpu") refused([&](Targets& t) { t.share = rig.put_f32(Array({1}, 1.5)); });
        refused([&](Targets& t) { t.class_weights = f32({2}); });
        refused([&](Targets& t) { t.total = -1; });
        CHECK_THROWS_AS(backend.check_gradients(rig.ctx, f32({5}), 0, {}, f32({4})), Error);
        CHECK_THROWS_AS(backend.check_gradients(rig.ctx, f32({5}), 0, {}, state, f32({2})), Error);
        OptimizerDesc desc;
        desc.ranges = {{0, 6, true}};
        CHECK_THROWS_AS(backend.optimize(rig.ctx, desc, f32({5}), f32({5}), f32({5}), f32({5}), state), Error);
        desc.ranges = {{0, 4, true}, {3, 5, false}};
        CHECK_THROWS_AS(backend.optimize(rig.ctx, desc, f32({5}), f32({5}), f32({5}), f32({5}), state), Error);
        desc.ranges = {{0, 5, true}};
        CHECK_THROWS_AS(backend.optimize(rig.ctx, desc, f32({5}), f32({4}), f32({5}), f32({5}), state), Error);
        CHECK_THROWS_AS(backend.optimize(rig.ctx, desc, f32({5}), f32({5}), f32({5}), {}, state), Error);
        const auto linear = backend.linear({"fc", 2, 8, 3, rig.act});
        CHECK_THROWS_AS(linear->forward(rig.ctx, act({3, 8}), f32({3, 8}), f32({3}), f32({3, 3})), Error);
        CHECK_THROWS_AS(linear->forward(rig.ctx, act({2, 8}), f32({8, 3}), f32({3}), f32({2, 3})), Error);
    });
}

TEST_CASE("a label outside the classes is an error where the backend sees it") {
    for_each_fp32_rig([](Rig& rig) {
        if (rig.backend.info().kind != "cpu") return;
        for (const int32_t wrong : {-1, 3}) {
            const Tensor labels = rig.put(std::vector<int32_t>{0, wrong});
            CHECK_THROWS_AS(rig.backend.softmax_cross_entropy(rig.ctx, rig.put_f32(Array({2, 3})), labels, 0, {},
                                                              rig.put_f32(Array({2})), {}),
                            Error);
        }
    });
}
