// Where pictures come from: one interface for random access, and the layout of a data folder.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace rn50 {

/// One picture of a folder.
struct Sample {
    std::string path;
    int32_t label;
};

/// A set of labelled, encoded pictures with random access. All methods are safe to call from several threads at once.
class Source {
  public:
    virtual ~Source() = default;
    virtual int64_t size() const = 0;
    /// The index in classes() of picture `i`, 0 <= i < size().
    virtual int32_t label(int64_t i) const = 0;
    /// What picture `i` is called in messages: its path, or SHARD/PATH.
    virtual std::string name(int64_t i) const = 0;
    /// Replaces `bytes` by the encoded picture (a file's whole content). Throws Error(Exit::data) whose text starts
    /// with "NAME: " when it cannot be read.
    virtual void read(int64_t i, std::vector<uint8_t>& bytes) const = 0;
    /// Class names; a label is an index into them.
    virtual const std::vector<std::string>& classes() const = 0;

    /// What picture `i` is called inside its set, wherever that lies: CLASS/FILE where it came from a folder. Others
    /// chose it, so it may hold anything.
    virtual std::string path_inside(int64_t i) const { return name(i); }
    /// Bytes that are stored for picture `i`, close to those that read() gives; 0 where it is not known.
    virtual int64_t stored_bytes(int64_t) const { return 0; }
    /// Tells the system that picture `i` will be read soon. Never throws.
    virtual void prefetch(int64_t) const {}
    /// "folder", "WebDataset", "TFRecord" or "LMDB"; "" for others.
    virtual std::string format() const { return {}; }
    /// The files that make it up, where they are not the pictures themselves.
    virtual std::vector<std::string> shards() const { return {}; }
};

/// The pictures below `root`, a folder with one sub-folder a class: classes sorted by name as bytes, as torchvision's
/// ImageFolder does, pictures sorted by path within their class. Pictures are files (at any depth, symbolic links
/// followed) named .jpg .jpeg .png .bmp .tga .ppm .pgm in upper or lower case; hidden files are ignored.
/// With `known_classes` labels are indices into that list, a class folder outside it is an error and an empty or
/// missing class is a warning; without, an empty class folder is an error. Warnings are appended to `warnings` if
/// given. Throws Error(Exit::data) by name: no such folder, not readable, no class folders, no pictures.
std::unique_ptr<Source> make_folder_source(const std::string& root,
                                           const std::vector<std::string>* known_classes = nullptr,
                                           std::vector<std::string>* warnings = nullptr);

/// Given pictures, in that order. `root` is cut off their paths by path_inside().
std::unique_ptr<Source> make_list_source(std::vector<Sample> samples, std::vector<std::string> classes,
                                         const std::string& root = "");

/// A number that tells sets of pictures apart by the names and labels of their pictures, in their order.
class Fingerprint {
  public:
    void add(const std::string& name, int32_t label);
    uint32_t value() const { return value_; }

  private:
    uint32_t value_ = 0;
};
/// Of path_inside() and label() of all pictures; a fraction of a second for a million.
uint32_t fingerprint_of(const Source& source);

/// Some pictures of another source, in the order of `indices`.
std::unique_ptr<Source> make_subset_source(std::shared_ptr<const Source> whole, std::vector<int64_t> indices);

/// A data set, opened.
struct DataSplits {
    std::unique_ptr<Source> train, val;
    std::vector<std::pair<std::string, std::unique_ptr<Source>>> extra;  ///< e.g. "hard"; by name
    std::vector<std::string> classes;                                    ///< those of train
    std::vector<std::string> warnings;                                   ///< to be said by the caller, in this order
};

/// A part of a data set by its name.
struct NamedSource {
    std::string name;
    std::unique_ptr<Source> source;
};

/// Where the labels of TFRecord and LMDB begin, and what is drawn for val where there is none.
struct DataOptions {
    double val_split = 0;  ///< share of each class, rounded, at least one picture and never all; drawn by `seed`
    uint64_t seed = 0;
    int64_t label_offset = 0;  ///< the number of the first class
};

/// Opens `root` to train on it and to measure. The splits train and val, and every other split that has no class but
/// those of train as an extra one, are each one of
///   ROOT/train/CLASS/*                              a folder for each class (a folder named "masks" is no split)
///   ROOT/train/*.tar or ROOT/train-*.tar            WebDataset shards
///   ROOT/train/*.tfrecord, ROOT/train-*.tfrecord or ROOT/train-00000-of-00128     TFRecord
///   ROOT/train/data.mdb or ROOT/train_lmdb/data.mdb                               LMDB
/// ("validation" counts as "val"). A set without splits (ROOT/CLASS/*, one group of shards, a shard by its name, a
/// pattern 'x-{000000..000099}.tar'), or train without val, needs `val_split`. Class names of shards: classes.txt
/// beside them or in ROOT (one a line), else what the shards say, else "0", "1", ... Throws Error(Exit::data) by name
/// for all that is missing, empty, mixed, half packed or not readable, for a label out of range and for a class that
/// val has and train has not; Error(Exit::usage) for a `val_split` outside [0, 1).
DataSplits open_data(const std::string& root, const DataOptions& options);

/// What a net that knows `classes` is measured on: val and the extra splits; without val what val_split draws; without
/// both all there is ("all"). At least one split.
std::vector<NamedSource> open_evaluation(const std::string& root, const DataOptions& options,
                                         const std::vector<std::string>& classes, std::vector<std::string>& warnings);

/// Every split as it is: train, val, then the others by name; or the only one, "all".
std::vector<NamedSource> open_splits(const std::string& root, const DataOptions& options,
                                     std::vector<std::string>& warnings);

}  // namespace rn50
