// What to do about NCCL's failures, known by the words in which NCCL tells them; and which ways it will probably take.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace rn50 {

/// The remedy that fits `said`: the text of a status, NCCL's last error, or a line of its log. Never empty.
std::string nccl_remedy(const std::string& said);

/// What decides which ways NCCL takes from rank to rank, as far as it is to be seen from one of them.
struct NcclGround {
    std::optional<bool> peer_access;  ///< between two GPUs of this machine; absent: it has one, or hides the others
    bool several_hosts = false;
    bool infiniband = false;  ///< this machine has an adapter
};

/// ", probably by peer-to-peer between GPUs, by InfiniBand between hosts"; "" where there is nothing to tell. NCCL
/// tells its choice to its log alone, and only after a collective (nccl_log.h): this goes by the ground and by NCCL's
/// variables, which `variable` gives ("" where not set).
std::string nccl_ways(const NcclGround& ground, const std::function<std::string(const std::string&)>& variable);

}  // namespace rn50
