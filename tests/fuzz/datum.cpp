// Caffe's Datum, and the picture that it promises.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/error.h"
#include "pipeline/datum.h"
#include "pipeline/decode.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace rn50;
    static Decoder decoder;
    static Picture picture;
    Datum datum;
    if (!parse_datum({data, size}, datum) || !fault_of(datum).empty()) return 0;
    std::vector<uint8_t> file;
    picture_of(datum, file);
    DecodeLimits limits;
    limits.max_pixels = 1 << 20;
    try {
        decoder.decode(file.data(), file.size(), "x", limits, picture);
    } catch (const Error& error) {
        if (error.code() != Exit::data) throw;
    }
    return 0;
}
