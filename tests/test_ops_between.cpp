// What stands between convolutions: the residual join and the pools, against double precision.
#include <doctest/doctest.h>

#include <cmath>

#include "op_support.h"

using namespace rn50;
using namespace rn50::test;

namespace {

const Shape shapes[] = {{1, 1, 1, 3}, {3, 5, 7, 13}, {2, 8, 8, 64}, {1, 2, 9, 40}, {5, 3, 2, 1}};

struct Gathered {
    Array raw, mean, inv_std;
    Tensor sums;
};

/// Runs `op` with each way to leave a gradient and checks diff against `g` and the sums against diff as stored.
template <class Op>
void check_left(Rig& rig, const Array& g, const naive::Pending& at, double tolerance, Op op) {
    for (const Write write : {Write::overwrite, Write::add})
        for (const int norms : {0, 1, 2}) {
            INFO((write == Write::add ? "added" : "overwritten"), ", norms ", norms);
            const Shape shape = g.shape, channels{shape[3]};
            const Array before = uniform(shape, rig.act, 41);
            DiffSrc left;
            left.write = write;
            left.diff = write == Write::add ? rig.put_act(before) : rig.rubbish(rig.act, shape);
            left.at = rig.put(at);
            std::vector<Gathered> gathered;
            for (int i = 0; i < norms; ++i) {
                const auto seed = static_cast<uint64_t>(50 + 3 * i);
                gathered.push_back({uniform(shape, rig.act, seed), uniform(channels, seed + 1),
                                    uniform(channels, seed + 2, 0.5, 2), rig.rubbish(DType::f32, {2, shape[3]})});
                const Gathered& norm = gathered.back();
                left.norms[i] = {rig.put_act(norm.raw), rig.put_f32(norm.mean), rig.put_f32(norm.inv_std), norm.sums};
            }
            op(left);
            const Array diff = rig.get(left.diff);
            CHECK_NEAR(diff, naive::leave(g, write == Write::add ? &before : nullptr, at), tolerance);
            for (const Gathered& norm : gathered) {
                const Array sums = rig.get(norm.sums);
                const Array expected = naive::norm_sums(diff, norm.raw, norm.mean, norm.inv_std);
                CHECK_NEAR(sums.row(0), expected.row(0), 2e-5);
                CHECK_NEAR(sums.row(1), expected.row(1), 2e-5);
            }
        }
}

}  // namespace

TEST_CASE("join applies both sides, adds and clips") {
    for (const Shape& shape : shapes)
        for (const int normed : {0, 1, 2, 3})
            for_each_rig([&](Rig& rig) {
                INFO(shape.str(), ", normed sides ", normed);
                naive::Pending a{uniform(shape, rig.act, 1), {}, false}, b{uniform(shape, rig.act, 2), {}, false};
                if (normed & 1) a.norm = some_norm(shape[3], 3);
                if (normed & 2) b.norm = some_norm(shape[3], 4);
                const Tensor dst = rig.rubbish(rig.act, shape);
                rig.backend.join(rig.ctx, rig.put(a), rig.put(b), dst);
                CHECK_NEAR(rig.get(dst), naive::join(a, b), rig.tolerance);
            });
}

TEST_CASE("max_pool equals double precision; its padding never wins") {
    for (const Shape& shape : shapes)
        for (const bool relu : {false, true})
            for_each_rig([&](Rig& rig) {
                INFO(shape.str(), ", relu ", relu);
                // All values negative without the ReLU: a padding of 0 would show.
                naive::Pending src{uniform(shape, rig.act, 1, -3, -1), {}, relu};
                if (relu) src = {uniform(shape, rig.act, 1), some_norm(shape[3], 2), relu};
                const Tensor dst = rig.rubbish(rig.act, {shape[0], (shape[1] + 1) / 2, (shape[2] + 1) / 2, shape[3]});
                rig.backend.max_pool(rig.ctx, rig.put(src), dst);
                CHECK_NEAR(rig.get(dst), naive::max_pool(naive::value(src)), rig.tolerance);
            });
}

