// How the ranks agree on NCCL's communicator before NCCL itself is asked.
#pragma once

#include <chrono>
#include <string>

#include "comm/place.h"
#include "comm/store.h"

namespace rn50::cuda {

/// What a rank tells of itself.
struct NcclGuest {
    std::string machine;  ///< as NCCL tells machines apart: the host's name and the id of its boot
    std::string bus;      ///< of its GPU, on PCI: "0000:65:00.0"
    std::string version;  ///< of its NCCL: "2.16.5"
};

struct NcclMeeting {
    std::string id;  ///< what rank 0 gave
    std::string
        peer;  ///< bus of the nearest other rank's GPU on rank 0's machine; "" where there is none, or elsewhere
};

/// Rank 0 hears all, and gives `id` when nothing stands against it. On all ranks, throws Error(Exit::device) when two
/// of them have one GPU or their versions of NCCL differ, and Error(Exit::peer_lost) after `patience`.
NcclMeeting meet_for_nccl(StoreClient& store, const Place& place, const NcclGuest& me, const std::string& id,
                          std::chrono::milliseconds patience);

/// This machine, as NcclGuest has it.
std::string machine_name();

}  // namespace rn50::cuda
