// A make-believe NCCL, whose ranks are threads of one process. It holds every call to NCCL's documentation: one order
// of the same collectives on all ranks, one stream a communicator, no call while another is in progress, none after the
// end; and computes in host memory, where the streams of fake.h get to it.
#pragma once

#include <map>
#include <string>

#include "nccl_library.h"

namespace rn50::fake {

struct NcclWorld {
    int version = 22809;
    int polls = 2;                                ///< looks until a call is through
    int absent = -1;                              ///< this rank never comes to the others
    std::map<std::string, ncclResult_t> failing;  ///< by name: "AllReduce"; "async": what is found in progress
    bool stuck = false;                           ///< no collective is ever through, as on a broken way between GPUs
    int failing_rank = -1;                        ///< that alone; -1: all
    std::string last_words;

    int calls = 0, live = 0;  ///< communicators
    int outlived = 0;         ///< communicators that ended before a graph with collectives of theirs
};
extern NcclWorld nccl_world;

cuda::NcclLibrary fake_nccl();

}  // namespace rn50::fake
