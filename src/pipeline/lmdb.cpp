#include "pipeline/lmdb.h"

#include <lmdb.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/math.h"
#include "pipeline/datum.h"
#include "pipeline/source.h"

namespace rn50 {

namespace {

constexpr int64_t page_head = 16, node_head = 8, meta_bytes = 136;
constexpr uint16_t page_branch = 1, page_leaf = 2, page_overflow = 4, page_kinds = 0x6F;
constexpr uint16_t node_big = 1, node_nested = 2 | 4;
constexpr uint64_t no_page = UINT64_MAX;
constexpr int max_depth = 32;

template <class Number>
Number number_at(const uint8_t* at) {
    Number value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

class Walker {
  public:
    using Use = std::function<void(const std::string&, int64_t, int64_t)>;
    Walker(const RandomBytes& bytes, const std::string& name, const Use& use) : bytes_(bytes), name_(name), use_(use) {}

    void run() {
        uint8_t meta[meta_bytes];
        const uint64_t root = newest_root(meta);
        if (root == no_page) return;  // empty
        const int64_t last = number_at<int64_t>(meta + 120);
        if (last < 1 || last >= bytes_.size / page_bytes_) throw damaged("it is cut short");
        pages_left_ = last + 1;
        walk(root, 0);
    }

  private:
    Error damaged(const std::string& reason) const {
        return Error(Exit::data, cat(name_, ": the LMDB is damaged: ", reason), "copy or make it again");
    }

    /// Two meta pages take turns: the one with the higher transaction counts.
    uint64_t newest_root(uint8_t* meta) {
        if (!read_meta(0, meta))
            throw Error(Exit::data, cat(name_, ": is not an LMDB of format version 1"),
                        "mdb_copy of LMDB 0.9 writes such a file");
        page_bytes_ = number_at<uint32_t>(meta + 24);
        if (page_bytes_ < 512 || page_bytes_ > 65536 || (page_bytes_ & (page_bytes_ - 1)) != 0)
            throw damaged("impossible page size");
        uint8_t second[meta_bytes];
        if (!read_meta(page_bytes_, second)) throw damaged("it is cut short");
        if (number_at<uint64_t>(second + 128) > number_at<uint64_t>(meta + 128))
            std::memcpy(meta, second, sizeof second);
        const uint8_t* const main = meta + 24 + 48;
        return number_at<uint64_t>(main + 40);
    }

    bool read_meta(int64_t page, uint8_t* meta) const {
        return bytes_.read(page + page_head, meta, meta_bytes) == meta_bytes &&
               number_at<uint32_t>(meta) == 0xBEEFC0DE && number_at<uint32_t>(meta + 4) == 1;
    }

    int64_t offset_of(uint64_t page) const {
        if (page >= static_cast<uint64_t>(bytes_.size / page_bytes_)) throw damaged("a page lies outside of the file");
        return static_cast<int64_t>(page) * page_bytes_;
    }

    void walk(uint64_t number, int depth) {
        // Each page belongs to one place of the tree, so more of them than there are means a circle.
        if (depth > max_depth || --pages_left_ < 0) throw damaged("its pages form a circle");
        const int64_t offset = offset_of(number);
        std::vector<uint8_t> page(static_cast<size_t>(page_bytes_));
        if (bytes_.read(offset, page.data(), page_bytes_) != page_bytes_) throw damaged("it is cut short");
        const int kind = number_at<uint16_t>(page.data() + 10) & page_kinds;
        const int64_t lower = number_at<uint16_t>(page.data() + 12);
        if ((kind != page_branch && kind != page_leaf) || lower < page_head || lower > page_bytes_)
            throw damaged(cat("page ", number, " is neither branch nor leaf"));
        for (int64_t i = 0; i < (lower - page_head) / 2; ++i) {
            const int64_t at = number_at<uint16_t>(page.data() + page_head + 2 * i);
            if (at < lower || at > page_bytes_ - node_head) throw damaged(cat("page ", number, " has a wrong node"));
            const uint8_t* const node = page.data() + at;
            if (kind == page_leaf) {
                leaf(node, offset + at, page_bytes_ - at);
            } else {
                walk(uint64_t{number_at<uint32_t>(node)} | uint64_t{number_at<uint16_t>(node + 4)} << 32, depth + 1);
            }
        }
    }

    /// `left`: bytes of the page from the node on.
    void leaf(const uint8_t* node, int64_t offset, int64_t left) const {
        const int64_t size = number_at<uint32_t>(node);
        const uint16_t flags = number_at<uint16_t>(node + 4);
        const int64_t key_bytes = number_at<uint16_t>(node + 6), data = node_head + key_bytes;
        if (flags & node_nested) throw damaged("it holds databases within, not pictures");
        const bool big = (flags & node_big) != 0;
        if (data + (big ? 8 : size) > left) throw damaged("a value lies outside of its page");
        const std::string key(reinterpret_cast<const char*>(node + node_head), static_cast<size_t>(key_bytes));
        if (!big) return use_(key, offset + data, size);
        const int64_t overflow = offset_of(number_at<uint64_t>(node + data));
        uint8_t head[page_head];
        if (size > bytes_.size - overflow - page_head || bytes_.read(overflow, head, page_head) != page_head ||
            (number_at<uint16_t>(head + 10) & page_overflow) == 0)
            throw damaged("a value lies outside of the file");
        use_(key, overflow + page_head, size);
    }

    const RandomBytes& bytes_;
    const std::string& name_;
    const Use& use_;
    int64_t page_bytes_ = 0, pages_left_ = 0;
};

}  // namespace

std::string lmdb_version() {
    int major = 0, minor = 0, patch = 0;
    mdb_version(&major, &minor, &patch);
    return cat(major, ".", minor, ".", patch);
}

void walk_lmdb(const RandomBytes& bytes, const std::string& name,
               const std::function<void(const std::string&, int64_t, int64_t)>& use) {
    Walker(bytes, name, use).run();
}

std::string name_in_key(const std::string& key) {
    const size_t digits = key.find_first_not_of("0123456789");
    const bool ours = digits != std::string::npos && digits >= 5 && key[digits] == '_' && digits + 1 < key.size();
    return ours ? key.substr(digits + 1) : key;
}

ShardIndex index_lmdb(const RandomBytes& bytes, const std::string& name) {
    ShardIndex index;
    std::vector<uint8_t> value;
    walk_lmdb(bytes, name, [&](const std::string& key, int64_t offset, int64_t size) {
        if (size > largest_picture) return index.leave_out("larger than a gigabyte", key);
        value.resize(static_cast<size_t>(size));
        if (bytes.read(offset, value.data(), size) < size) return index.leave_out("cut short", key);
        Datum datum;
        if (!parse_datum({value.data(), value.size()}, datum)) return index.leave_out("no Datum", key);
        const std::string fault = fault_of(datum);
        if (!fault.empty()) return index.leave_out(fault, key);
        if (datum.label == ShardIndex::no_label) return index.leave_out("no label", key);
        index.add({offset, size, datum.label, -1}, datum.name.size > 0 ? datum.name.str() : name_in_key(key));
    });
    return index;
}

LmdbWriter::LmdbWriter(const std::string& folder, int64_t largest) : file_(folder + "/data.mdb") {
    try {
        check(mdb_env_create(&environment_), "opening");
        check(mdb_env_set_mapsize(environment_, static_cast<size_t>(align_up(largest, 1 << 20))), "opening");
        // No lock file: nobody else knows of the database yet.
        check(mdb_env_open(environment_, folder.c_str(), MDB_NOLOCK, 0664), "opening");
        check(mdb_txn_begin(environment_, nullptr, 0, &transaction_), "writing");
        check(mdb_dbi_open(transaction_, nullptr, 0, &database_), "writing");
    } catch (...) {
        if (transaction_) mdb_txn_abort(transaction_);
        if (environment_) mdb_env_close(environment_);
        throw;
    }
}

LmdbWriter::~LmdbWriter() {
    if (transaction_) mdb_txn_abort(transaction_);
    mdb_env_close(environment_);
}

void LmdbWriter::check(int code, const char* doing) const {
    if (code == 0) return;
    const bool full = code == ENOSPC || code == EDQUOT || code == EIO;
    // A write that the disk took only a part of is EIO to the library.
    throw Error(Exit::data,
                cat(doing, " ", file_, ": ", mdb_strerror(code), code == EIO ? " (or no space left on the disk)" : ""),
                full ? "free space there or choose a folder on another disk" : "check the folder and its disk");
}

void LmdbWriter::put(const std::string& key, const std::string& value) {
    RN50_REQUIRE(key.size() <= max_key, "a key of ", key.size(), " bytes");
    if (!transaction_) check(mdb_txn_begin(environment_, nullptr, 0, &transaction_), "writing");
    MDB_val key_view{key.size(), const_cast<char*>(key.data())};
    MDB_val value_view{value.size(), const_cast<char*>(value.data())};
    check(mdb_put(transaction_, database_, &key_view, &value_view, 0), "writing");
}

void LmdbWriter::commit() {
    if (!transaction_) return;
    MDB_txn* const transaction = transaction_;
    transaction_ = nullptr;  // it is gone, however this ends
    check(mdb_txn_commit(transaction), "writing");
}

std::string LmdbWriter::get(const std::string& key) const {
    MDB_txn* transaction = nullptr;
    check(mdb_txn_begin(environment_, nullptr, MDB_RDONLY, &transaction), "reading");
    MDB_val key_view{key.size(), const_cast<char*>(key.data())}, value{};
    const int code = mdb_get(transaction, database_, &key_view, &value);
    std::string copy;
    if (code == 0) copy.assign(static_cast<const char*>(value.mv_data), value.mv_size);
    mdb_txn_abort(transaction);
    check(code, "reading");
    return copy;
}

}  // namespace rn50
