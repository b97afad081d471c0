// A stand-in for nvJPEG. Its "JPEG" is a FakeJpeg, whose pixel (x, y) has the channel c = 3 x + 5 y + 7 c, modulo 256.
// It notes each call that nvJPEG's documentation does not allow.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

namespace rn50::fake {

struct FakeJpeg {
    int32_t magic = 4711, width = 0, height = 0, components = 3;
    bool progressive = false;  ///< not for the hardware
    bool broken = false;       ///< its header reads well, its data do not
};

inline uint8_t pixel_of(int64_t x, int64_t y, int c) {
    return static_cast<uint8_t>(3 * x + 5 * y + 7 * c);
}

struct NvjpegWorld {
    bool has_hardware = true, starts = true, knows_flags = true, gpu_huffman = true;
    std::string absent;  ///< a function that this version has not

    std::vector<std::string> faults;  ///< breaches of the documentation
    std::set<void*> live;             ///< objects not destroyed
    unsigned flags = 0;
    int decoder_backend = -1, decodes = 0;
    size_t own_bytes = 0;  ///< of the device, of its own
};
extern NvjpegWorld nvjpeg_world;

/// The library's function of that name; null: it has none.
void* find_nvjpeg(const char* name);

}  // namespace rn50::fake
