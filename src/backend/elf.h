// What the file of a shared library tells without being loaded.
#pragma once

#include <string>
#include <vector>

namespace rn50 {

/// Whether a file is a shared library for this processor with its end there: dlopen maps a copy that broke off, and
/// dies.
bool is_whole_library(const std::string& path);

/// The names of the libraries that it asks for: "libcudnn.so.9". None where it is no whole library.
std::vector<std::string> libraries_needed(const std::string& path);

}  // namespace rn50
