// A data set written anew in another format: read, checked, made smaller if asked, written, read back.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "pipeline/sample_writer.h"
#include "pipeline/source.h"

namespace rn50 {

/// As what pictures are written.
enum class PackEncode : uint8_t {
    keep,  ///< as they are; as JPEG where they are made smaller
    jpeg,  ///< as JPEG: those that are none, and those that are made smaller
    png,   ///< as PNG, all: 8 bits a channel, upright, the pixels that training sees
};

struct PackOptions {
    PackFormat format = PackFormat::webdataset;
    PackEncode encode = PackEncode::keep;
    int64_t longest = 0, shortest = 0;  ///< bound of a side in pixels; 0: none; at most one of them
    int quality = 90;                   ///< of the JPEGs that are encoded
    /// JPEGs that are copied get restart markers, where no pixel changes. Those that are encoded here always have them.
    bool restart_markers = false;
    int bits = 0;     ///< that count of 16-bit pictures which are made smaller: Decoder::open()
    int workers = 0;  ///< threads; 0: one a core
    int64_t part_bytes = 1'000'000'000;
    double max_bad = 0.01;        ///< share of pictures that may be bad
    double read_patience_s = 30;  ///< for which it is tried to read a picture again that cannot be read
};

struct PackState {
    std::string split;
    int64_t done = 0, total = 0;  ///< pictures of all splits; of done, some come from an earlier run
    int64_t done_now = 0;         ///< by this run
};

struct PackSummary {
    int64_t pictures = 0, bad = 0;      ///< written; left out
    int64_t unmarked = 0;               ///< JPEGs copied as they are by this run because restart markers change them
    int64_t made_lossy = 0;             ///< PNGs and the like, without loss, that this run made JPEGs
    int64_t bytes_read = 0, bytes = 0;  ///< of the pictures, by this run; of all parts
    int64_t shards = 0;
    bool stopped = false;       ///< by a signal; the same call goes on
    bool was_complete = false;  ///< there was nothing to do
};

/// Writes `splits` to the folder `out`: shards, classes.txt, pack.json (what is finished; a later call goes on behind
/// it) and bad.txt (pictures that cannot be decoded, which are left out; one that cannot be read, its file being gone
/// among others, ends it, because what is left out once is never looked at again). Every picture is decoded once; those
/// that need neither become smaller nor be encoded otherwise are copied byte for byte, unless restart markers are asked
/// for. What is written depends neither on the number of workers nor on how often it was interrupted, except the bytes
/// of an LMDB. `show` is called now and then. Throws Error(Exit::data): `out` holds something else, a disk is full, too
/// many are bad, a class has a name that cannot be written, something reads back differently; ReadError;
/// Error(Exit::usage) by name when `out` was begun with other options.
PackSummary pack(const std::vector<NamedSource>& splits, const std::string& out, const PackOptions& options,
                 const std::function<void(const PackState&)>& show);

/// Whether pack() was begun in this folder and has not ended.
bool pack_is_unfinished(const std::string& folder);

const char* name_of(PackFormat format);
const char* name_of(PackEncode encode);
/// From the command line's names; throws Error(Exit::usage) for an unknown one.
PackFormat pack_format_from(const std::string& name);
PackEncode pack_encode_from(const std::string& name);

}  // namespace rn50
