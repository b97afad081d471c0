// Dropout and the loss against double precision.
#include <doctest/doctest.h>

#include "op_support.h"

using namespace rn50;
using namespace rn50::test;

TEST_CASE("dropout keeps what the contract's random numbers keep") {
    for (const float p : {0.0f, 0.3f, 0.9f})
        for_each_rig([&](Rig& rig) {
            const Array src = uniform({5, 333}, rig.act, 1);
            const DropoutKey key{uint64_t{7} << 40 | 3, 12345, 1000};
            const Tensor dst = rig.rubbish(rig.act, src.shape);
            rig.backend.dropout(rig.ctx, rig.put_act(src), dst, p, key);
            const Array got = rig.get(dst), expected = naive::dropout(src, static_cast<double>(p), key);
            CHECK_NEAR(got, expected, rig.tolerance);
            for (int64_t i = 0; i < got.count(); ++i)
                REQUIRE((got[i] == 0) == (expected[i] == 0));
        });
}

TEST_CASE("dropout works in place, and its mask belongs to the sample, not to the batch") {
    for_each_rig([](Rig& rig) {
        const Array src = uniform({6, 100}, rig.act, 1, 0.5, 1);
        const Tensor whole = rig.put_act(src), parts = rig.put_act(src);
        rig.backend.dropout(rig.ctx, whole, whole, 0.5f, {1, 2, 10});
        for (int64_t begin = 0; begin < 6; begin += 2) {
            const Tensor part = parts.slice(begin, 2);
            rig.backend.dropout(rig.ctx, part, part, 0.5f, {1, 2, 10 + begin});
        }
        CHECK(rig.bytes(whole) == rig.bytes(parts));

        const Tensor other_step = rig.put_act(src), other_seed = rig.put_act(src);
        rig.backend.dropout(rig.ctx, other_step, other_step, 0.5f, {1, 3, 10});
        rig.backend.dropout(rig.ctx, other_seed, other_seed, 0.5f, {2, 2, 10});
        CHECK(rig.bytes(whole) != rig.bytes(other_step));
        CHECK(rig.bytes(whole) != rig.bytes(other_seed));
    });
}

namespace {

std::vector<int32_t> some_labels(int64_t batch, int64_t classes) {
    std::vector<int32_t> labels;
    for (int64_t n = 0; n < batch; ++n)
        labels.push_back(static_cast<int32_t>((n * 7 + 3) % classes));
    labels.back() = static_cast<int32_t>(classes - 1);
    return labels;
}

}  // namespace

TEST_CASE("softmax cross-entropy and its gradient equal double precision") {
    struct Size {
        int64_t batch, classes;
    };
    for (const Size& size : {Size{1, 2}, Size{3, 7}, Size{16, 200}, Size{5, 1000}, Size{2, 1}})
        for (const float smoothing : {0.0f, 0.1f})
            for (const float loss_scale : {1.0f, 65536.0f})
                for_each_fp32_rig([&](Rig& rig) {
                    INFO(size.batch, "x", size.classes, ", smoothing ", smoothing, ", loss scale ", loss_scale);
                    const Array logits = uniform({size.batch, size.classes}, 1, -6, 6);
                    const std::vector<int32_t> labels = some_labels(size.batch, size.classes);
                    StepState state;
                    state.loss_scale = loss_scale;
                    const Tensor loss = rig.rubbish(DType::f32, {size.batch});
                    const Tensor diff = rig.rubbish(DType::f32, logits.shape);
                    const Tensor logits_on = rig.put_f32(logits), labels_on = rig.put(labels);
                    rig.backend.softmax_cross_entropy(rig.ctx, logits_on, labels_on, smoothing, rig.put(state), loss,
                                                      diff);
                    const auto q = static_cast<double>(smoothing), scale = static_cast<double>(loss_scale);
                    CHECK_NEAR(rig.get(loss), naive::cross_entropy(logits, labels, q), rig.tolerance);
                    CHECK_NEAR(rig.get(diff), naive::cross_entropy_backward(logits, labels, q, scale), rig.tolerance);

                    const Tensor evaluated = rig.rubbish(DType::f32, {size.batch});
                    rig.backend.softmax_cross_entropy(rig.ctx, logits_on, labels_on, smoothing, {}, evaluated, {});
                    CHECK(rig.bytes(evaluated) == rig.bytes(loss));
                });
}

TEST_CASE("softmax cross-entropy neither overflows nor loses a sure answer") {
    for_each_fp32_rig([](Rig& rig) {
        Array logits({3, 3});
        logits.values = {1000, 0, -1000, -50000, -50001, -50002, 90, 0, 0};
        const std::vector<int32_t> labels{0, 2, 1};
        StepState state;
        const Tensor loss = rig.rubbish(DType::f32, {3}), diff = rig.rubbish(DType::f32, {3, 3});
        rig.backend.softmax_cross_entropy(rig.ctx, rig.put_f32(logits), rig.put(labels), 0, rig.put(state), loss, diff);
        CHECK_NEAR(rig.get(loss), naive::cross_entropy(logits, labels, 0), rig.tolerance);
        CHECK_NEAR(rig.get(diff), naive::cross_entropy_backward(logits, labels, 0, 1), rig.tolerance);
        CHECK(rig.get(loss)[0] == 0);
    });
}
