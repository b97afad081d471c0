// PNG and TGA by stb_image. It forgives much; what it forgives at the cost of pixels is caught here: a file that
// is cut short, a chunk whose checksum is wrong, memory without bound.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "pipeline/formats.h"

namespace {

/// The most that stb_image may ask for at once on this thread: a small file can unpack to gigabytes.
thread_local size_t stb_limit = 0;
thread_local bool stb_beyond_limit = false;  ///< it has asked for more

bool stb_may_have(size_t bytes) {
    stb_beyond_limit |= bytes > stb_limit;
    return bytes <= stb_limit;
}
void* stb_allocate(size_t bytes) {
    return stb_may_have(bytes) ? std::malloc(bytes) : nullptr;
}
void* stb_reallocate(void* old, size_t bytes) {
    return stb_may_have(bytes) ? std::realloc(old, bytes) : nullptr;
}

}  // namespace

#define STBI_MALLOC(bytes) stb_allocate(bytes)
#define STBI_REALLOC(old, bytes) stb_reallocate(old, bytes)
#define STBI_FREE(memory) std::free(memory)
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_PNG
#define STBI_ONLY_TGA
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_FAILURE_USERMSG
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include <stb/stb_image.h>
#pragma GCC diagnostic pop

namespace rn50::formats {

namespace {

/// Feeds stb_image from memory and notices when it wants more than there is; then it makes zeros up without a word.
class Reader {
  public:
    explicit Reader(Bytes bytes) : bytes_(bytes) {}
    bool ran_dry() const { return ran_dry_; }

    static int read(void* user, char* data, int size) {
        auto& self = *static_cast<Reader*>(user);
        if (!self.buffer_) self.buffer_ = data;
        const size_t left = self.bytes_.size - self.at_;
        const size_t n = left < static_cast<size_t>(size) ? left : static_cast<size_t>(size);
        std::memcpy(data, self.bytes_.data + self.at_, n);
        self.at_ += n;
        // Its own small buffer (the first place it reads to) is filled ahead of need; all else is needed.
        if (data == self.buffer_ ? n == 0 : n < static_cast<size_t>(size)) self.ran_dry_ = true;
        return static_cast<int>(n);
    }
    static void skip(void* user, int n) {
        auto& self = *static_cast<Reader*>(user);
        if (n < 0) {
            const size_t back = static_cast<size_t>(-static_cast<int64_t>(n));
            self.at_ -= back < self.at_ ? back : self.at_;
            return;
        }
        const size_t left = self.bytes_.size - self.at_;
        self.at_ += left < static_cast<size_t>(n) ? left : static_cast<size_t>(n);
    }
    static int at_end(void* user) {
        const auto& self = *static_cast<Reader*>(user);
        return self.at_ == self.bytes_.size;
    }
    static constexpr stbi_io_callbacks callbacks{read, skip, at_end};

