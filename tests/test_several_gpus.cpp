// What is decided about several GPUs without any: who takes which, what the environment says, which advice fits.
#include <doctest/doctest.h>

#include <map>
#include <optional>
#include <string>

#include "backend/cuda_module.h"
#include "base/error.h"
#include "cli/doctor.h"
#include "cli/gpus.h"
#include "comm/nccl_advice.h"
#include "comm/nccl_log.h"

using namespace rn50;

namespace {

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a rank takes the GPU of its number, or the only one that it sees") {
    CHECK(gpu_of_rank(0, 1) == 0);
    CHECK(gpu_of_rank(3, 8) == 3);
    CHECK(gpu_of_rank(3, 1) == 0);  // Slurm hides the others
    CHECK_THROWS_WITH(
        gpu_of_rank(2, 2),
        "this machine shows 2 GPUs, and this is its rank 2 (counted from 0): two ranks would be on one GPU");
}

TEST_CASE("chosen GPUs are counted among those that are visible") {
    CHECK(visible_gpus("", {0, 2}) == "0,2");
    CHECK(visible_gpus("4,5,6,7", {0, 2}) == "4,6");
    CHECK(visible_gpus("GPU-a,MIG-b", {1, 0}) == "MIG-b,GPU-a");
    CHECK_THROWS_WITH(visible_gpus("4,5", {0, 2}),
                      "--gpus names GPU 2, and CUDA_VISIBLE_DEVICES=4,5 shows 2, counted from 0");
    CHECK(gpus_from("0,2").list == std::vector<int64_t>{0, 2});
    CHECK(gpus_from("3").count == 3);
    CHECK(gpus_from("all").all);
}

TEST_CASE("NCCL's choice of a network, by its own rule") {
    using doctor::nccl_interface;
    const std::vector<std::string> names{"lo", "docker0", "enp3s0", "eth1", "ib0"};
    CHECK(nccl_interface(names, "") == "ib0");
    CHECK(nccl_interface({"lo", "docker0", "enp3s0", "eth1"}, "") == "enp3s0");
    CHECK(nccl_interface({"lo", "docker0"}, "") == "docker0");
    CHECK(nccl_interface({"lo"}, "") == "lo");
    CHECK(nccl_interface({}, "") == "");
    CHECK(nccl_interface(names, "eth") == "eth1");
    CHECK(nccl_interface(names, "=eth") == "");
    CHECK(nccl_interface(names, "=eth1,lo") == "lo");
    CHECK(nccl_interface(names, "^lo,docker") == "enp3s0");
    CHECK(nccl_interface(names, "^=lo,docker") == "docker0");
}

TEST_CASE("NCCL's failures get the advice that fits, by NCCL's own words") {
    const std::pair<const char*, const char*> known[] = {
        {"Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 65000", "--gpus"},
        {"Error while creating shared memory segment /dev/shm/nccl-Xy12 (size 9637888), error: No space left on device "
         "(28)",
         "--shm-size"},
        {"Call to posix_fallocate failed : No space left on device", "--shm-size"},
        {"Bootstrap : no socket interface found", "ip -brief address"},
        {"socketStartConnect: Connect to 10.0.0.7<43211> failed : Connection refused", "firewall"},
        {"socketProgress: Connection closed by remote peer node2<39402>", "other ranks say"},
        {"Call to connect returned Connection timed out, retrying", "NCCL_SOCKET_IFNAME"},
        {"NET/IB : Got completion from peer with error 12", "NCCL_IB_DISABLE=1"},
        {"Call to ibv_reg_mr failed with error Cannot allocate memory", "memlock"},
        {"Mismatched NCCL version detected : rank 0 22005 rank 1 21805", "same version of NCCL"},
        {"Cuda failure 'CUDA driver version is insufficient for CUDA runtime version'", "newer NVIDIA driver"},
        {"Cuda failure 'out of memory'", "--batch-size"},
        {"Cuda failure 'peer access is not supported between these two devices'", "NCCL_P2P_DISABLE=1"},
        {"Cuda failure 'an illegal memory access was encountered'", "NCCL_P2P_DISABLE=1"},
        {"unhandled cuda error (run with NCCL_DEBUG=INFO for details)", "Xid"},
        {"Call to socket failed : Too many open files", "ulimit -n"},
        {"the GPUs did not come together by NCCL within 30 s", "firewall"},
    };
    for (const auto& [said, advice] : known) {
        CAPTURE(said);
        CAPTURE(nccl_remedy(said));
        CHECK(contains(nccl_remedy(said), advice));
        CHECK(contains(nccl_remedy(said), "NCCL_DEBUG=INFO makes NCCL tell"));
    }
    CHECK(nccl_remedy("what nobody has seen") == nccl_remedy(""));
}

