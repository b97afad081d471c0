// The one thing taken from EXIF: how the camera was held. TIFF 6.0, tag 274.
#include <cstring>

#include "pipeline/formats.h"

namespace rn50::formats {

namespace {

/// Unsigned numbers out of a TIFF structure; out of bounds reads give 0, which no caller takes for an answer.
class Tiff {
  public:
    explicit Tiff(Bytes bytes) : bytes_(bytes), little_(bytes.size > 1 && bytes.data[0] == 'I') {}
    uint32_t u16(size_t at) const { return number(at, 2); }
    uint32_t u32(size_t at) const { return number(at, 4); }

  private:
    uint32_t number(size_t at, size_t n) const {
        if (at > bytes_.size || bytes_.size - at < n) return 0;
        uint32_t value = 0;
        for (size_t i = 0; i < n; ++i)
            value = value << 8 | bytes_.data[at + (little_ ? n - 1 - i : i)];
        return value;
    }
    Bytes bytes_;
    bool little_;
};

int tiff_orientation(Bytes bytes) {
    if (bytes.size < 8) return 1;
    const bool little = std::memcmp(bytes.data, "II", 2) == 0;
    if (!little && std::memcmp(bytes.data, "MM", 2) != 0) return 1;
    const Tiff tiff(bytes);
    if (tiff.u16(2) != 42) return 1;
    const size_t directory = tiff.u32(4);
    const uint32_t entries = tiff.u16(directory);
    for (uint32_t i = 0; i < entries; ++i) {
        const size_t entry = directory + 2 + size_t{12} * i;
        if (tiff.u16(entry) != 274) continue;
        const bool is_long = tiff.u16(entry + 2) == 4;
        const uint32_t value = is_long ? tiff.u32(entry + 8) : tiff.u16(entry + 8);
        return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
    }
    return 1;
}

}  // namespace

int jpeg_orientation(Bytes bytes) {
    const uint8_t* data = bytes.data;
    size_t at = 2;  // behind the start marker; each segment: ff, marker, two bytes of length, which counts itself
    while (at + 4 <= bytes.size && data[at] == 0xFF) {
        const uint8_t marker = data[at + 1];
        if (marker == 0xFF) {  // fill byte
            ++at;
            continue;
        }
        if (marker == 0xDA || marker == 0xD9) break;
        const size_t length = static_cast<size_t>(data[at + 2]) << 8 | data[at + 3];
        if (length < 2 || bytes.size - at - 2 < length) break;
        const uint8_t* body = data + at + 4;
        if (marker == 0xE1 && length >= 8 && std::memcmp(body, "Exif\0\0", 6) == 0)
            return tiff_orientation({body + 6, length - 8});
        at += 2 + length;
    }
    return 1;
}

int png_orientation(Bytes bytes) {
    const Bytes exif = find_png_chunk(bytes, "eXIf");
    return exif.data != nullptr ? tiff_orientation(exif) : 1;
}

}  // namespace rn50::formats
