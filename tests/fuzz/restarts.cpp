// JPEGs coded anew with restart markers, as `pack` does: of those that decode, and then crops of what came out, whose
// tiles are cut.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/error.h"
#include "pipeline/decode.h"
#include "pipeline/encode.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace rn50;
    static Decoder decoder;
    static Picture before, after;
    static std::vector<uint8_t> marked;
    if (size < 3 || data[0] != 0xFF || data[1] != 0xD8) return 0;
    DecodeLimits limits;
    limits.max_pixels = 1 << 20;
    limits.max_scans = 20;
    try {
        decoder.decode(data, size, "x", limits, before);
        add_restart_markers({data, data + size}, marked);
        decoder.decode(marked.data(), marked.size(), "x", limits, after);
        // As pack does, which then copies the file: markers between scans are moved in front, where they may turn it.
        if (after.height != before.height || after.rgb != before.rgb) return 0;
        const int64_t w = after.width, h = after.height;
        const Box box{static_cast<double>(w / 2), static_cast<double>(h / 3), static_cast<double>(w / 2 + (w + 3) / 4),
                      static_cast<double>(h / 3 + (h + 2) / 3)};
        decoder.open(marked.data(), marked.size(), "x", limits);
        decoder.decode_region({box, 1 + data[size - 1] / 4, 1 + data[size - 1] / 4}, after);
    } catch (const Error& error) {
        if (error.code() != Exit::data) throw;
    }
    return 0;
}
