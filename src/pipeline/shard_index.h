// What a shard (a tar, a TFRecord, an LMDB) holds: place, size, label and name of each sample. Made once by reading the
// shard and kept beside it, so that a sample is found without a search.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/files.h"
#include "format/protobuf.h"

namespace rn50 {

enum class ShardKind : uint8_t { tar, tfrecord, lmdb };
/// "WebDataset", "TFRecord", "LMDB"
const char* name_of(ShardKind kind);

/// Bytes that are read at places: a file, or memory in tests.
struct RandomBytes {
    int64_t size = 0;
    /// Fills `dst` from `offset` on and gives the number of bytes; fewer at the end.
    std::function<int64_t(int64_t offset, void* dst, int64_t bytes)> read;
};
RandomBytes bytes_of(const InputFile& file);
RandomBytes bytes_of(ByteView memory);

/// The samples of one shard, in its order.
class ShardIndex {
  public:
    static constexpr int64_t no_label = INT64_MIN;

    struct Entry {
        int64_t offset = 0;        ///< of the picture (tar), the record's data (TFRecord) or the value (LMDB)
        int64_t bytes = 0;         ///< of the same
        int64_t label = no_label;  ///< the number as the shard has it
        int32_t class_name = -1;   ///< into class_names(); -1: none
    };
    /// Samples that cannot be used, by reason.
    struct LeftOut {
        int64_t count = 0;
        std::string example;
    };

    void add(const Entry& entry, const std::string& key);
    void leave_out(const std::string& reason, const std::string& key);
    /// The place of a class name in class_names(), where it is put if it is new.
    int32_t intern(const std::string& class_name);

    int64_t size() const { return static_cast<int64_t>(entries_.size()); }
    const Entry& entry(int64_t i) const { return entries_[static_cast<size_t>(i)]; }
    /// The sample's name: the file's path where the shard tells it, else the member, record or key.
    std::string key(int64_t i) const;
    const std::vector<std::string>& class_names() const { return class_names_; }
    const std::map<std::string, LeftOut>& left_out() const { return left_out_; }

    /// The index as bytes, for a shard of this size and time; and back. False: damaged, of another version or not of
    /// this shard. Whatever the bytes, it neither reads outside of them nor takes more than a few times their memory.
    std::string pack(ShardKind kind, int64_t shard_bytes, int64_t shard_modified) const;
    bool unpack(ByteView bytes, ShardKind kind, int64_t shard_bytes, int64_t shard_modified);

  private:
    std::vector<Entry> entries_;
    std::vector<uint64_t> key_ends_;  ///< of each key in keys_
    std::string keys_;
    std::vector<std::string> class_names_;
    std::map<std::string, LeftOut> left_out_;
    std::map<std::string, int32_t> known_names_;
};

/// Reads a shard from end to end. Throws Error(Exit::data), "PATH: reason", when its structure is damaged or cut short;
/// single samples that cannot be used are left out by name.
ShardIndex build_index(const std::string& path, ShardKind kind);

/// Keeps the index of a shard: SHARD.rn50idx, or in the user's cache folder where that cannot be written; where neither
/// can, that is said once.
void keep_index(const std::string& path, ShardKind kind, const ShardIndex& index);

/// The index of each shard: read from SHARD.rn50idx (or from the user's cache folder, where the shard's own cannot be
/// written), or built by several threads, with a progress line, and kept there. Throws as build_index().
std::vector<ShardIndex> load_indices(const std::vector<std::string>& paths, ShardKind kind);

}  // namespace rn50
