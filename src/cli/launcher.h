// Starts the ranks of a run on this machine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace rn50 {

/// Starts this program anew `ranks` times, with the same arguments and each rank's place in the environment, before
/// which `environment` ("NAME=value") is put, passes signals on, and waits for all of them. Returns the exit code of
/// the first that failed for a reason of its own, Exit::peer_lost when all others were lost or killed. Ranks that
/// outlive the first failure by what a watch leaves them (`peer_timeout` seconds, 20 at most), and a grace, are killed.
/// Must be called before this process has threads. Throws Error(Exit::device) when a rank cannot be started.
int launch_ranks(int64_t ranks, const std::vector<std::string>& environment, double peer_timeout);

}  // namespace rn50
