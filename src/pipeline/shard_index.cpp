#include "pipeline/shard_index.h"

#include <algorithm>
#include <cstring>

#include "base/crc32c.h"
#include "base/error.h"

namespace rn50 {

namespace {

constexpr char magic[] = "rn50idx2";
constexpr size_t magic_bytes = sizeof magic - 1;
constexpr int64_t entry_bytes = 8 + 8 + 8 + 4 + 8;

class Packer {
  public:
    template <class Number>
    void number(Number value) {
        out.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
    void text(const std::string& value) {
        number(uint64_t{value.size()});
        out += value;
    }
    std::string out;
};

class Unpacker {
  public:
    explicit Unpacker(ByteView bytes) : at_(bytes.data), left_(bytes.size) {}
    template <class Number>
    bool number(Number& value) {
        if (left_ < sizeof value) return false;
        std::memcpy(&value, at_, sizeof value);
        skip(sizeof value);
        return true;
    }
    bool text(std::string& value) {
        uint64_t size = 0;
        if (!number(size) || size > left_) return false;
        value.assign(reinterpret_cast<const char*>(at_), size);
        skip(size);
        return true;
    }
    size_t left() const { return left_; }

  private:
    void skip(size_t bytes) {
        at_ += bytes;
        left_ -= bytes;
    }
    const uint8_t* at_;
    size_t left_;
};

}  // namespace

const char* name_of(ShardKind kind) {
    return kind == ShardKind::tar ? "WebDataset" : kind == ShardKind::tfrecord ? "TFRecord" : "LMDB";
}

RandomBytes bytes_of(const InputFile& file) {
    return {file.size(), [&file](int64_t offset, void* dst, int64_t bytes) { return file.read(offset, dst, bytes); }};
}

RandomBytes bytes_of(ByteView memory) {
    const auto size = static_cast<int64_t>(memory.size);
    return {size, [=](int64_t offset, void* dst, int64_t bytes) {
                const int64_t n = std::clamp<int64_t>(size - offset, 0, bytes);
                if (n > 0) std::memcpy(dst, memory.data + offset, static_cast<size_t>(n));
                return n;
            }};
}

void ShardIndex::add(const Entry& entry, const std::string& key) {
    entries_.push_back(entry);
    keys_ += key;
    key_ends_.push_back(keys_.size());
}

void ShardIndex::leave_out(const std::string& reason, const std::string& key) {
    LeftOut& left = left_out_[reason];
    if (left.count++ == 0) left.example = key;
}

int32_t ShardIndex::intern(const std::string& class_name) {
    const auto [found, is_new] = known_names_.emplace(class_name, static_cast<int32_t>(class_names_.size()));
    if (is_new) class_names_.push_back(class_name);
    return found->second;
}

std::string ShardIndex::key(int64_t i) const {
    const size_t begin = i == 0 ? 0 : key_ends_[static_cast<size_t>(i) - 1];
    return keys_.substr(begin, key_ends_[static_cast<size_t>(i)] - begin);
}

ShardStamp stamp_of(const InputFile& shard) {
    constexpr int64_t piece = 64 << 10;
    std::vector<uint8_t> bytes(static_cast<size_t>(std::min(piece, shard.size())));
    ShardStamp stamp{shard.size(), shard.modified(), 0};
    for (const int64_t offset : {int64_t{0}, std::max<int64_t>(0, shard.size() - piece)}) {
        const int64_t got = shard.read(offset, bytes.data(), static_cast<int64_t>(bytes.size()));
        stamp.ends = crc32c(bytes.data(), static_cast<size_t>(got), stamp.ends);
    }
    return stamp;
}

std::string ShardIndex::pack(ShardKind kind, const ShardStamp& shard) const {
    Packer packer;
    packer.out.assign(magic, magic_bytes);
    packer.number(static_cast<uint64_t>(kind));
    packer.number(shard.bytes);
    packer.number(shard.modified);
    packer.number(shard.ends);
    packer.number(uint64_t{class_names_.size()});
    for (const std::string& name : class_names_)
        packer.text(name);
    packer.number(uint64_t{left_out_.size()});
    for (const auto& [reason, left] : left_out_) {
        packer.text(reason);
        packer.number(left.count);
        packer.text(left.example);
    }
    packer.text(keys_);
    packer.number(uint64_t{entries_.size()});
    for (size_t i = 0; i < entries_.size(); ++i) {
        packer.number(entries_[i].offset);
        packer.number(entries_[i].bytes);
        packer.number(entries_[i].label);
        packer.number(entries_[i].class_name);
        packer.number(key_ends_[i]);
    }
    packer.number(crc32c(packer.out.data(), packer.out.size()));
    return std::move(packer.out);
}

bool ShardIndex::begins_for(ByteView bytes, ShardKind kind, int64_t shard_bytes, int64_t shard_modified) {
    static_assert(head_bytes == magic_bytes + 3 * sizeof(uint64_t));
    if (bytes.size < head_bytes || std::memcmp(bytes.data, magic, magic_bytes) != 0) return false;
    Unpacker in({bytes.data + magic_bytes, bytes.size - magic_bytes});
    uint64_t its_kind = 0;
    int64_t its_bytes = 0, its_modified = 0;
    in.number(its_kind);
    in.number(its_bytes);
    in.number(its_modified);
    return its_kind == static_cast<uint64_t>(kind) && its_bytes == shard_bytes && its_modified == shard_modified;
}

bool ShardIndex::unpack(ByteView bytes, ShardKind kind, const ShardStamp& shard) {
    *this = ShardIndex();
    uint32_t stored = 0;
    if (bytes.size < head_bytes + sizeof stored || !begins_for(bytes, kind, shard.bytes, shard.modified)) return false;
    const size_t body = bytes.size - sizeof stored;
    std::memcpy(&stored, bytes.data + body, sizeof stored);
    if (stored != crc32c(bytes.data, body)) return false;

    Unpacker in({bytes.data + head_bytes, body - head_bytes});
    uint32_t its_ends = 0;
    uint64_t names = 0, reasons = 0, entries = 0;
    if (!in.number(its_ends) || its_ends != shard.ends || !in.number(names)) return false;
    for (uint64_t i = 0; i < names; ++i) {
        std::string name;
        if (!in.text(name)) return false;
        intern(name);
    }
    if (class_names_.size() != names || !in.number(reasons)) return false;
    for (uint64_t i = 0; i < reasons; ++i) {
        std::string reason;
        LeftOut left;
        if (!in.text(reason) || !in.number(left.count) || !in.text(left.example)) return false;
        left_out_[reason] = left;
    }
    if (!in.text(keys_) || !in.number(entries) || entries != in.left() / entry_bytes || in.left() % entry_bytes != 0)
        return false;
    entries_.resize(entries);
    key_ends_.resize(entries);
    uint64_t key_begin = 0;
    for (size_t i = 0; i < entries; ++i) {
        Entry& entry = entries_[i];
        in.number(entry.offset);
        in.number(entry.bytes);
        in.number(entry.label);
        in.number(entry.class_name);
        in.number(key_ends_[i]);
        if (entry.offset < 0 || entry.bytes < 0 || entry.offset > INT64_MAX - entry.bytes || key_ends_[i] < key_begin ||
            key_ends_[i] > keys_.size() || entry.class_name < -1 || entry.class_name >= static_cast<int64_t>(names) ||
            entry.offset + entry.bytes > shard.bytes)
            return false;
        key_begin = key_ends_[i];
    }
    return true;
}

}  // namespace rn50
