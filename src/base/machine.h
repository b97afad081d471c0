// What this process may use of the machine: cores and memory, after affinity, containers and job schedulers took
// theirs; whether NVIDIA's devices are plugged in; and how packages are installed on it.
#pragma once

#include <cstdint>
#include <string>

namespace rn50 {

struct Cores {
    int present = 1;   ///< online in the machine
    int allowed = 1;   ///< by the process's affinity (taskset, a job scheduler)
    double quota = 0;  ///< cores' worth of time granted by cgroups; 0: no limit
    /// What to start threads for: the least of allowed and quota (rounded up), at least 1.
    int usable() const;
};

struct HostMemory {
    int64_t total = 0;       ///< bytes in the machine; 0 where /proc does not tell
    int64_t available = 0;   ///< bytes that can be taken without swapping
    int64_t limit = 0;       ///< bytes granted by cgroups; 0: no limit
    int64_t limit_used = 0;  ///< bytes of that limit in use, file cache aside
    /// What a run may take now: the less of available and what is left of the limit.
    int64_t usable() const;
};

/// Reads /proc and /sys below `root` (cgroups of version 1 and 2). Never throws: what cannot be read is left out.
Cores cores_of_process(const std::string& root = "/");
HostMemory memory_of_process(const std::string& root = "/");

/// Names the cores on which this process may run: its host and their numbers. "" where the system does not tell.
std::string core_set_of_process();

/// NVIDIA's graphics devices on the PCI bus: seen without any driver.
int nvidia_devices(const std::string& root = "/");
/// "535.183.01" of the kernel module that is loaded, or "". Finer than the number of CUDA that the driver's library
/// tells.
std::string nvidia_driver_release(const std::string& root = "/");

/// The command that installs a package here: apt-get, dnf or yum by what the system has.
std::string install_command(const std::string& debian_package, const std::string& redhat_package);

}  // namespace rn50
