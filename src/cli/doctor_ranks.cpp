// What several GPUs need beside what each of them does: NCCL, a way between them, a network, shared memory.
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "backend/cuda_module.h"
#include "base/error.h"
#include "base/machine.h"
#include "cli/doctor.h"

namespace rn50::doctor {

namespace {

/// Less is what a container has unless it is told otherwise (64 MB), and too little for NCCL.
constexpr double enough_shared_memory = 256e6;

Finding nccl_finding(const CudaModuleInfo& info) {
    const bool several = info.devices.size() > 1;
    const State state = several ? State::costs : State::good;
    if (info.nccl_built.empty())
        return {state, "NCCL", "the GPU module was built without it: it trains on one GPU at a time",
                several ? "install nccl.h (libnccl-dev, on Red Hat libnccl-devel) and build anew: make" : ""};
    if (info.nccl.empty())
        return {state, "NCCL",
                several ? "not found: training on several GPUs needs it" : "not found; one GPU needs none",
                several ? install_command("libnccl2", "libnccl") + ", or NVIDIA's own package for your CUDA" : ""};
    return {State::good, "NCCL",
            cat(info.nccl, info.nccl == info.nccl_built ? "" : cat(", built with ", info.nccl_built),
                "; a run says which ways it takes"),
            ""};
}

Finding peers_finding(const CudaModuleInfo& info) {
    size_t direct = 0;
    const size_t gpus = info.devices.size(), all = gpus * (gpus - 1);
    for (const std::vector<bool>& row : info.peers)
        direct += static_cast<size_t>(std::count(row.begin(), row.end(), true));
    const bool geforce = info.devices[0].name.find("GeForce") != std::string::npos;
    if (direct == all)
        return {State::good, "GPU to GPU", cat("all ", gpus, " reach each other's memory (peer-to-peer)"),
                geforce
                    ? "GeForce drivers claim this wrongly at times: if several GPUs hang or fail, NCCL_P2P_DISABLE=1"
                    : ""};
    return {State::costs, "GPU to GPU",
            direct == 0 ? "no peer-to-peer: NCCL goes by way of the host's memory"
                        : cat("peer-to-peer in ", direct, " of ", all, " directions, else by way of the host's memory"),
            geforce ? "nothing to mend: GeForce has none; if several GPUs hang or fail, NCCL_P2P_DISABLE=1"
                    : "nvidia-smi topo -p2p r shows which; IOMMU and ACS (in the BIOS) may stand between"};
}

std::vector<std::pair<std::string, std::string>> interfaces() {
    std::vector<std::pair<std::string, std::string>> found;  // name, address
    ifaddrs* all = nullptr;
    if (getifaddrs(&all) != 0) return found;
    for (const ifaddrs* at = all; at != nullptr; at = at->ifa_next) {
        if (at->ifa_addr == nullptr || at->ifa_addr->sa_family != AF_INET || (at->ifa_flags & IFF_UP) == 0) continue;
        char text[INET_ADDRSTRLEN] = "";
        inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(at->ifa_addr)->sin_addr, text, sizeof text);
        found.emplace_back(at->ifa_name, text);
    }
    freeifaddrs(all);
    return found;
}

Finding network_finding() {
    const char* const set = std::getenv("NCCL_SOCKET_IFNAME");
    const std::string setting = set == nullptr ? "" : set;
    std::vector<std::string> names;
    const auto all = interfaces();
    for (const auto& [name, address] : all)
        names.push_back(name);
    const std::string taken = nccl_interface(names, setting);
    if (taken.empty())
        return {State::costs, "network",
                setting.empty() ? "no interface with an IPv4 address is up: several ranks cannot meet"
                                : cat("NCCL_SOCKET_IFNAME=", setting, " names no interface that is up"),
                "ip -brief address shows those that there are; name one in NCCL_SOCKET_IFNAME"};
    std::string text = cat("NCCL would take ", taken);
    for (const auto& [name, address] : all)
        if (name == taken) text += cat(" (", address, ")");
    const bool inner = taken == "lo" || taken.rfind("docker", 0) == 0 || taken.rfind("virbr", 0) == 0 ||
                       taken.rfind("br-", 0) == 0 || taken.rfind("veth", 0) == 0;
    if (!inner) return {State::good, "network", text, ""};
    return {State::costs, "network", text + ", which other machines do not reach",
            "one machine needs no other; for several set NCCL_SOCKET_IFNAME to the network that joins them"};
}

Finding shared_memory_finding() {
    struct statvfs disk {};
    if (statvfs("/dev/shm", &disk) != 0)
        return {State::costs, "/dev/shm", with_errno("not there"), "mount -t tmpfs -o size=1g tmpfs /dev/shm"};
    const double bytes = static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize);
    const std::string text = gigabytes(bytes) + " free";
    if (bytes >= enough_shared_memory) return {State::good, "/dev/shm", text, ""};
    return {State::costs, "/dev/shm", text + ": too little for NCCL between several GPUs",
            "docker run --shm-size=1g (or --ipc=host), else mount -o remount,size=1g /dev/shm"};
}

bool fits(const std::string& name, const std::string& pattern, bool exact) {
    return exact ? name == pattern : name.rfind(pattern, 0) == 0;
}

}  // namespace

std::string nccl_interface(const std::vector<std::string>& names, const std::string& setting) {
    const auto first = [&](const std::string& list) -> std::string {
        const bool but = !list.empty() && list[0] == '^', exact = list.size() > but && list[but] == '=';
        for (const std::string& name : names) {
            bool named = false;
            std::istringstream in(list.substr((but ? 1 : 0) + (exact ? 1 : 0)));
            for (std::string part; std::getline(in, part, ',');)
                named = named || fits(name, part, exact);
            if (named != but) return name;
        }
        return "";
    };
    if (!setting.empty()) return first(setting);
    for (const char* const list : {"ib", "^docker,lo,virbr", "docker", "lo", "virbr"})
        if (const std::string found = first(list); !found.empty()) return found;
    return "";
}

std::vector<Finding> examine_ranks(const CudaModuleInfo& info) {
    std::vector<Finding> findings{nccl_finding(info)};
    if (info.devices.size() < 2) return findings;
    findings.push_back(peers_finding(info));
    findings.push_back(network_finding());
    findings.push_back(shared_memory_finding());
    return findings;
}

}  // namespace rn50::doctor
