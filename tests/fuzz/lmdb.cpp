// A database of LMDB: pages, nodes, overflow pages, and the Datum of each value.
#include "pipeline/lmdb.h"

#include "shard.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    rn50::fuzz::try_to_index(rn50::index_lmdb, {data, size});
    return 0;
}