  private:
    Bytes bytes_;
    size_t at_ = 0;
    char* buffer_ = nullptr;
    bool ran_dry_ = false;
};

template <class T>
struct Pixels {
    explicit Pixels(T* pixels) : data(pixels) {}
    ~Pixels() { stbi_image_free(data); }
    Pixels(const Pixels&) = delete;
    Pixels& operator=(const Pixels&) = delete;
    T* data;
};

Error stb_failure() {
    if (stb_beyond_limit) return bad_picture("the file unpacks to more than a picture of its size can hold");
    const char* reason = stbi_failure_reason();
    return bad_picture(reason ? reason : "damaged");
}

/// Reads the header and makes room; sets the limit of what stb_image may take.
void read_size(Bytes bytes, const DecodeLimits& limits, Picture& picture) {
    if (bytes.size > INT32_MAX) throw bad_picture("the file is larger than 2 GB");
    Reader reader(bytes);
    int width = 0, height = 0, channels = 0;
    stb_limit = 1 << 16;
    stb_beyond_limit = false;
    if (!stbi_info_from_callbacks(&Reader::callbacks, &reader, &width, &height, &channels))
        throw bad_picture("the header is damaged, or of a kind that is not read");
    set_size(picture, height, width, limits);
    // 16 bits x 4 channels, a filter byte a row (seven times in interlaced files), and buffers that grow by doubling.
    const size_t unpacked = static_cast<size_t>(height) * (static_cast<size_t>(width) * 8 + 16);
    stb_limit += 2 * unpacked + 2 * bytes.size;
}

void decode_8_bit(Bytes bytes, const DecodeLimits& limits, Picture& picture) {
    read_size(bytes, limits, picture);
    Reader reader(bytes);
    int width = 0, height = 0, channels = 0;
    const Pixels<stbi_uc> pixels(stbi_load_from_callbacks(&Reader::callbacks, &reader, &width, &height, &channels, 3));
    if (reader.ran_dry()) throw bad_picture("the file is cut short");
    if (!pixels.data) throw stb_failure();
    RN50_REQUIRE(width == picture.width && height == picture.height, "stb_image changed its mind about the size");
    std::memcpy(picture.rgb.data(), pixels.data, picture.rgb.size());
}

/// How samples of 16 bits become 8.
struct Scale {
    int shift, highest;  ///< value >> shift, of which `highest` is white
    uint8_t level(unsigned value) const {
        const int sample = static_cast<int>(value >> shift);
        // A half is never met, for `highest` is odd: so a double rounds as whole numbers would.
        return static_cast<uint8_t>(std::min(sample, highest) * (255.0 / highest) + 0.5);
    }
};

/// The scale of samples that have so many `significant` bits, by their file's sBIT chunk. PNG wants them in the upper
/// bits; some cameras' programs leave them in the lower ones, where they have no business to be. A dark picture in the
/// upper bits has nothing but zeros below them.
Scale scale_of(const stbi_us* samples, size_t count, int significant) {
    const unsigned below = (1u << (16 - significant)) - 1, highest = (1u << significant) - 1;
    unsigned all = 0, most = 0;
    for (size_t i = 0; i < count; ++i) {
        all |= samples[i];
        most = samples[i] > most ? samples[i] : most;
    }
    const bool in_lower_bits = most <= highest && (all & below) != 0;
    return {in_lower_bits ? 0 : 16 - significant, static_cast<int>(highest)};
}

/// `bits`: how many of the lower ones count; 0: all, or those that the file names, `significant` (0: none are named).
int decode_16_bit(Bytes bytes, const DecodeLimits& limits, int bits, int significant, Picture& picture) {
    read_size(bytes, limits, picture);
    Reader reader(bytes);
    int width = 0, height = 0, channels = 0;
    const Pixels<stbi_us> pixels(
        stbi_load_16_from_callbacks(&Reader::callbacks, &reader, &width, &height, &channels, 3));
    if (!pixels.data) throw stb_failure();
    RN50_REQUIRE(width == picture.width && height == picture.height, "stb_image changed its mind about the size");
    const size_t count = picture.rgb.size();
    const Scale scale = bits > 0          ? Scale{0, (1 << bits) - 1}
                        : significant > 0 ? scale_of(pixels.data, count, significant)
                                          : Scale{0, UINT16_MAX};
    uint8_t* dst = picture.rgb.data();
    int highest = 0;
    for (size_t i = 0; i < count; ++i) {
        dst[i] = scale.level(pixels.data[i]);
        highest = pixels.data[i] > highest ? pixels.data[i] : highest;
    }
    return bits > 0 || significant > 0 ? -1 : highest;
}

struct CrcTable {
    uint32_t entries[256];
    constexpr CrcTable() : entries() {
        for (uint32_t n = 0; n < 256; ++n) {
            uint32_t c = n;
            for (int bit = 0; bit < 8; ++bit)
                c = c & 1 ? 0xEDB88320u ^ c >> 1 : c >> 1;
            entries[n] = c;
        }
    }
};

/// CRC-32 as PNG and zlib have it.
uint32_t crc32(const uint8_t* data, size_t size) {
    static constexpr CrcTable table;
    uint32_t crc = ~0u;
    for (size_t i = 0; i < size; ++i)
        crc = table.entries[(crc ^ data[i]) & 255] ^ crc >> 8;
    return ~crc;
}

uint32_t big_endian(const uint8_t* p) {
    return static_cast<uint32_t>(p[0]) << 24 | static_cast<uint32_t>(p[1]) << 16 | static_cast<uint32_t>(p[2]) << 8 |
           p[3];
}

/// Walks over the chunks up to the last one: all there, and those that hold the picture undamaged.
void check_png_chunks(Bytes bytes) {
    size_t at = 8;
    for (;;) {
        if (bytes.size - at < 12) throw bad_picture("the PNG is cut short");
        const uint8_t* chunk = bytes.data + at;
        const size_t length = big_endian(chunk);
        const uint8_t* type = chunk + 4;
        if (at == 8 && (std::memcmp(type, "IHDR", 4) != 0 || length != 13)) throw bad_picture("the PNG has no header");
        if (bytes.size - at - 12 < length) throw bad_picture("the PNG is cut short");
        const bool used = !(type[0] & 0x20) || std::memcmp(type, "sBIT", 4) == 0;
        if (used && crc32(type, length + 4) != big_endian(chunk + 8 + length))
            throw bad_picture("a PNG chunk is damaged (its checksum is wrong)");
        if (std::memcmp(type, "IEND", 4) == 0) return;
        at += 12 + length;
    }
}

/// The first chunk of this type of a PNG whose chunks have been checked; {nullptr, 0} when there is none.
Bytes find_png_chunk(Bytes bytes, const char* type) {
    // Signature, then length, type, body, checksum.
    size_t at = 8;
    while (bytes.size - at >= 12) {
        const uint8_t* chunk = bytes.data + at;
        const size_t length = big_endian(chunk);
        if (bytes.size - at - 12 < length) break;
        if (std::memcmp(chunk + 4, type, 4) == 0) return {chunk + 8, length};
        at += 12 + length;
    }
    return {nullptr, 0};
}

/// How many bits of a sample of 16 were there before it was stored, in the channel that had most; 0: it does not say.
int significant_bits(Bytes bytes) {
    const Bytes chunk = find_png_chunk(bytes, "sBIT");
    const size_t colors = bytes.data[25] & 2 ? 3 : 1;  // the header's colour type; alpha does not count
    int most = 0;
    for (size_t i = 0; i < colors && i < chunk.size; ++i)
        most = chunk.data[i] > most ? chunk.data[i] : most;
    return most <= 16 ? most : 0;
}

}  // namespace

int decode_png(Bytes bytes, const DecodeLimits& limits, int bits, Picture& picture) {
    check_png_chunks(bytes);
    check_size({big_endian(bytes.data + 20), big_endian(bytes.data + 16)}, limits);  // stb_image gives no reason
    const int depth = bytes.data[24];                                                // of a sample, by the header
    if (depth == 16) return decode_16_bit(bytes, limits, bits, significant_bits(bytes), picture);
    decode_8_bit(bytes, limits, picture);
    return -1;
}

bool inflate(Bytes zlib, size_t limit, std::vector<uint8_t>& out) {
    if (zlib.size > limit) return false;
    stb_limit = limit;
    stb_beyond_limit = false;
    int size = 0;
    // stb_image doubles its buffer, so the limit is met to within a factor of two.
    const Pixels<char> plain(stbi_zlib_decode_malloc_guesssize(reinterpret_cast<const char*>(zlib.data),
                                                               static_cast<int>(zlib.size), 4096, &size));
    if (!plain.data) return false;
    out.insert(out.end(), plain.data, plain.data + size);
    return true;
}

/// Whether the file can hold so many pixels; stb_image would make them up, one byte at a time.
static bool can_hold_tga(Bytes bytes) {
    const uint8_t* header = bytes.data;
    const auto u16 = [&](size_t at) { return size_t{header[at]} | size_t{header[at + 1]} << 8; };
    const bool runs = header[2] >= 9;
    const size_t pixels = u16(12) * u16(14), pixel_bytes = (size_t{header[16]} + 7) / 8;
    // A run is one byte, and a pixel for at most 128.
    const size_t least = runs ? (pixels + 127) / 128 * (1 + pixel_bytes) : pixels * pixel_bytes;
    return bytes.size >= 18 && bytes.size - 18 >= least;
}

void decode_tga(Bytes bytes, const DecodeLimits& limits, Picture& picture) {
    if (!can_hold_tga(bytes)) throw bad_picture("the file is cut short, or no TGA");
    decode_8_bit(bytes, limits, picture);
}

}  // namespace rn50::formats
