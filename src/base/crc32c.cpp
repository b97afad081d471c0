#include "base/crc32c.h"

#include <nmmintrin.h>

#include <cstring>

namespace rn50 {

uint32_t crc32c(const void* data, size_t size, uint32_t before) {
    const auto* at = static_cast<const unsigned char*>(data);
    uint64_t crc = ~before;
    for (; size >= 8; at += 8, size -= 8) {
        uint64_t word;
        std::memcpy(&word, at, 8);
        crc = _mm_crc32_u64(crc, word);
    }
    auto rest = static_cast<uint32_t>(crc);
    for (; size > 0; ++at, --size)
        rest = _mm_crc32_u8(rest, *at);
    return ~rest;
}

}  // namespace rn50
