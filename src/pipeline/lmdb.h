// LMDB databases of Caffe's Datum. They are written by liblmdb. Reading is our own: the library takes a file as it is
// and trusts every offset in it, so that a damaged or shortened one ends the program; and with the place of each value
// in the index, a sample is one read, as with the other kinds of shards.
#pragma once

#include <cstdint>
#include <string>

#include "pipeline/shard_index.h"

struct MDB_env;
struct MDB_txn;

namespace rn50 {

/// "0.9.24", of the library that writes.
std::string lmdb_version();

/// Calls `use` with key, place and size of every value of the unnamed database in the order of the keys. `name` is for
/// messages. Throws Error(Exit::data), "NAME: reason", for what is no LMDB of this kind, is damaged or is cut short.
/// File format: struct MDB_meta, MDB_page and MDB_node in LMDB 0.9's mdb.c, 64 bit.
void walk_lmdb(const RandomBytes& bytes, const std::string& name,
               const std::function<void(const std::string& key, int64_t offset, int64_t bytes)>& use);

/// The samples of a database (its data.mdb) in the order of its keys; values that cannot be used are left out by name.
/// Throws as walk_lmdb().
ShardIndex index_lmdb(const RandomBytes& bytes, const std::string& name);

/// The file's name in a key as Caffe's convert_imageset makes it, "00000007_cat/1.jpg"; another key as it is.
std::string name_in_key(const std::string& key);

/// Adds to a database, or makes a new one. One thread at a time; no reader and no other writer meanwhile.
class LmdbWriter {
  public:
    static constexpr size_t max_key = 511;  ///< bytes

    /// `folder` gets data.mdb; it must exist. `largest`: bytes that the file may grow to, at least; only address space
    /// is taken for them. Throws Error(Exit::data), as do the others.
    LmdbWriter(const std::string& folder, int64_t largest);
    ~LmdbWriter();
    LmdbWriter(const LmdbWriter&) = delete;
    LmdbWriter& operator=(const LmdbWriter&) = delete;

    void put(const std::string& key, const std::string& value);
    /// Makes what was put since the last commit durable; without it that is lost.
    void commit();
    /// The value of a key that was committed.
    std::string get(const std::string& key) const;

  private:
    void check(int code, const char* doing) const;

    std::string file_;
    MDB_env* environment_ = nullptr;
    MDB_txn* transaction_ = nullptr;
    unsigned database_ = 0;
};

}  // namespace rn50
