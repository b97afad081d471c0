// A tar of WebDataset: headers, long names, pax records, labels; all that the index names lies in the file.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/error.h"
#include "pipeline/tar.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace rn50;
    try {
        const RandomBytes all = bytes_of(ByteView{data, size});
        const ShardIndex index = index_tar(all, "x");
        for (int64_t i = 0; i < index.size(); ++i) {
            const ShardIndex::Entry& entry = index.entry(i);
            RN50_REQUIRE(entry.offset >= 0 && entry.bytes >= 0 && entry.offset <= all.size - entry.bytes, index.key(i),
                         " lies outside of the file");
        }
    } catch (const Error& error) {
        if (error.code() != Exit::data) throw;
    }
    return 0;
}
