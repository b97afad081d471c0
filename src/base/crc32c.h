// CRC-32C (Castagnoli), the checksum of TFRecord and of our own index files.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rn50 {

/// The CRC-32C of `size` bytes; `before` is that of the bytes in front of them (0: none). RFC 3720, appendix B.4.
uint32_t crc32c(const void* data, size_t size, uint32_t before = 0);

/// The form in which TFRecord stores it: rotated right by 15 and shifted by a constant.
constexpr uint32_t masked_crc(uint32_t crc) {
    return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

}  // namespace rn50
