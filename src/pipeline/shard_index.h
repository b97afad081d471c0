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

/// By what a shard is known again. Size and time do not do alone: copies with their times kept, and programs that write
/// the same time into all they make, give a new shard those of the old one. A time of change in the inode would tell
/// more, but copies do not keep that, and their indices would be made anew.
struct ShardStamp {
    int64_t bytes = 0, modified = 0;
    uint32_t ends = 0;  ///< CRC-32C of the first and the last 64 KB, which may overlap
};
ShardStamp stamp_of(const InputFile& shard);

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

    /// The index as bytes, for the shard of this stamp; and back. False: damaged, of another version or not of this
    /// shard. Whatever the bytes, it neither reads outside of them nor takes more than a few times their memory.
    std::string pack(ShardKind kind, const ShardStamp& shard) const;
    bool unpack(ByteView bytes, ShardKind kind, const ShardStamp& shard);
    /// Whether bytes that begin so may be an index of a shard of this size and time: a look at the first head_bytes.
    static constexpr size_t head_bytes = 32;
    static bool begins_for(ByteView bytes, ShardKind kind, int64_t shard_bytes, int64_t shard_modified);

  private:
    std::vector<Entry> entries_;
    std::vector<uint64_t> key_ends_;  ///< of each key in keys_
    std::string keys_;
    std::vector<std::string> class_names_;
    std::map<std::string, LeftOut> left_out_;
    std::map<std::string, int32_t> known_names_;
};

/// Reads a shard from end to end. Throws Error(Exit::data), "PATH: reason", when its structure is damaged or cut short,
/// and ReadError; single samples that cannot be used are left out by name. `show` is told how many bytes further it is.
ShardIndex build_index(const std::string& path, ShardKind kind, const std::function<void(int64_t bytes)>& show = {});

/// Keeps the index of a shard: SHARD.rn50idx, or in the user's cache folder where that cannot be written; where neither
/// can, that is said once. `stamp`: of the shard as it was before it was read.
void keep_index(const std::string& path, ShardKind kind, const ShardIndex& index, const ShardStamp& stamp);

/// The index of each shard: read from SHARD.rn50idx (or from the user's cache folder, where the shard's own cannot be
/// written), or built by several threads, with a progress line, and kept there. Throws as build_index(), and
/// Interrupted when a signal asks to stop.
std::vector<ShardIndex> load_indices(const std::vector<std::string>& paths, ShardKind kind);

/// Whether load_indices() would have to build one, as far as a look at the beginnings of the indices tells. Never
/// throws.
bool lacks_an_index(const std::vector<std::string>& paths, ShardKind kind);

}  // namespace rn50
