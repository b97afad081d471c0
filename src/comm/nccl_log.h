// What NCCL tells of itself: by which ways its ranks reach each other it writes to its log alone.
#pragma once

#include <string>
#include <vector>

namespace rn50 {

/// Has NCCL write its log (NCCL_DEBUG=INFO) to a file that has no name and goes with the process. For before NCCL's
/// first call and this process's first thread: it sets variables. Does nothing where NCCL_DEBUG or NCCL_DEBUG_FILE is
/// set, here or in one of NCCL's own files of variables, for then the log is the user's; nor where no temporary file can
/// be made.
void keep_nccl_log();

/// What NCCL has written so far; "" where it is not kept.
std::string nccl_log();

/// One way from a rank to another, as NCCL names it without the numbers of channels and adapters: "SHM/direct/direct",
/// "P2P/CUMEM/read", "NET/Socket", "NET/IB/GDRDMA".
struct NcclLink {
    int from = 0, to = 0;
    std::string way;
    bool operator==(const NcclLink& other) const {
        return from == other.from && to == other.to && way == other.way;
    }
};

/// The links of which the log of one rank tells, each once, in the order in which they appear. Known of NCCL 2.12 to
/// 2.30.
std::vector<NcclLink> links_in(const std::string& nccl_log);

/// To text and back, for other ranks; what is not from text_of() gives nothing.
std::string text_of(const std::vector<NcclLink>& links);
std::vector<NcclLink> links_from(const std::string& text);

/// "the host's memory (SHM/direct/direct; 2 links)", more than one way by commas, the most used first; "" for no links.
std::string ways_of(const std::vector<NcclLink>& links);

}  // namespace rn50
