// PNGs put together by hand, as the PNG specification defines them.
#pragma once

#include <cstdint>
#include <string>

namespace rn50::test {

/// The lowest bytes of a number, the highest of them first.
inline std::string big_endian(uint32_t value, int bytes = 4) {
    std::string text;
    for (int i = bytes - 1; i >= 0; --i)
        text += static_cast<char>(value >> 8 * i);
    return text;
}

/// CRC-32 bit by bit.
inline uint32_t crc_of(const std::string& bytes) {
    uint32_t crc = ~0u;
    for (const char c : bytes) {
        crc ^= static_cast<uint8_t>(c);
        for (int bit = 0; bit < 8; ++bit)
            crc = (crc & 1 ? 0xEDB88320u : 0) ^ crc >> 1;
    }
    return ~crc;
}

inline std::string png_chunk(const std::string& type, const std::string& data) {
    return big_endian(static_cast<uint32_t>(data.size())) + type + data + big_endian(crc_of(type + data));
}

}  // namespace rn50::test
