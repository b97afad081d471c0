// Pictures in shards, as a Source.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "pipeline/shard_index.h"
#include "pipeline/source.h"

namespace rn50 {

/// Shards of one split with their indices, labels still as the shards have them.
struct ShardSet {
    ShardKind kind = ShardKind::tar;
    std::vector<std::string> paths;
    std::vector<ShardIndex> indices;  ///< one a path
    std::string classes_file;         ///< classes.txt; "": none
};

/// The class names of a set: the lines of classes.txt, else what its samples are called, else numbers.
/// Throws Error(Exit::data) when they contradict each other or a number is out of range.
std::vector<std::string> classes_of(const ShardSet& set, int64_t label_offset, std::vector<std::string>& warnings);

/// The source of a set, whose labels become indices into `classes`: numbers by way of classes.txt where there is one,
/// else as they are; names as they are. What was left out of the indices goes to `warnings`, and with
/// `needs_all_classes` the classes without a picture. Throws Error(Exit::data) for a label that has no class and for a
/// set without any picture.
std::unique_ptr<Source> make_shard_source(ShardSet set, const std::vector<std::string>& classes, int64_t label_offset,
                                          bool needs_all_classes, std::vector<std::string>& warnings);

/// The same when each label is known already, by shard and entry.
std::unique_ptr<Source> make_indexed_source(ShardSet set, std::vector<std::vector<int32_t>> labels,
                                            std::vector<std::string> classes);

}  // namespace rn50
