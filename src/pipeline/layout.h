// Which splits a data set has, and of what kind. For the pipeline alone.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "pipeline/shard_index.h"

namespace rn50 {

/// Where a split lies.
struct SplitPlace {
    std::string name;                ///< "train", "val", ...; "all": a set without splits
    std::optional<ShardKind> kind;   ///< none: a folder with one folder a class
    std::vector<std::string> paths;  ///< the shards, sorted by name; or the folder
};

/// What a data set consists of.
struct Layout {
    std::vector<SplitPlace> splits;  ///< at least one: train, val, then the others by name; or "all" alone
    /// Folders beside them that may be splits, if what is in them are classes.
    std::vector<SplitPlace> candidates;
    const SplitPlace* find(const std::string& name) const;
};

/// Looks at names, not into files. Throws Error(Exit::data) by name for a path that is neither folder nor file nor a
/// pattern, for splits of two kinds, for shards that are missing from their number, and for compressed ones. A folder
/// that holds nothing of all this is taken for one of class folders.
Layout find_layout(const std::string& root);

/// 'x-{000000..000099}.tar' as its names; a text without braces as it is. Several ranges: all combinations. Throws
/// Error(Exit::usage) for braces that are no range and for more than a million names.
std::vector<std::string> expand_braces(const std::string& pattern);

/// What a file's name says: the kind of shard and the split. None: it is no shard.
struct ShardName {
    ShardKind kind;
    std::string split;      ///< "train" of train-000000.tar, val_7.tfrecord's "val", x.tfrecords's "x"; may be empty
    int64_t of_shards = 0;  ///< the 128 of NAME-00000-of-00128; else 0
};
std::optional<ShardName> parse_shard_name(const std::string& file_name);

}  // namespace rn50
