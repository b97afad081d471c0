// safetensors: the header of a checkpoint, and every tensor that it promises.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "format/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace rn50;
    static const int file = memfd_create("checkpoint", 0);
    static const std::string path = "/proc/self/fd/" + std::to_string(file);
    if (ftruncate(file, 0) != 0 || pwrite(file, data, size, 0) != static_cast<ssize_t>(size)) return 0;
    try {
        const SafetensorsReader reader(path);
        for (const auto& [name, entry] : reader.entries()) {
            RN50_REQUIRE(entry.bytes >= 0 && entry.bytes <= static_cast<int64_t>(size), name, " has ", entry.bytes,
                         " bytes of a file of ", size);
            std::vector<float> values(static_cast<size_t>(entry.count()));
            try {
                reader.read(name, entry.dims, DType::f32, values.data());
            } catch (const Error& error) {
                if (error.code() != Exit::data) throw;
            }
        }
    } catch (const Error& error) {
        if (error.code() != Exit::data) throw;
    }
    return 0;
}