TEST_CASE("the ways that NCCL has taken stand in its log") {
    // Lines as NCCL 2.16 to 2.28 writes them on machines of several kinds.
    const std::string log =
        "NCCL version 2.16.5+cuda11.8\n"
        "tj5:533:1765 [2] NCCL INFO Channel 00/02 :    0   1   2   3\n"
        "tj5:533:1765 [2] NCCL INFO Trees [0] 3/-1/-1->2->1 [1] 3/-1/-1->2->1\n"
        "tj5:533:1765 [2] NCCL INFO Channel 07 : 2[6] -> 3[7] via SHM/direct/direct\n"
        "tj5:533:1765 [2] NCCL INFO Channel 08 : 2[6] -> 3[7] via SHM/direct/direct\n"
        "ubuntu:9621:9692 [7] NCCL INFO Channel 14/0 : 15[7] -> 0[0] [send] via NET/Socket/0\n"
        "ubuntu:9621:9692 [7] NCCL INFO Channel 15/0 : 15[7] -> 0[0] [send] via NET/Socket/1\n"
        "node:919:1150 [0] NCCL INFO Channel 01/0 : 8[0] -> 15[7] via P2P/IPC/read\r\n"
        "node:919:1150 [0] NCCL INFO Channel 00/1 : 9[1a000] -> 10[2] via P2P/indirect/11[3]/read\n"
        "node:919:1150 [0] NCCL INFO Channel 02/0 : 7[7] -> 8[0] [receive] via NET/IB/3(4)/GDRDMA/Shared\n"
        "node:919:1150 [0] NCCL INFO Connected all rings\n"
        "node:919:1150 [0] NCCL INFO Channel 03/0 : 8[0] -> 15[7 via P2P/IPC\n"
        "node:919:1150 [0] NCCL INFO Channel 03/0 : x[0] -> 15[7] via P2P/IPC\n"
        "node:919:1150 [0] NCCL INFO Channel 03/0 : 8[0] -> 15[7] via ";
    const std::vector<NcclLink> links = links_in(log);
    const std::vector<NcclLink> expected{{2, 3, "SHM/direct/direct"},
                                         {15, 0, "NET/Socket"},
                                         {8, 15, "P2P/IPC/read"},
                                         {9, 10, "P2P/indirect/read"},
                                         {7, 8, "NET/IB/GDRDMA/Shared"}};
    CHECK(text_of(links) == text_of(expected));
    CHECK(links_from(text_of(links)) == links);
    CHECK(links_from("not links").empty());
    CHECK(ways_of({}) == "");
    CHECK(
        ways_of(
            {{0, 1, "NET/Socket"}, {1, 2, "SHM/direct"}, {2, 3, "SHM/direct"}, {1, 2, "SHM/direct"}, {3, 0, "NVLS"}}) ==
        "the host's memory (SHM/direct; 2 links), sockets (NET/Socket; 1 link), another way (NVLS; 1 link)");
    CHECK(links_in("").empty());
}

TEST_CASE("the ways that NCCL will probably take follow the ground and its variables") {
    using Variables = std::map<std::string, std::string>;
    const auto ways = [](std::optional<bool> peer_access, bool several_hosts, bool infiniband, Variables variables) {
        return nccl_ways({peer_access, several_hosts, infiniband},
                         [&](const std::string& name) { return variables[name]; });
    };
    CHECK(ways({}, false, true, {}) == "");
    CHECK(ways(true, false, false, {}) == ", probably by peer-to-peer between GPUs");
    CHECK(ways(true, false, false, {{"NCCL_P2P_DISABLE", "0"}}) == ", probably by peer-to-peer between GPUs");
    CHECK(ways(true, false, false, {{"NCCL_P2P_DISABLE", "1"}}) ==
          ", probably by the host's memory (NCCL_P2P_DISABLE) between GPUs");
    CHECK(ways(true, false, false, {{"NCCL_P2P_LEVEL", "LOC"}}) ==
          ", probably by the host's memory (NCCL_P2P_LEVEL) between GPUs");
    CHECK(ways(false, false, false, {{"NCCL_P2P_DISABLE", "1"}, {"NCCL_SHM_DISABLE", "1"}}) ==
          ", probably by sockets (no peer-to-peer) between GPUs");
    CHECK(ways(false, true, true, {}) ==
          ", probably by the host's memory (no peer-to-peer) between GPUs, by InfiniBand between hosts");
    CHECK(ways({}, true, false, {}) == ", probably by sockets between hosts");
    CHECK(ways({}, true, true, {{"NCCL_IB_DISABLE", "1"}}) == ", probably by sockets (NCCL_IB_DISABLE) between hosts");
    CHECK(ways({}, true, true, {{"NCCL_NET", "Socket"}}) == ", probably by Socket (NCCL_NET) between hosts");
}
