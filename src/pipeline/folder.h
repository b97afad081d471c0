// What the layouts of a data set are made of: folders and their names. For the pipeline alone.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "pipeline/source.h"

namespace rn50 {

struct Listing {
    std::vector<std::string> folders, files;  ///< names without path, sorted as bytes, hidden ones left out
};
/// What lies in a folder. Throws Error(Exit::data) by name when it cannot be read.
Listing list_folder(const std::string& path);
bool is_folder(const std::string& path);
/// .jpg .jpeg .png .bmp .tga .ppm .pgm, in upper or lower case
bool is_picture_name(const std::string& name);

/// FOLDER/NAME
std::string join(const std::string& folder, const std::string& name);
/// "a, b, c, d, e, ... (7)"
std::string list_some(const std::vector<std::string>& names);

/// A folder beside train and val as a split, if its sub-folders are classes; null when they are something else. Some
/// classes and something else: a warning, and null.
std::unique_ptr<Source> open_extra_folder(const std::string& path, const std::vector<std::string>& classes,
                                          std::vector<std::string>& warnings);

}  // namespace rn50
