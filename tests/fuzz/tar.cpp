// A tar of WebDataset: headers, long names, pax records, labels; all that the index names lies in the file.
#include "pipeline/tar.h"

#include "shard.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    rn50::fuzz::try_to_index(rn50::index_tar, {data, size});
    return 0;
}
