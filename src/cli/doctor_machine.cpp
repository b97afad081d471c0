#include <sys/statvfs.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <sstream>

#include "base/error.h"
#include "base/machine.h"
#include "cli/doctor.h"

namespace rn50::doctor {

namespace {

constexpr double giga = 1e9;

/// The value of the first "key : value" or "key=value" line of a file.
std::string value_of(const std::string& file, const std::string& key, char separator) {
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
        const size_t at = line.find(separator);
        if (at == std::string::npos || line.compare(0, key.size(), key) != 0) continue;
        std::string value = line.substr(at + 1);
        const size_t first = value.find_first_not_of(" \t\""), last = value.find_last_not_of(" \t\"");
        return first == std::string::npos ? "" : value.substr(first, last - first + 1);
    }
    return "";
}

bool has_word(const std::string& text, const std::string& word) {
    return (" " + text + " ").find(" " + word + " ") != std::string::npos;
}

Finding system_finding() {
    const std::string name = value_of("/etc/os-release", "PRETTY_NAME", '=');
    std::string kernel;
    std::ifstream("/proc/sys/kernel/osrelease") >> kernel;
    return {State::good, "system", cat(name.empty() ? "Linux" : name, kernel.empty() ? "" : ", kernel " + kernel), ""};
}

Finding processor_finding() {
    const std::string name = value_of("/proc/cpuinfo", "model name", ':');
    const std::string flags = value_of("/proc/cpuinfo", "flags", ':');
    const std::pair<const char*, const char*> sets[] = {
        {"sse4_2", "SSE4.2"},    {"avx2", "AVX2"},         {"avx512f", "AVX-512"}, {"avx512_vnni", "VNNI"},
        {"avx512_bf16", "BF16"}, {"amx_bf16", "AMX-BF16"}, {"avx512_fp16", "FP16"}};
    std::string has;
    for (const auto& [flag, label] : sets)
        if (has_word(flags, flag)) has += cat(has.empty() ? "" : " ", label);
    const std::string text = cat(name.empty() ? "unknown" : name, ": ", has.empty() ? "no SIMD sets known" : has);
    if (has_word(flags, "avx2")) return {State::good, "processor", text, ""};
    return {State::costs, "processor", text + "; no AVX2", "a processor with AVX2 or AVX-512 is several times faster"};
}

Finding cores_finding() {
    const Cores cores = cores_of_process();
    const int usable = cores.usable();
    if (usable == cores.present) return {State::good, "cores", cat(usable, " usable, all there are"), ""};
    std::string why;
    if (cores.allowed < cores.present) why = cat("affinity allows ", cores.allowed);
    if (cores.quota > 0 && cores.quota < cores.present) {
        char quota[32];
        std::snprintf(quota, sizeof quota, "%.4g", cores.quota);
        why += cat(why.empty() ? "" : ", ", "the control group grants ", quota);
    }
    return {State::costs, "cores", cat(usable, " usable of ", cores.present, ": ", why),
            "give the container or the job more cores (docker run --cpus N, taskset, cpu.max)"};
}

Finding memory_finding() {
    const HostMemory memory = memory_of_process();
    if (memory.total == 0) return {State::costs, "memory", "unknown: /proc/meminfo cannot be read", "mount /proc"};
    std::string text =
        cat(gigabytes(static_cast<double>(memory.usable())), " free of ", gigabytes(static_cast<double>(memory.total)));
    if (memory.limit > 0) text += cat("; the control group grants ", gigabytes(static_cast<double>(memory.limit)));
    if (memory.usable() > 4 * giga) return {State::good, "memory", text, ""};
    return {State::costs, "memory", text, "with so little choose a small --batch-size and --memory lean"};
}

Finding huge_pages_finding() {
    std::ifstream in("/sys/kernel/mm/transparent_hugepage/enabled");
    std::string line;
    std::getline(in, line);
    const size_t open = line.find('['), close = line.find(']');
    if (open == std::string::npos || close == std::string::npos)
        return {State::costs, "huge pages", "not offered by this kernel", ""};
    const std::string mode = line.substr(open + 1, close - open - 1);
    if (mode != "never") return {State::good, "huge pages", mode, ""};
    return {State::costs, "huge pages", "never", "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"};
}

Finding disk_finding() {
    struct statvfs disk {};
    if (statvfs(".", &disk) != 0) return {State::costs, "disk", with_errno("the current folder"), "cd elsewhere"};
    const double bytes = static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize);
    const std::string text = gigabytes(bytes) + " free in the current folder";
    if (access(".", W_OK) != 0)
        return {State::costs, "disk", text + ", which may not be written", "cd elsewhere, or write with --out DIR"};
    if (bytes > 2 * giga) return {State::good, "disk", text, ""};
    return {State::costs, "disk", text, "a run of resnet50 needs about 0.5 GB: free some space, or use --out DIR"};
}

}  // namespace

std::string gigabytes(double bytes) {
    char text[32];
    std::snprintf(text, sizeof text, bytes < 100 * giga ? "%.1f GB" : "%.0f GB", bytes / giga);
    return text;
}

std::vector<Finding> examine_machine() {
    return {system_finding(), processor_finding(),  cores_finding(),
            memory_finding(), huge_pages_finding(), disk_finding()};
}

}  // namespace rn50::doctor
