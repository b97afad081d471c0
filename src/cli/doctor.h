// What doctor looks at. Each examination gives findings and never throws: a bare machine is what it is for.
#pragma once

#include <string>
#include <vector>

namespace rn50 {
struct CudaModuleInfo;
}

namespace rn50::doctor {

enum class State : uint8_t {
    good,
    costs,    ///< works, yet something is slower or less than it could be
    missing,  ///< rn50 cannot work like this
};

struct Finding {
    State state;
    std::string topic;   ///< "memory"
    std::string text;    ///< one line
    std::string remedy;  ///< a command or advice; may be empty
};

/// Operating system, processor, cores, memory, huge pages, free disk space.
std::vector<Finding> examine_machine();
/// NVIDIA's hardware, driver and libraries, asked through dlopen: nothing of CUDA is needed to build or to run this.
std::vector<Finding> examine_gpu();
/// NCCL, and where there are several GPUs what they need to train together: the way between them, the network,
/// /dev/shm.
std::vector<Finding> examine_ranks(const CudaModuleInfo& info);
/// The libraries this program was built with, and whether its backend comes up.
std::vector<Finding> examine_build();

/// Whether this build computes on a CPU too.
bool has_cpu_backend();

/// The first interface that NCCL takes among those that are up, by its own rule, with NCCL_SOCKET_IFNAME set so ("":
/// not set): the beginnings of names, of which "=" wants them whole and "^" none. "" where it finds none.
std::string nccl_interface(const std::vector<std::string>& names, const std::string& setting);

/// "1.5 GB"
std::string gigabytes(double bytes);

}  // namespace rn50::doctor
