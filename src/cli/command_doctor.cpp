// rn50 doctor: what this machine has and lacks, and the command that mends it.
#include <algorithm>
#include <cstdio>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/doctor.h"

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

void print_json(const std::vector<Finding>& findings, bool ready) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const Finding& finding : findings) {
        const char* const state = finding.state == State::good    ? "good"
                                  : finding.state == State::costs ? "costs"
                                                                  : "missing";
        list.push_back(
            {{"topic", finding.topic}, {"state", state}, {"text", finding.text}, {"remedy", finding.remedy}});
    }
    const nlohmann::ordered_json object{{"ready", ready}, {"findings", list}};
    std::puts(object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
}

}  // namespace

int run_doctor(const Options& options) {
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