TEST_CASE("max_pool passes NaN on, also where the scale turns the order round") {
    for (const double scale : {1.5, -1.5, 0.0})
        for_each_rig([&](Rig& rig) {
            INFO("scale ", scale);
            // Two windows of a row; channel 0 has the NaN, whole packs of the others do not.
            const int64_t channels = 16;
            Array raw = uniform({1, 1, 4, channels}, rig.act, 1);
            raw.values[0] = NAN;
            naive::Pending src{raw, some_norm(channels, 2), false};
            for (double& one : src.norm.scale.values)
                one = scale;
            const Tensor dst = rig.rubbish(rig.act, {1, 1, 2, channels});
            rig.backend.max_pool(rig.ctx, rig.put(src), dst);
            const Array found = rig.get(dst);
            Array without = raw;
            without.values[0] = 0;
            src.raw = without;
            const Array expected = naive::max_pool(naive::value(src));
            CHECK(std::isnan(found[0]));
            for (int64_t i = 1; i < found.count(); ++i)
                CHECK(found[i] == doctest::Approx(expected[i]).epsilon(rig.tolerance));
        });
}

TEST_CASE("max_pool_backward sends each gradient to the first maximum, then clips, adds and gathers") {
    for (const Shape& shape : shapes)
        for (const bool ties : {false, true})
            for_each_rig([&](Rig& rig) {
                INFO(shape.str(), ", ties ", ties);
                naive::Pending src{uniform(shape, rig.act, 1), some_norm(shape[3], 2), true};
                // Few different values: most windows hold their maximum more than once, and many hold only zeros.
                if (ties)
                    for (double& v : src.raw.values)
                        v = v < -0.3 ? -0.5 : v < 0.3 ? 0.25 : 0.5;
                const Array diff_dst =
                    uniform({shape[0], (shape[1] + 1) / 2, (shape[2] + 1) / 2, shape[3]}, rig.act, 3);
                const Array g = naive::max_pool_backward(naive::value(src), diff_dst);
                const Activation src_on = rig.put(src);
                const Tensor diff_dst_on = rig.put_act(diff_dst);
                const auto op = [&](const DiffSrc& left) {
                    rig.backend.max_pool_backward(rig.ctx, src_on, diff_dst_on, left);
                };
                check_left(rig, g, src, rig.tolerance, op);
                check_left(rig, g, {}, rig.tolerance, op);
            });
}

TEST_CASE("avg_pool equals double precision") {
    for (const Shape& shape : shapes)
        for_each_rig([&](Rig& rig) {
            const Array src = uniform(shape, rig.act, 1, -0.5, 1.5);
            const Tensor dst = rig.rubbish(rig.act, {shape[0], shape[3]});
            rig.backend.avg_pool(rig.ctx, rig.put_act(src), dst);
            CHECK_NEAR(rig.get(dst), naive::avg_pool(src), rig.tolerance);
        });
}

TEST_CASE("avg_pool_backward spreads the gradient, then clips, adds and gathers") {
    for (const Shape& shape : shapes)
        for_each_rig([&](Rig& rig) {
            INFO(shape.str());
            const Array diff_dst = uniform({shape[0], shape[3]}, rig.act, 1);
            const Array g = naive::avg_pool_backward(diff_dst, shape);
            const Tensor diff_dst_on = rig.put_act(diff_dst);
            const auto op = [&](const DiffSrc& left) { rig.backend.avg_pool_backward(rig.ctx, diff_dst_on, left); };
            check_left(rig, g, {uniform(shape, rig.act, 2), {}, true}, rig.tolerance, op);
            check_left(rig, g, {uniform(shape, rig.act, 2), some_norm(shape[3], 5), true}, rig.tolerance, op);
            check_left(rig, g, {uniform(shape, rig.act, 2), some_norm(shape[3], 5), false}, rig.tolerance, op);
            check_left(rig, g, {}, rig.tolerance, op);
        });
}

TEST_CASE("a value of exactly 0 lets no gradient pass") {
    for_each_rig([](Rig& rig) {
        const Shape shape{1, 1, 3, 1};
        naive::Pending at{Array(shape), {}, true};
        at.raw.values = {0.0, -0.0, 0.5};
        const Tensor diff = rig.rubbish(rig.act, shape);
        DiffSrc left;
        left.diff = diff;
        left.at = rig.put(at);
        rig.backend.avg_pool_backward(rig.ctx, rig.put_act(Array({1, 1}, 3)), left);
        CHECK(rig.get(diff).values == std::vector<double>{0, 0, 1});
    });
}
