// Data sets written: one interface for folders, WebDataset, TFRecord and LMDB.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "format/protobuf.h"

namespace rn50 {

enum class PackFormat : uint8_t { folder, webdataset, tfrecord, lmdb };

/// A picture to be written.
struct PackedSample {
    ByteView picture;
    int64_t index = 0;  ///< in its split's source
    int64_t label = 0;
    std::string class_name;
    std::string path;  ///< CLASS/FILE, safe to be made below a folder
    int64_t height = 0, width = 0;
};

/// What of a split is on the disk and read back.
struct WrittenPart {
    std::string file;
    int64_t pictures = 0, bytes = 0;
    bool operator==(const WrittenPart& other) const {
        return file == other.file && pictures == other.pictures && bytes == other.bytes;
    }
};

/// Writes one split. Bytes depend on the samples and their order alone. Parts (shards; in a folder or a database, a
/// stretch of pictures) that are finished stay, whatever happens to the ones after. A part is finished when it has been
/// read back from the disk, pictures and classes; of shards that happens while the next one is written. All throw
/// Error(Exit::data) when something cannot be written or reads back differently.
class SampleWriter {
  public:
    virtual ~SampleWriter() = default;
    /// True: with what was added before this sample a part is at its end; it will be the next one of parts().
    virtual bool add(const PackedSample& sample) = 0;
    /// Finishes the last part and gives the shards their final names.
    virtual void finish() = 0;
    /// The finished ones, those of earlier runs included.
    virtual const std::vector<WrittenPart>& parts() const = 0;
};

struct WriterOptions {
    PackFormat format = PackFormat::webdataset;
    std::string folder;  ///< of the whole set; exists
    std::string split;   ///< "train"; "all": a set without splits
    int64_t part_bytes = 1'000'000'000;
    int64_t expected_bytes = 0;  ///< of all pictures, about
    int64_t expected_pictures = 0;
    std::vector<WrittenPart> done;     ///< parts that an earlier run finished: writing goes on behind them
    std::vector<std::string> classes;  ///< as folder/classes.txt lists them, which every format but a folder needs
};
std::unique_ptr<SampleWriter> make_writer(const WriterOptions& options);

/// The extension that fits a picture's bytes: ".jpg", ".png", ".bmp", ".pgm", ".ppm"; else ".tga", which alone has no
/// signature.
const char* extension_of_picture(ByteView picture);

/// A relative path that stays below the folder it is put into and that a folder source sees: without empty, "." and
/// ".." parts and control characters, and no part begins with a dot. May be empty.
std::string safe_path(const std::string& path);

}  // namespace rn50
