#include "comm/nccl_advice.h"

#include <algorithm>
#include <cctype>
#include <initializer_list>

namespace rn50 {

namespace {

/// One known failure: words of which one is in NCCL's text, in small letters.
struct Known {
    std::initializer_list<const char*> words;
    const char* remedy;
};

// The first that fits counts: what names a cause stands before what names a symptom.
const Known all_known[] = {
    {{"duplicate gpu detected"},
     "two ranks are on one GPU: start as many ranks as there are GPUs (--gpus), each with a LOCAL_RANK of its own"},
    {{"mismatched nccl version", "nccl version mismatch"},
     "install the same version of NCCL on all machines (rn50 doctor shows it)"},
    {{"cuda driver version is insufficient", "driver/library version mismatch", "cuda_error_system_driver_mismatch"},
     "this NCCL wants a newer NVIDIA driver: install one, or the NCCL that was made for the CUDA of this driver"},
    {{"out of memory"},
     "NCCL takes some GPU memory for itself: choose a smaller --batch-size, or end the other program that nvidia-smi "
     "shows"},
    {{"too many open files"}, "raise the limit of open files: ulimit -n 65536"},
    {{"/dev/shm", "shared memory segment", "posix_fallocate", "no space left on device", "shmopen", "bus error"},
     "/dev/shm is too small: docker run --shm-size=1g (or --ipc=host), Kubernetes: an emptyDir of medium Memory at "
     "/dev/shm, else mount -o remount,size=1g /dev/shm"},
    {{"no socket interface found", "no usable interface", "no interface found", "no ip interface found"},
     "NCCL finds no network interface: name one of `ip -brief address` in NCCL_SOCKET_IFNAME "
     "(NCCL_SOCKET_IFNAME=eth0)"},
    {{"ibv_", "infiniband", "net/ib", "mlx5_", "roce"},
     "InfiniBand does not work here: allow programs to lock memory (ulimit -l unlimited; docker run --ulimit "
     "memlock=-1), or do without it with NCCL_IB_DISABLE=1"},
    {{"peer access", "p2p", "ipcopenmemhandle", "ipcgetmemhandle", "ipc handle", "peer mapping", "cumem",
      "invalid device ordinal", "illegal memory access", "mapping of buffer object failed"},
     "the GPUs do not reach each other's memory: set NCCL_P2P_DISABLE=1 (RTX 4090 and other GeForce: their driver has "
     "no peer-to-peer; older ones claim it all the same); NCCL_CUMEM_ENABLE=0 where the system is virtual"},
    {{"connection refused", "timed out", "no route to host", "network is unreachable", "call to connect",
      "socketstartconnect", "socket connect", "connect to", "did not come together"},
     "the ranks do not reach each other: NCCL takes any port, so let the hosts of the run through each other's "
     "firewalls (NCCL_SOCKET_IFNAME names the network that joins them); between GPUs of one machine try "
     "NCCL_P2P_DISABLE=1"},
    {{"connection closed", "connection reset", "broken pipe", "remote process exited", "remote error"},
     "another rank ended or its machine was cut off: see what the other ranks say"},
    {{"unhandled cuda error", "cuda failure"},
     "look for Xid lines in dmesg; where the machine is well, try NCCL_P2P_DISABLE=1 (RTX 4090) and run again"},
};

constexpr const char* log_advice = "NCCL_DEBUG=INFO makes NCCL tell which way it takes and what fails";

}  // namespace

std::string nccl_remedy(const std::string& said) {
    std::string small = said;
    std::transform(small.begin(), small.end(), small.begin(),
                   [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
    for (const Known& known : all_known)
        for (const char* const words : known.words)
            if (small.find(words) != std::string::npos) return std::string(known.remedy) + "; " + log_advice;
    return log_advice;
}

std::string nccl_ways(const NcclGround& ground, const std::function<std::string(const std::string&)>& variable) {
    const auto on = [&](const char* name) { return !variable(name).empty() && variable(name) != "0"; };
    std::string text;
    if (ground.peer_access) {
        const std::string level = variable("NCCL_P2P_LEVEL");
        const char* const off = on("NCCL_P2P_DISABLE")             ? "NCCL_P2P_DISABLE"
                                : (level == "LOC" || level == "0") ? "NCCL_P2P_LEVEL"
                                                                   : nullptr;
        if (*ground.peer_access && off == nullptr)
            text = "by peer-to-peer";
        else
            text = std::string("by ") + (on("NCCL_SHM_DISABLE") ? "sockets" : "the host's memory") + " (" +
                   (*ground.peer_access ? off : "no peer-to-peer") + ")";
        text += " between GPUs";
    }
    if (ground.several_hosts) {
        const std::string net = variable("NCCL_NET");
        text += text.empty() ? "by " : ", by ";
        if (!net.empty())
            text += net + " (NCCL_NET)";
        else if (ground.infiniband && on("NCCL_IB_DISABLE"))
            text += "sockets (NCCL_IB_DISABLE)";
        else
            text += ground.infiniband ? "InfiniBand" : "sockets";
        text += " between hosts";
    }
    return text.empty() ? "" : ", probably " + text;
}

}  // namespace rn50
