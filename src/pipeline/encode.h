// From RGB to the bytes of a JPEG file.
#pragma once

#include <cstdint>
#include <vector>

#include "pipeline/decode.h"

namespace rn50 {

/// Encodes as baseline JPEG, 4:2:0, at `quality` 1 to 100 (libjpeg's scale, as Pillow's). Same picture, same bytes.
/// Throws Error(Exit::data) for a side above 65500 pixels.
void encode_jpeg(const Picture& picture, int quality, std::vector<uint8_t>& bytes);

/// The picture made smaller so that its longer side is at most `longest`, or its shorter one `shortest` (0: no bound),
/// with an antialiased filter. False: it is small enough already, and `smaller` is not touched.
bool shrink(const Picture& picture, int64_t longest, int64_t shortest, Picture& smaller);

}  // namespace rn50
