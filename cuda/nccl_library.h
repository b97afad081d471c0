// NCCL's functions, found when they are needed: a machine without NCCL trains on one GPU all the same. Only files that
// are compiled where nccl.h is (RN50_NCCL) include this.
#pragma once

#include <nccl.h>

#include <string>

namespace rn50::cuda {

/// All of them are in 2.16, the oldest NCCL that is taken.
#define RN50_NCCL_FUNCTIONS(each)                                                                                    \
    each(GetVersion) each(GetUniqueId) each(CommInitRankConfig) each(CommFinalize) each(CommDestroy) each(CommAbort) \
        each(CommGetAsyncError) each(GetErrorString) each(GetLastError) each(AllReduce) each(AllGather)              \
            each(Broadcast)

struct NcclLibrary {
#define RN50_MEMBER(name) decltype(&::nccl##name) name = nullptr;
    RN50_NCCL_FUNCTIONS(RN50_MEMBER)
#undef RN50_MEMBER
};

constexpr int oldest_nccl = 21600;

/// Loads `file`, which is never given back. Throws Error(Exit::device) when it is not there, lacks a function, is older
/// than oldest_nccl, or of another major version than nccl.h.
NcclLibrary load_nccl(const std::string& file);

/// "2.16.5" of NCCL's 21605.
std::string nccl_version_text(int version);

}  // namespace rn50::cuda
