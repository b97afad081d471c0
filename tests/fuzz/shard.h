// What every reader of shards holds to: whatever the bytes, it fails as on bad data, or names what lies in the file.
#pragma once

#include <cstdint>

#include "base/error.h"
#include "pipeline/shard_index.h"

namespace rn50::fuzz {

/// `index_of`: (RandomBytes, name) to a ShardIndex.
template <class Index>
void index_all(const Index& index_of, ByteView bytes) {
    const RandomBytes all = bytes_of(bytes);
    const ShardIndex index = index_of(all, "x");
    for (int64_t i = 0; i < index.size(); ++i) {
        const ShardIndex::Entry& entry = index.entry(i);
        RN50_REQUIRE(entry.offset >= 0 && entry.bytes >= 0 && entry.offset <= all.size - entry.bytes, index.key(i),
                     " lies outside of the file");
    }
}

/// The same of bytes that may be bad.
template <class Index>
void try_to_index(const Index& index_of, ByteView bytes) {
    try {
        index_all(index_of, bytes);
    } catch (const Error& error) {
        if (error.code() != Exit::data) throw;
    }
}

}  // namespace rn50::fuzz
