// rn50 bench comm: what several ranks pay for what they do together, by size.
#pragma once

#include "cli/options.h"
#include "comm/comm.h"

namespace rn50 {

/// Times averages, broadcasts and gatherings of 4 KB to 102 MB in the memory of --device, and beside them one plain TCP
/// stream from rank 1 to rank 0. Every rank calls it; rank 0 prints a table, or with --json one object.
void bench_comm(const Options& options, const Place& place, Communicator& comm);

}  // namespace rn50
