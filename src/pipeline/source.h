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
    /// What picture `i` is called in messages: its path.
    virtual std::string name(int64_t i) const = 0;
    /// Replaces `bytes` by the encoded picture (a file's whole content). Throws Error(Exit::data) whose text starts
    /// with "NAME: " when it cannot be read.
    virtual void read(int64_t i, std::vector<uint8_t>& bytes) const = 0;
    /// Class names; a label is an index into them.
    virtual const std::vector<std::string>& classes() const = 0;
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

/// Given pictures, in that order.
std::unique_ptr<Source> make_list_source(std::vector<Sample> samples, std::vector<std::string> classes);

/// A data folder, opened.
struct DataSplits {
    std::unique_ptr<Source> train, val;
    std::vector<std::pair<std::string, std::unique_ptr<Source>>> extra;  ///< e.g. "hard"; by name
    std::vector<std::string> classes;                                    ///< those of train
    std::vector<std::string> warnings;                                   ///< to be said by the caller, in this order
};

/// Opens `root` in one of two layouts:
///   ROOT/train/CLASS/* and ROOT/val/CLASS/*, and every other folder beside them whose sub-folders are all classes of
///   train as an extra split (a folder named "masks" is none);
///   ROOT/CLASS/* (or ROOT/train/CLASS/* without val) with `val_split` > 0: from each class that share of its pictures,
///   rounded, at least one and never all, is drawn for val as a function of `seed`.
/// Throws Error(Exit::data) by name for all that is missing, empty or not readable and for a class that val has and
/// train has not; Error(Exit::usage) for a `val_split` outside [0, 1).
DataSplits open_data(const std::string& root, double val_split, uint64_t seed);

}  // namespace rn50
