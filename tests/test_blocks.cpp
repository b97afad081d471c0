// One residual block of each kind against PyTorch's numbers: a reference input and a reference gradient in, every
// gradient out. Far tighter than the whole net can be, where rounding is amplified from block to block.
#include <doctest/doctest.h>

#include "formula.h"
#include "golden.h"
#include "net_support.h"
#include "op_support.h"

using namespace rn50;
using namespace rn50::test;
using nlohmann::json;

namespace {

/// The table's cosine; norms and values by five times PyTorch's distance from itself.
struct Limits {
    double cosine, norm, values;
};

Limits limits_of(Precision precision) {
    switch (precision) {
        case Precision::fp32:
            return {.9999, 1e-4, 1e-5};
        case Precision::tf32:
            return {.998, 1e-2, 3e-3};
        case Precision::fp16:
            return {.998, 1e-2, 5e-3};
        case Precision::bf16:
            return {.985, 8e-2, 3e-2};
    }
    return {};
}

void check_block(Rig& rig, const std::string& name, const json& golden) {
    INFO(name);
    const BlockBench::Kind kind{name,
                                golden["block"] == "bottleneck",
                                golden["batch"],
                                golden["side"],
                                golden["channels"],
                                golden["planes"],
                                golden["stride"]};
    const int64_t out = kind.planes * (kind.bottleneck ? 4 : 1), to = (kind.side - 1) / kind.stride + 1;
    const std::vector<float> src =
        formula_uniform(name + ".src", kind.batch * kind.side * kind.side * kind.channels, -0.5, 1);
    const std::vector<float> diff_dst = formula_uniform(name + ".diff_dst", kind.batch * to * to * out);

    BlockBench block(rig.backend, rig.precision, kind);
    block.forward_backward(src, diff_dst);
    const Limits limits = limits_of(rig.precision);
    CHECK(compare(golden["dst"], "dst", block.dst()).distance <= limits.values);
    const auto check_gradient = [&](const std::string& parameter, const std::vector<float>& gradient) {
        INFO(parameter);
        REQUIRE(golden["gradients"].contains(parameter));
        const Likeness likeness = compare(golden["gradients"][parameter], parameter, gradient);
        CHECK(likeness.cosine >= limits.cosine);
        CHECK(likeness.norm <= limits.norm);
    };
    check_gradient("src", block.diff_src());
    const std::vector<std::string> names = block.parameter_names();
    CHECK(names.size() + 1 == golden["gradients"].size());
    for (const std::string& parameter : names)
        check_gradient(parameter, block.gradient(parameter));
    for (const auto& [parameter, summary] : golden["running"].items()) {
        INFO(parameter);
        CHECK(compare(summary, parameter, block.running(parameter)).distance <= limits.values);
    }
}

}  // namespace

TEST_CASE("one block of each kind: its output, every gradient and the running statistics are PyTorch's") {
    const json golden = read_golden("blocks");
    for_each_rig(
        [&](Rig& rig) {
            int checked = 0;
            for (const auto& [name, block] : golden.items())
                if (block.is_object()) {
                    check_block(rig, name, block);
                    ++checked;
                }
            CHECK(checked == 5);
        },
        Plans::timed);
}
