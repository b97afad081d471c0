// The index beside a shard: the bytes as they come, then with the magic, the shard's identity and the checksum put
// right, so that those do not keep the fuzzer out of what lies between.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/crc32c.h"
#include "base/error.h"
#include "pipeline/shard_index.h"

namespace {

constexpr rn50::ShardStamp shard{1000, 7, 9};

/// False: the bytes are refused.
bool unpack(rn50::ByteView bytes, rn50::ShardKind kind) {
    rn50::ShardIndex index;
    if (!index.unpack(bytes, kind, shard)) return false;
    for (int64_t i = 0; i < index.size(); ++i) {
        const rn50::ShardIndex::Entry& entry = index.entry(i);
        RN50_REQUIRE(entry.offset >= 0 && entry.bytes >= 0 && entry.offset <= shard.bytes - entry.bytes, index.key(i),
                     " lies outside of the shard");
        RN50_REQUIRE(entry.class_name < static_cast<int64_t>(index.class_names().size()), "a class without a name");
    }
    return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace rn50;
    for (const ShardKind kind : {ShardKind::tar, ShardKind::tfrecord, ShardKind::lmdb})
        unpack({data, size}, kind);

    // An index of nothing has the head that is wanted.
    const std::string empty = ShardIndex().pack(ShardKind::tar, shard);
    constexpr size_t head = ShardIndex::head_bytes + sizeof shard.ends;
    std::string mended = empty.substr(0, head) + std::string(reinterpret_cast<const char*>(data), size);
    const uint32_t crc = crc32c(mended.data(), mended.size());
    mended.append(reinterpret_cast<const char*>(&crc), sizeof crc);
    unpack({reinterpret_cast<const uint8_t*>(mended.data()), mended.size()}, ShardKind::tar);
    return 0;
}
