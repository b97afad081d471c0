// The passes that `rn50 bench kernels` times: each does what its name says, for the bytes it claims.
#include <doctest/doctest.h>

#include <map>

#include "op_support.h"

using namespace rn50;
using namespace rn50::test;

namespace {

const Shape shape{2, 5, 7, 40};

std::map<std::string, Pass> passes_of(Rig& rig, const PassTensors& tensors) {
    std::map<std::string, Pass> passes;
    for (const Pass& pass : rig.backend.passes(tensors))
        passes[pass.name] = pass;
    return passes;
}

}  // namespace

TEST_CASE("passes: every backend has a copy") {
    for_each_rig([](Rig& rig) {
        const Array raw = uniform(shape, rig.act, 1);
        PassTensors tensors;
        tensors.src.raw = rig.put_act(raw);
        tensors.dst = rig.rubbish(rig.act, shape);
        const auto passes = passes_of(rig, tensors);
        REQUIRE(passes.count("copy") == 1);
        passes.at("copy").run(rig.ctx);
        CHECK(rig.bytes(tensors.dst) == rig.bytes(tensors.src.raw));
        CHECK(passes.at("copy").bytes == 2 * tensors.dst.bytes());
    });
}

TEST_CASE("passes: those around convolutions equal double precision, and nothing runs dry") {
    for_each_rig([](Rig& rig) {
        if (rig.backend.info().kind != "cuda") return;
        const naive::Pending src{uniform(shape, rig.act, 1), some_norm(shape[3], 2), true};
        const Array dz = uniform(shape, rig.act, 3), g = uniform(shape, rig.act, 4),
                    before = uniform(shape, rig.act, 5);
        const naive::NormGradient gradient = some_norm_gradient(shape[3], 6);
        PassTensors t;
        t.src = rig.put(src);
        t.dst = rig.rubbish(rig.act, shape);
        t.stats = rig.rubbish(DType::f32, {2, shape[3]});
        t.diff_dst = {rig.put_act(dz), t.src.raw, rig.put(gradient)};
        t.d_raw = rig.rubbish(rig.act, shape);
        t.g = rig.put_act(g);
        const NormSums own{t.src.raw, t.src.norm.mean, t.src.norm.inv_std, rig.rubbish(DType::f32, {2, shape[3]})};
        const NormSums other{t.g, t.src.norm.mean, t.src.norm.inv_std, rig.rubbish(DType::f32, {2, shape[3]})};
        t.diff_src = {rig.put_act(before), Write::add, t.src, {own, other}};

        auto passes = passes_of(rig, t);
        REQUIRE(passes.size() == 5);
        const std::string untouched = rig.bytes(t.diff_src.diff);
        rig.ctx.dry = true;
        passes["leave gradient"].run(rig.ctx);
        rig.ctx.dry = false;
        CHECK(rig.bytes(t.diff_src.diff) == untouched);

        passes["apply"].run(rig.ctx);
        CHECK_NEAR(rig.get(t.dst), naive::value(src), rig.tolerance);
        passes["statistics"].run(rig.ctx);
        const Array stats = rig.get(t.stats), expected = naive::statistics(src.raw);
        CHECK_NEAR(stats.row(0), expected.row(0), 1e-5);
        CHECK_NEAR(stats.row(1), expected.row(1), 1e-5);
        passes["norm gradient"].run(rig.ctx);
        CHECK_NEAR(rig.get(t.d_raw), naive::apply(gradient, dz, src.raw), rig.tolerance);
        passes["leave gradient"].run(rig.ctx);
        CHECK_NEAR(rig.get(t.diff_src.diff), naive::leave(g, &before, src), rig.tolerance);

        const int64_t one = t.dst.bytes();
        CHECK(passes["apply"].bytes == 2 * one);
        CHECK(passes["statistics"].bytes == one);
        CHECK(passes["norm gradient"].bytes == 3 * one);
        // g, what it is added to, the clipping tensor that is also a norm's, the other norm's; diff written.
        CHECK(passes["leave gradient"].bytes == 5 * one);
    });
}
