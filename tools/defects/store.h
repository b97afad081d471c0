// Pictures to disk. Every function throws Error(Exit::data) with the file's name and the system's reason.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace rn50::defects {

/// Makes a folder and those above it.
void make_folder(const std::filesystem::path& folder);
/// Renames `from` to `to`; a file that is there is replaced, a folder that holds something is an error.
void move_into_place(const std::filesystem::path& from, const std::filesystem::path& to);

/// `rgb`: size x size x 3. JPEG of quality 90, 4:2:0.
void write_jpeg(const std::filesystem::path& file, const std::vector<uint8_t>& rgb, int size);
/// `mask`: size x size, 0 or 255. PNG, 8 bits, one channel.
void write_png(const std::filesystem::path& file, const std::vector<uint8_t>& mask, int size);
void write_text(const std::filesystem::path& file, const std::string& text);

}  // namespace rn50::defects
