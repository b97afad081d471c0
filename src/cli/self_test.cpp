#include "cli/self_test.h"

#include <chrono>
#include <cmath>

#include "base/error.h"
#include "cli/self_test_ops.h"

namespace rn50::doctor {

namespace {

/// As the op tests: one op against double precision.
double tolerance_of(Precision precision) {
    switch (precision) {
        case Precision::fp32:
            return 1e-5;
        case Precision::tf32:
            return 1e-3;
        case Precision::fp16:
            return 2e-3;
        case Precision::bf16:
            return 1e-2;
    }
    return 0;
}

/// ‖a - b‖ / ‖b‖, or ‖a‖ where b is 0; NaN when anything is NaN.
double distance(const std::vector<double>& a, const std::vector<double>& b) {
    double difference = 0, size = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        size += b[i] * b[i];
    }
    return std::sqrt(size > 0 ? difference / size : difference);
}

OpResult run(const Check& check, Backend& device, Backend& reference, Precision precision) {
    OpResult result;
    result.op = check.op;
    result.precision = precision;
    result.tolerance = tolerance_of(precision);
    try {
        const auto start = std::chrono::steady_clock::now();
        Side tested(device, precision), again(device, precision);
        check.run(tested);
        check.run(again);
        result.milliseconds =
            std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
        Side expected(reference, Precision::fp32);
        check.run(expected);
        for (size_t i = 0; i < expected.outputs.size(); ++i) {
            const double far = distance(tested.outputs[i], expected.outputs[i]);
            if (!(far <= result.worst)) result.worst = far;
            if (!(far <= result.tolerance)) result.fault = std::isnan(far) ? "not a number" : "too far";
        }
        if (result.fault.empty() && tested.outputs != again.outputs) result.fault = "two runs differ";
    } catch (const std::exception& error) {
        result.fault = error.what();
    }
    return result;
}

}  // namespace

bool answers(Backend& device) {
    try {
        Side side(device, Precision::fp32);
        const Tensor tensor = side.output(DType::f32, {1});
        device.zero(side.ctx, tensor);
        side.give(tensor);
        return side.outputs[0][0] == 0;
    } catch (const std::exception&) {
        return false;
    }
}

std::vector<OpResult> self_test(Backend& device, Backend& reference,
                                const std::function<void(const OpResult&)>& report) {
    const DeviceInfo info = device.info();
    std::vector<Precision> precisions{Precision::fp32};
    if (info.tf32) precisions.push_back(Precision::tf32);
    if (info.fp16) precisions.push_back(Precision::fp16);
    if (info.bf16) precisions.push_back(Precision::bf16);
    std::vector<OpResult> results;
    for (const Precision precision : precisions)
        for (const Check& check : self_test_checks()) {
            if (check.of_f32_alone && precision != Precision::fp32) continue;
            results.push_back(run(check, device, reference, precision));
            OpResult& result = results.back();
            result.device_lost = !result.fault.empty() && !answers(device);
            report(result);
            if (result.device_lost) return results;  // every other op would fail with this one's error
        }
    return results;
}

std::string self_test_heading(const DeviceInfo& device, const DeviceInfo& reference) {
    if (device.kind != reference.kind) return cat(device.name, ", beside ", reference.name, " in fp32");
    return cat(device.name, ", beside itself in fp32",
               device.kind == "cpu" ? "" : ", for this build has no CPU backend",
               ": there fp32 is only repeated, not compared with anything else");
}

}  // namespace rn50::doctor
