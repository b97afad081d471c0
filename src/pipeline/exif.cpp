// The one thing taken from EXIF and XMP: how the camera was held. TIFF 6.0, tag 274. EXIF goes before XMP.
#include <algorithm>
#include <cstring>
#include <vector>

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

constexpr int untold = 0;  ///< no orientation here; what is there and makes no sense is 1

bool starts_with(Bytes bytes, const char* text, size_t n) {
    return bytes.size >= n && std::memcmp(bytes.data, text, n) == 0;
}
Bytes behind(Bytes bytes, size_t n) {
    return {bytes.data + n, bytes.size - n};
}

int tiff_orientation(Bytes bytes) {
    if (bytes.size < 8) return untold;
    const bool little = std::memcmp(bytes.data, "II", 2) == 0;
    if (!little && std::memcmp(bytes.data, "MM", 2) != 0) return untold;
    const Tiff tiff(bytes);
    if (tiff.u16(2) != 42) return untold;
    const size_t directory = tiff.u32(4);
    const uint32_t entries = tiff.u16(directory);
    for (uint32_t i = 0; i < entries; ++i) {
        const size_t entry = directory + 2 + size_t{12} * i;
        if (tiff.u16(entry) != 274) continue;
        const bool is_long = tiff.u16(entry + 2) == 4;
        const uint32_t value = is_long ? tiff.u32(entry + 8) : tiff.u16(entry + 8);
        return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
    }
    return untold;
}

/// What Pillow looks for too: tiff:Orientation="6", or <tiff:Orientation>6</tiff:Orientation>.
int xmp_orientation(Bytes xmp) {
    static constexpr char tag[] = "tiff:Orientation";
    const uint8_t* const end = xmp.data + xmp.size;
    for (const uint8_t* at = xmp.data;; ++at) {
        at = std::search(at, end, tag, tag + sizeof tag - 1);
        if (at == end) return untold;
        Bytes value{at + sizeof tag - 1, static_cast<size_t>(end - at) - (sizeof tag - 1)};
        if (starts_with(value, "=\"", 2))
            value = behind(value, 2);
        else if (starts_with(value, ">", 1))
            value = behind(value, 1);
        else
            continue;
        if (value.size == 0 || value.data[0] < '0' || value.data[0] > '9') continue;
        return value.data[0] >= '1' && value.data[0] <= '8' ? value.data[0] - '0' : 1;
    }
}

/// The bytes that ImageMagick writes as text: a line break, the profile's name, its length, then hexadecimal digits in
/// lines.
std::vector<uint8_t> raw_profile(Bytes text) {
    std::vector<uint8_t> bytes;
    const uint8_t* at = text.data;
    const uint8_t* const end = text.data + text.size;
    for (int line = 0; line < 3 && at != end; ++line) {
        at = std::find(at, end, '\n');
        if (at != end) ++at;
    }
    const auto digit = [](uint8_t c) {
        return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
    };
    int high = -1;
    for (; at != end; ++at) {
        const int value = digit(*at);
        if (value < 0 && *at != '\n' && *at != ' ' && *at != '\r') break;
        if (value < 0) continue;
        if (high >= 0) bytes.push_back(static_cast<uint8_t>(high * 16 + value));
        high = high < 0 ? value : -1;
    }
    return bytes;
}

int exif_orientation(Bytes exif) {
    return tiff_orientation(starts_with(exif, "Exif\0\0", 6) ? behind(exif, 6) : exif);
}

/// What an orientation is told by, the most trusted first.
struct Findings {
    int exif = untold, raw_exif = untold, xmp = untold;
    int orientation() const {
        const int told = exif != untold ? exif : raw_exif != untold ? raw_exif : xmp;
        return told != untold ? told : 1;
    }
};

/// A chunk of text: its key, a zero byte, and the text, which may be compressed.
void look_into_text(Bytes chunk, bool international, bool always_compressed, Findings& found) {
    const uint8_t* const end = chunk.data + chunk.size;
    const uint8_t* const zero = std::find(chunk.data, end, uint8_t{0});
    const std::string key(chunk.data, zero);
    const bool is_exif = key == "Raw profile type exif", is_xmp = key == "XML:com.adobe.xmp";
    if (zero == end || (!is_exif && !is_xmp)) return;
    Bytes text{zero + 1, static_cast<size_t>(end - zero) - 1};
    bool compressed = always_compressed;
    if (always_compressed) {  // the method, of which there is one
        if (text.size < 1) return;
        text = behind(text, 1);
    } else if (international) {  // whether, and the method; then the language and the translated key, each with its
                                 // zero
        if (text.size < 2) return;
        compressed = text.data[0] == 1;
        text = behind(text, 2);
        for (int i = 0; i < 2; ++i) {
            const auto past = static_cast<size_t>(std::find(text.data, end, uint8_t{0}) - text.data) + 1;
            if (past > text.size) return;
            text = behind(text, past);
        }
    }
    std::vector<uint8_t> plain;
    if (compressed) {
        constexpr size_t most = 1 << 20;  // as Pillow
        if (!inflate(text, most, plain)) return;
        text = {plain.data(), plain.size()};
    }
    if (is_xmp) {
        found.xmp = xmp_orientation(text);
    } else {
        const std::vector<uint8_t> exif = raw_profile(text);
        found.raw_exif = exif_orientation({exif.data(), exif.size()});
    }
}

}  // namespace

int jpeg_orientation(Bytes bytes) {
    static constexpr char xmp_name[] = "http://ns.adobe.com/xap/1.0/";  // and a zero byte
    Findings found;
    const uint8_t* data = bytes.data;
    size_t at = 2;  // behind the start marker; each segment: ff, marker, two bytes of length, which counts itself
    while (at + 4 <= bytes.size) {
        const uint8_t marker = data[at + 1];
        if (data[at] != 0xFF || marker == 0xFF || marker == 0) {  // bytes between segments, which libjpeg passes over
            ++at;
            continue;
        }
        if (marker == 0xDA || marker == 0xD9) break;
        const size_t length = static_cast<size_t>(data[at + 2]) << 8 | data[at + 3];
        if (length < 2 || bytes.size - at - 2 < length) break;
        const Bytes body{data + at + 4, length - 2};
        if (marker == 0xE1 && found.exif == untold && starts_with(body, "Exif\0\0", 6))
            found.exif = exif_orientation(body);
        if (marker == 0xE1 && starts_with(body, xmp_name, sizeof xmp_name))
            found.xmp = xmp_orientation(behind(body, sizeof xmp_name));
        at += 2 + length;
    }
    return found.orientation();
}

int png_orientation(Bytes bytes) {
    // The chunks have been checked by decode_png: signature, then length, type, body, checksum.
    Findings found;
    size_t at = 8;
    while (bytes.size - at >= 12) {
        const uint8_t* chunk = bytes.data + at;
        const size_t length = static_cast<size_t>(chunk[0]) << 24 | static_cast<size_t>(chunk[1]) << 16 |
                              static_cast<size_t>(chunk[2]) << 8 | chunk[3];
        if (bytes.size - at - 12 < length) break;
        const Bytes body{chunk + 8, length};
        const auto is = [&](const char* type) { return std::memcmp(chunk + 4, type, 4) == 0; };
        if (is("eXIf")) found.exif = exif_orientation(body);
        if (is("tEXt") || is("iTXt") || is("zTXt")) look_into_text(body, is("iTXt"), is("zTXt"), found);
        at += 12 + length;
    }
    return found.orientation();
}

}  // namespace rn50::formats
