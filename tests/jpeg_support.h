// JPEGs that tests write through libjpeg, in every way that changes how their parts are found.
#pragma once

#include "pipeline/augment.h"
#include "pipeline_support.h"

namespace rn50::test {

/// Soft shapes in all colours, some fine texture, and a bright corner: a shift by one pixel shows.
Picture soft_picture(int64_t height, int64_t width);

/// How a JPEG is written.
struct Writing {
    const char* name;
    int horizontal = 2, vertical = 2;  ///< chroma sampling
    bool gray = false, progressive = false;
    int restart_rows = 0, orientation = 1;
    int interval = 0;       ///< units between restart markers, where restart_rows is 0
    bool dc_alone = false;  ///< progressive, and all but the means of blocks left out
    int quality = 90;
    bool optimized = false;  ///< Huffman tables of its own
};

std::vector<uint8_t> encode(const Picture& picture, const Writing& way);

/// The crop of `picture` (whole or what was decoded for it) at that size.
std::vector<uint8_t> cropped(const Picture& picture, const Box& box, int64_t size);

}  // namespace rn50::test
