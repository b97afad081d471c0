#include "base/machine.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <regex>
#include <sstream>
#include <vector>

#include "base/error.h"

namespace rn50 {

namespace {

/// The folder of the process's control group and all those above it, nearest first: each may set a limit. `controller`
/// is "" for version 2, where one tree holds all.
std::vector<std::string> group_folders(const std::string& root, const std::string& controller) {
    std::string mount = root + "sys/fs/cgroup/" + controller;
    if (mount.back() != '/') mount += '/';
    std::string path;
    std::ifstream groups(root + "proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {  // "4:cpu,cpuacct:/path" or "0::/path"
        const size_t first = line.find(':'), second = line.find(':', first + 1);
        if (first == std::string::npos || second == std::string::npos) continue;
        const std::string names = "," + line.substr(first + 1, second - first - 1) + ",";
        const bool matches =
            controller.empty() ? names == ",," : names.find("," + controller + ",") != std::string::npos;
        if (matches) path = line.substr(second + 1);
    }
    std::vector<std::string> folders;
    while (!path.empty() && path != "/") {
        folders.push_back(mount + path.substr(1) + "/");
        path.erase(path.rfind('/'));
    }
    folders.push_back(mount);  // inside a container the path is the host's, and its own group is mounted here
    return folders;
}

/// The first number of a file; "max" and what is missing give `otherwise`.
double number_in(const std::string& file, double otherwise) {
    std::ifstream in(file);
    double number = otherwise;
    return in >> number ? number : otherwise;
}

/// A number behind `key` in a file of "key number" lines, such as MemTotal: in /proc/meminfo.
double number_behind(const std::string& file, const std::string& key) {
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
        std::istringstream words(line);
        std::string word;
        double number = 0;
        if (words >> word && word == key && words >> number) return number;
    }
    return 0;
}

double cpu_quota(const std::string& root) {
    double least = std::numeric_limits<double>::infinity();
    for (const std::string& folder : group_folders(root, "")) {
        std::ifstream in(folder + "cpu.max");  // "200000 100000" or "max 100000"
        double quota = 0, period = 0;
        if (in >> quota >> period && period > 0) least = std::min(least, quota / period);
    }
    for (const std::string& folder : group_folders(root, "cpu")) {
        const double quota = number_in(folder + "cpu.cfs_quota_us", -1);
        const double period = number_in(folder + "cpu.cfs_period_us", 0);
        if (quota > 0 && period > 0) least = std::min(least, quota / period);
    }
    return std::isinf(least) ? 0 : least;
}

/// Keeps the group with the least left of its limit.
void note_limit(HostMemory& memory, double limit, double used) {
    if (limit <= 0 || limit >= static_cast<double>(memory.total)) return;  // version 1 writes "no limit" as 2^63
    const auto bytes = static_cast<int64_t>(limit), in_use = static_cast<int64_t>(std::max(used, 0.0));
    if (memory.limit != 0 && memory.limit - memory.limit_used <= bytes - in_use) return;
    memory.limit = bytes;
    memory.limit_used = in_use;
}

}  // namespace

int Cores::usable() const {
    const int granted = quota > 0 ? static_cast<int>(std::ceil(quota)) : allowed;
    return std::max(1, std::min(allowed, granted));
}

int64_t HostMemory::usable() const {
    return limit == 0 ? available : std::max<int64_t>(0, std::min(available, limit - limit_used));
}

Cores cores_of_process(const std::string& root) {
    Cores cores;
    cores.present = std::max(1, static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)));
    cores.allowed = cores.present;
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) cores.allowed = std::max(1, CPU_COUNT(&set));
    cores.quota = cpu_quota(root);
    return cores;
}

HostMemory memory_of_process(const std::string& root) {
    HostMemory memory;
    const std::string meminfo = root + "proc/meminfo";
    memory.total = static_cast<int64_t>(number_behind(meminfo, "MemTotal:") * 1024);
    memory.available = static_cast<int64_t>(number_behind(meminfo, "MemAvailable:") * 1024);
    for (const std::string& folder : group_folders(root, "")) {
        const double cache = number_behind(folder + "memory.stat", "inactive_file");
        note_limit(memory, number_in(folder + "memory.max", 0), number_in(folder + "memory.current", 0) - cache);
    }
    for (const std::string& folder : group_folders(root, "memory")) {
        const double cache = number_behind(folder + "memory.stat", "total_inactive_file");
        note_limit(memory, number_in(folder + "memory.limit_in_bytes", 0),
                   number_in(folder + "memory.usage_in_bytes", 0) - cache);
    }
    return memory;
}

std::string core_set_of_process() {
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) return "";
    std::string text = host;
    for (int core = 0; core < CPU_SETSIZE; ++core)
        if (CPU_ISSET(core, &set)) text += cat(" ", core);
    return text;
}

int nvidia_devices(const std::string& root) {
    int count = 0;
    std::error_code unreadable;
    for (const auto& device : std::filesystem::directory_iterator(root + "sys/bus/pci/devices", unreadable)) {
        std::string vendor, device_class;
        std::ifstream(device.path() / "vendor") >> vendor;
        std::ifstream(device.path() / "class") >> device_class;
        if (vendor == "0x10de" && device_class.compare(0, 4, "0x03") == 0) ++count;
    }
    return count;
}

std::string nvidia_driver_release(const std::string& root) {
    std::ifstream in(root + "proc/driver/nvidia/version");
    std::string line;
    std::getline(in, line);
    std::smatch found;
    return std::regex_search(line, found, std::regex("[0-9]{3,}\\.[0-9.]+")) ? found.str() : "";
}

std::string install_command(const std::string& debian_package, const std::string& redhat_package) {
    if (access("/usr/bin/apt-get", X_OK) == 0) return "sudo apt-get install " + debian_package;
    const char* const tool = access("/usr/bin/dnf", X_OK) == 0 ? "dnf" : "yum";
    return cat("sudo ", tool, " install ", redhat_package);
}

}  // namespace rn50
