// Caffe's Datum, what its LMDBs hold: an encoded picture or raw planes, with a label.
// https://github.com/BVLC/caffe/blob/master/src/caffe/proto/caffe.proto
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pipeline/shard_index.h"

namespace rn50 {

struct Datum {
    int64_t channels = 0, height = 0, width = 0;  ///< of raw planes
    ByteView data;                                ///< the picture; a view into the parsed bytes
    int64_t label = ShardIndex::no_label;
    bool encoded = false;
    bool has_floats = false;  ///< values in float_data, which are no picture
    ByteView name;            ///< the file's name, in a field of our own that Caffe passes over
};

/// False: the bytes are no Datum.
bool parse_datum(ByteView bytes, Datum& datum);
/// Why a datum holds no picture that can be used; "" when it does.
std::string fault_of(const Datum& datum);
/// The picture of a datum without fault as the bytes of a file: as it is when it is encoded, else the planes (blue,
/// green, red, or one of grey) as PNM. `picture` must not hold the bytes that the datum views.
void picture_of(const Datum& datum, std::vector<uint8_t>& picture);

/// An encoded picture as Caffe's convert_imageset --encoded writes it, and its name.
std::string serialize_datum(ByteView picture, int64_t label, const std::string& name);

}  // namespace rn50
