// The index beside a shard.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/error.h"
#include "pipeline/shard_index.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace rn50;
    for (const ShardKind kind : {ShardKind::tar, ShardKind::tfrecord, ShardKind::lmdb}) {
        ShardIndex index;
        if (!index.unpack({data, size}, kind, {1000, 7, 9})) continue;
        for (int64_t i = 0; i < index.size(); ++i)
            index.key(i);
    }
    return 0;
}
