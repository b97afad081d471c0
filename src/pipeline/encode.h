// From RGB to the bytes of a JPEG or PNG file.
#pragma once

#include <cstdint>
#include <vector>

#include "pipeline/decode.h"

namespace rn50 {

/// Encodes as baseline JPEG, 4:2:0, or of one component where all pixels are grey, at `quality` 1 to 100 (libjpeg's
/// scale, as Pillow's), with restart markers. Same picture, same bytes.
/// Throws Error(Exit::data) for a side above 65500 pixels.
void encode_jpeg(const Picture& picture, int quality, std::vector<uint8_t>& bytes);

/// Encodes as PNG of 8 bits a channel, grey where all pixels are. Same picture, same bytes.
/// Throws Error(Exit::data) when there is not enough memory.
void encode_png(const Picture& picture, std::vector<uint8_t>& bytes);

/// Writes to `marked` the JPEG `bytes`, which decodes, as baseline JPEG with restart markers between tiles of 64 pixels
/// or somewhat more, so that a crop is decoded without its surroundings: the same coefficients, so the same pixels, and
/// the same EXIF and colour profile. The entropy coding is made anew, with tables of its own. Throws Error(Exit::data)
/// when libjpeg cannot.
void add_restart_markers(const std::vector<uint8_t>& bytes, std::vector<uint8_t>& marked);

/// The picture made smaller so that its longer side is at most `longest`, or its shorter one `shortest` (0: no bound),
/// with an antialiased filter. False: it is small enough already, and `smaller` is not touched.
bool shrink(const Picture& picture, int64_t longest, int64_t shortest, Picture& smaller);

}  // namespace rn50
