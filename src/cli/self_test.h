// rn50 doctor --self-test: every op of the backend page on the user's own device, beside the CPU twin.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace rn50::doctor {

/// How one op did in one precision.
struct OpResult {
    std::string op;
    Precision precision = Precision::fp32;
    double worst = 0;  ///< the largest relative distance (2-norm) of one of its outputs
    double tolerance = 0;
    double milliseconds = 0;   ///< preparation and two runs on the device
    std::string fault;         ///< "" when it passed
    bool device_lost = false;  ///< with this op the device stopped answering: none after it was tried
};

/// Whether a device still computes. After a faulty access a GPU answers every later call with the error of that one.
bool answers(Backend& device);

/// Runs every op on `device`, in each precision it has hardware for, and on `reference` in fp32, with the same small
/// random inputs, which every precision holds exactly. Each op runs twice on the device and must give the same bits.
/// `report` sees each result as it comes. Ends early where the device is lost.
std::vector<OpResult> self_test(Backend& device, Backend& reference,
                                const std::function<void(const OpResult&)>& report);

/// What the results mean, before the first of them: "NVIDIA H200, beside AMD EPYC in fp32". A device beside itself
/// shows nothing in fp32 but that it repeats itself, which is said.
std::string self_test_heading(const DeviceInfo& device, const DeviceInfo& reference);

}  // namespace rn50::doctor
