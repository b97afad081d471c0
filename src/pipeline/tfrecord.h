// TFRecord: records of length, masked CRC-32C of the length, data, masked CRC-32C of the data, each a tf.train.Example.
// https://www.tensorflow.org/tutorials/load_data/tfrecord
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pipeline/shard_index.h"

namespace rn50 {

inline constexpr int64_t tfrecord_head = 12, tfrecord_tail = 4;

/// The length of a record from its first tfrecord_head bytes. False: the checksum is wrong.
bool parse_tfrecord_head(const uint8_t* head, uint64_t& length);
/// Whether `record`, data and tail, has the checksum that it says.
bool tfrecord_data_is_right(ByteView record);

/// What rn50 uses of a tf.train.Example; views into its bytes.
struct Example {
    ByteView picture;                      ///< image/encoded, else image
    int64_t label = ShardIndex::no_label;  ///< image/class/label, else label
    ByteView text;                         ///< image/class/text, or a label that is a string: the class's name
    ByteView filename;                     ///< image/filename, else filename, file_name
};
/// False: the bytes are no Example. What it lacks stays empty.
bool parse_example(ByteView bytes, Example& example);

/// What pack writes: ImageNet's keys.
struct ExampleFields {
    ByteView picture;
    int64_t label = 0;
    std::string text, filename, format;  ///< format: "JPEG", "PNG", ...
    int64_t height = 0, width = 0;
};
std::string serialize_example(const ExampleFields& fields);
/// Data as a whole record.
std::string tfrecord_of(const std::string& data);

/// The samples of a file; every checksum is verified. Records with wrong data, or without picture or label, are left
/// out by name. `name` is for messages. Throws Error(Exit::data), "NAME: reason", for what is no TFRecord, is damaged
/// in a length or is cut short.
ShardIndex index_tfrecord(const RandomBytes& bytes, const std::string& name);

}  // namespace rn50
