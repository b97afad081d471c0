// TFRecord: the frames as they come, then the bytes as the data of a frame that is right, so that checksums do not
// keep the fuzzer out of the tf.train.Example.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/error.h"
#include "pipeline/tfrecord.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace rn50;
    const auto index_all = [](ByteView bytes) {
        const RandomBytes all = bytes_of(bytes);
        const ShardIndex index = index_tfrecord(all, "x");
        for (int64_t i = 0; i < index.size(); ++i) {
            const ShardIndex::Entry& entry = index.entry(i);
            RN50_REQUIRE(entry.offset >= 0 && entry.bytes >= 0 && entry.offset <= all.size - entry.bytes, index.key(i),
                         " lies outside of the file");
        }
    };
    try {
        index_all({data, size});
    } catch (const Error& error) {
        if (error.code() != Exit::data) throw;
    }
    // Of a whole record nothing may be thrown: what it holds is left out by name.
    const std::string record = tfrecord_of(std::string(reinterpret_cast<const char*>(data), size));
    index_all({reinterpret_cast<const uint8_t*>(record.data()), record.size()});
    return 0;
}
