// rn50 doctor: what this machine has and lacks, and the command that mends it.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <nlohmann/json.hpp>

#include "backend/backend.h"
#include "base/error.h"
#include "cli/commands.h"
#include "cli/doctor.h"
#include "cli/self_test.h"

namespace rn50 {

namespace {

using doctor::Finding;
using doctor::State;

void print_lines(const std::vector<Finding>& findings) {
    for (const Finding& finding : findings) {
        const char* const mark = finding.state == State::good ? "✓" : finding.state == State::costs ? "!" : "✗";
        std::printf("%s %-12s %s\n", mark, finding.topic.c_str(), finding.text.c_str());
        if (!finding.remedy.empty()) std::printf("  %-12s → %s\n", "", finding.remedy.c_str());
    }
}

using Json = nlohmann::ordered_json;

void put_line(const Json& object) {
    std::puts(object.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
}

void print_json(const std::vector<Finding>& findings, bool ready) {
    Json list = Json::array();
    for (const Finding& finding : findings) {
        const char* const state = finding.state == State::good    ? "good"
                                  : finding.state == State::costs ? "costs"
                                                                  : "missing";
        list.push_back(
            {{"topic", finding.topic}, {"state", state}, {"text", finding.text}, {"remedy", finding.remedy}});
    }
    put_line({{"ready", ready}, {"findings", list}});
}

// --- the self-test

/// A device that hangs or takes the program with it should show where: each line is out before the next op begins.
void print_op(const doctor::OpResult& result) {
    std::printf("%s %-28s %s  distance %.1e of %.0e  %7.1f ms%s%s\n", result.fault.empty() ? "✓" : "✗",
                result.op.c_str(), name_of(result.precision), result.worst, result.tolerance, result.milliseconds,
                result.fault.empty() ? "" : "  ", result.fault.c_str());
    std::fflush(stdout);
}

void print_op_json(const doctor::OpResult& result) {
    put_line({{"op", result.op},
              {"precision", name_of(result.precision)},
              {"distance", result.worst},
              {"tolerance", result.tolerance},
              {"ms", result.milliseconds},
              {"fault", result.fault},
              {"device_lost", result.device_lost}});
    std::fflush(stdout);
}

void print_verdict(const std::vector<doctor::OpResult>& results, long long failed) {
    if (failed == 0) {
        std::printf("all %zu passed\n", results.size());
        return;
    }
    const bool lost = results.back().device_lost;
    std::printf(
        "%lld of %zu failed%s: do not train on this device; report the lines marked ✗, with those of rn50 doctor\n",
        failed, results.size(),
        lost ? cat(", and the device was lost with ", results.back().op, " in ", name_of(results.back().precision),
                   ", so none after it was tried")
                   .c_str()
             : "");
}

int run_self_test(const Options& options) {
    // Whether numbers are right is asked, not how fast: timing the plans of these odd shapes would take minutes.
    setenv("RN50_AUTOTUNE", "0", 0);
    const std::unique_ptr<Backend> device = make_backend(options.device);
    // Without a CPU backend the device's own fp32 is all there is to compare with.
    const std::unique_ptr<Backend> reference =
        doctor::has_cpu_backend() ? make_backend("cpu") : make_backend(options.device);
    const DeviceInfo info = device->info(), beside = reference->info();
    if (options.json)
        put_line({{"device", info.name}, {"reference", beside.name}, {"fp32_only_repeated", info.kind == beside.kind}});
    else
        std::printf("%s\n", doctor::self_test_heading(info, beside).c_str());
    const std::vector<doctor::OpResult> results =
        doctor::self_test(*device, *reference, options.json ? print_op_json : print_op);
    const auto failed = std::count_if(results.begin(), results.end(),
                                      [](const doctor::OpResult& result) { return !result.fault.empty(); });
    if (options.json)
        put_line({{"passed", failed == 0}, {"ops", results.size()}, {"failed", failed}});
    else
        print_verdict(results, failed);
    return static_cast<int>(failed == 0 ? Exit::ok : Exit::device);
}

}  // namespace

int run_doctor(const Options& options) {
    if (options.self_test) return run_self_test(options);
    std::vector<Finding> findings = doctor::examine_machine();
    for (auto& more : {doctor::examine_gpu(), doctor::examine_build()})
        findings.insert(findings.end(), more.begin(), more.end());
    const bool ready = std::none_of(findings.begin(), findings.end(),
                                    [](const Finding& finding) { return finding.state == State::missing; });
    if (options.json) {
        print_json(findings, ready);
    } else {
        print_lines(findings);
        std::puts(ready ? "ready to train" : "not ready to train: see ✗ above");
    }
    return static_cast<int>(ready ? Exit::ok : Exit::device);
}

}  // namespace rn50
