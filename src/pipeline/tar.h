// tar archives as WebDataset uses them: a sample is the run of members with the same key, the path up to the first dot
// of its last part: 000/0007.jpg + 000/0007.cls. https://github.com/webdataset/webdataset
#pragma once

#include <cstdint>
#include <string>

#include "pipeline/shard_index.h"

namespace rn50 {

inline constexpr int64_t tar_block = 512;

/// One header block, POSIX ustar or GNU.
struct TarHeader {
    std::string name;  ///< prefix and name
    int64_t size = 0;  ///< bytes of data that follow, padded to whole blocks
    char type = '0';
};
enum class TarBlock : uint8_t { header, zero, damaged };
/// Reads `block`, of tar_block bytes. Damaged: the checksum or the size is wrong.
TarBlock parse_tar_header(const uint8_t* block, TarHeader& header);

/// The records "LENGTH KEY=VALUE\n" of a pax header. What it does not name stays as it is. False: damaged.
bool parse_pax(ByteView records, std::string& path, int64_t& size);

/// Splits "a/b.c/0007.left.jpg" into key "a/b.c/0007" and extension "left.jpg" (lower case); no extension: "".
void split_key(const std::string& path, std::string& key, std::string& extension);

/// The samples of an archive: a picture (.jpg .jpeg .png .bmp .tga .ppm .pgm) and its class from .cls (a number or a
/// name), else from .json ("label": a number, "class" or "cls": a name). Samples without one or the other are left out
/// by name. `name` is for messages. Throws Error(Exit::data), "NAME: reason", for what is no tar, is damaged or is cut
/// short.
ShardIndex index_tar(const RandomBytes& bytes, const std::string& name);

/// A header block for a file of `size` bytes; `name` of at most 100 bytes. Owner and time are 0: same content, same
/// bytes.
std::string tar_header(const std::string& name, int64_t size);

}  // namespace rn50
