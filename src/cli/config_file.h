// The files of options: flat TOML, one `key = value` a line, comments behind '#'. Own code because every complaint must
// name the line, and CLI11's reader neither keeps lines nor reads a '#' inside quotes as text.
#pragma once

#include <string>
#include <vector>

namespace rn50 {

struct ConfigEntry {
    std::string key;
    std::vector<std::string> parts;              ///< the value's text without quotes; several for an array
    enum class Kind { bare, text, array } kind;  ///< 64 or true; "adamw"; [0.08, 1.0]
    int line;                                    ///< from 1
};

/// The entries of a file in order. Throws Error(Exit::usage) "FILE:LINE: ..." for what is not flat TOML or stands
/// twice.
std::vector<ConfigEntry> parse_config(const std::string& text, const std::string& file);

/// Reads the whole file, then as above. Throws Error(Exit::data) when it cannot be read.
std::vector<ConfigEntry> read_config(const std::string& file);

/// Text as a TOML string, in quotes.
std::string toml_quote(const std::string& text);

}  // namespace rn50
