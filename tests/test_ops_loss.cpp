// Dropout and the loss against double precision.
#include <doctest/doctest.h>

#include "op_support.h"

using namespace rn50;
using namespace rn50::test;

TEST_CASE("dropout keeps what the contract's random numbers keep") {
    for (const float p : {0.0f, 0.3f, 0.9f})
        for_each_rig([&](Rig& rig) {
            const Array src = uniform({5, 333}, rig.act, 1);
            const naive::DropoutKey key{uint64_t{7} << 40 | 3, 12345, 1000};
            const Tensor dst = rig.rubbish(rig.act, src.shape);
            rig.backend.dropout(rig.ctx, rig.put_act(src), dst, p, rig.key(key.seed, key.step, key.first_sample));
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
        rig.backend.dropout(rig.ctx, whole, whole, 0.5f, rig.key(1, 2, 10));
        for (int64_t begin = 0; begin < 6; begin += 2) {
            const Tensor part = parts.slice(begin, 2);
            rig.backend.dropout(rig.ctx, part, part, 0.5f, rig.key(1, 2, 10 + begin));
        }
        CHECK(rig.bytes(whole) == rig.bytes(parts));

        const Tensor other_step = rig.put_act(src), other_seed = rig.put_act(src);
        rig.backend.dropout(rig.ctx, other_step, other_step, 0.5f, rig.key(1, 3, 10));
        rig.backend.dropout(rig.ctx, other_seed, other_seed, 0.5f, rig.key(2, 2, 10));
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

namespace {

Targets put(Rig& rig, const naive::LossTargets& targets) {
    Targets on(rig.put(targets.labels));
    if (!targets.partners.empty()) on.partners = rig.put(targets.partners);
    on.share = targets.partners.empty() ? Tensor{} : rig.put_f32(Array({1}, targets.share));
    if (!targets.weights.empty()) {
        Array weights({static_cast<int64_t>(targets.weights.size())});
        weights.values = targets.weights;
        on.class_weights = rig.put_f32(weights);
        on.total = static_cast<float>(targets.total());
    }
    return on;
}

}  // namespace

TEST_CASE("softmax cross-entropy with partners and class weights equals double precision") {
    struct Size {
        int64_t batch, classes;
    };
    for (const Size& size : {Size{1, 2}, Size{3, 7}, Size{16, 200}, Size{2, 1}})
        for (const float smoothing : {0.0f, 0.1f})
            for (const int kind : {1, 2, 3})
                for_each_fp32_rig([&](Rig& rig) {
                    INFO(size.batch, "x", size.classes, ", smoothing ", smoothing, ", kind ", kind);
                    const Array logits = uniform({size.batch, size.classes}, 1, -6, 6);
                    naive::LossTargets targets;
                    targets.labels = some_labels(size.batch, size.classes);
                    if (kind & 1) {
                        for (size_t i = 0; i < targets.labels.size(); ++i)  // some have their own label twice
                            targets.partners.push_back(targets.labels[(i + 1) % targets.labels.size()]);
                        targets.share = 0.71875;
                    }
                    if (kind & 2)
                        for (int64_t k = 0; k < size.classes; ++k)
                            targets.weights.push_back(k % 5 == 3 ? 0 : 0.25 * static_cast<double>(1 + k % 7));
                    if (targets.total() == 0) return;
                    StepState state;
                    state.loss_scale = 1024;
                    const Tensor loss = rig.rubbish(DType::f32, {size.batch});
                    const Tensor diff = rig.rubbish(DType::f32, logits.shape);
                    rig.backend.softmax_cross_entropy(rig.ctx, rig.put_f32(logits), put(rig, targets), smoothing,
                                                      rig.put(state), loss, diff);
                    const auto q = static_cast<double>(smoothing);
                    CHECK_NEAR(rig.get(loss), naive::cross_entropy(logits, targets, q), rig.tolerance);
                    CHECK_NEAR(rig.get(diff), naive::cross_entropy_backward(logits, targets, q, 1024), rig.tolerance);
                });
}

TEST_CASE("softmax cross-entropy with partners and class weights equals PyTorch") {
    // PyTorch 2.15, double: CE = torch.nn.CrossEntropyLoss(weight=w, label_smoothing=0.1), y = [2, 0, 3], p = [3, 2,
    // 0], CE(x, y), then 0.7 * CE(x, y) + 0.3 * CE(x, p); and without weights CrossEntropyLoss(label_smoothing=0.1)(x,
    // 0.7 * onehot(y) + 0.3 * onehot(p)). The gradients follow.
    Array logits({3, 4});
    logits.values = {0.5, -1.25, 2.0, 0.75, 3.0, 0.25, -0.5, 1.5, -2.0, 1.0, 0.125, 0.25};
    struct Case {
        bool partners, weights;
        double loss;
        std::vector<double> diff;
    };
    const Case cases[] = {
        {false,
         true,
         1.2135967777580288,
         {0.02622033453, -0.004139557381, -0.040484774521, 0.018403997372, 0.003901966466, -0.003465712755,
          -0.001888299944, 0.001452046233, 0.015409020618, 0.346056491039, 0.143502007956, -0.504967519613}},
        {true,
         true,
         1.5146137785133136,
         {0.047442752976, -0.000451654038, 0.103718415365, -0.150709514304, 0.047081206423, -0.002274494708,
          -0.050416517472, 0.005609805756, -0.013548117559, 0.257445456551, 0.106563433154, -0.350460772145}},
        {true,
         false,
         1.466444636512839,
         {0.0397009471, 1.3772998e-05, -0.003058620137, -0.036656099961, 0.034718077073, 0.007843701881,
          -0.090691846552, 0.048130067598, -0.089774515048, 0.163575199183, 0.063328804731, -0.137129488866}},
    };
    for (const Case& c : cases)
        for_each_fp32_rig([&](Rig& rig) {
            naive::LossTargets targets;
            targets.labels = {2, 0, 3};
            if (c.partners) targets.partners = {3, 2, 0};
            if (c.partners) targets.share = 0.7;
            if (c.weights) targets.weights = {0.5, 2, 1, 4};
            const Tensor loss = rig.rubbish(DType::f32, {3}), diff = rig.rubbish(DType::f32, {3, 4});
            rig.backend.softmax_cross_entropy(rig.ctx, rig.put_f32(logits), put(rig, targets), 0.1f,
                                              rig.put(StepState{}), loss, diff);
            const Array each = rig.get(loss);
            CHECK((each[0] + each[1] + each[2]) / targets.total() == doctest::Approx(c.loss).epsilon(1e-6));
            Array expected({3, 4});
            expected.values = c.diff;
            CHECK_NEAR(rig.get(diff), expected, 1e-6);
        });
}
