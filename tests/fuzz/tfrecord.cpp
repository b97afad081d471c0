// TFRecord: the frames as they come, then the bytes as the data of a frame that is right, so that checksums do not
// keep the fuzzer out of the tf.train.Example.
#include "pipeline/tfrecord.h"

#include <string>

#include "shard.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace rn50;
    fuzz::try_to_index(index_tfrecord, {data, size});
    // Of a whole record nothing may be thrown: what it holds is left out by name.
    const std::string record = tfrecord_of(std::string(reinterpret_cast<const char*>(data), size));
    fuzz::index_all(index_tfrecord, {reinterpret_cast<const uint8_t*>(record.data()), record.size()});
    return 0;
}
