// Restart markers: the entropy-coded data of a baseline JPEG begin anew behind each, so that what lies between two of
// them, a tile, can be decoded without what came before (ITU-T T.81, E.1.4, F.1.2.3).
#pragma once

#include <cstdint>
#include <vector>

#include "pipeline/formats.h"

namespace rn50::formats {

/// Pixels [x0, x1) by [y0, y1).
struct PixelRange {
    int64_t x0, y0, x1, y1;
};

/// A JPEG of one sequential scan.
struct RestartLayout {
    int64_t height, width;          ///< of the picture, in pixels
    int64_t mcu_height, mcu_width;  ///< of a minimum coded unit, in pixels
    int64_t interval;               ///< units between markers
    size_t scan_begin;              ///< offset of the first entropy-coded byte
};

/// A JPEG made of another's tiles.
struct TilePart {
    std::vector<uint8_t> jpeg;
    std::vector<size_t> begins;  ///< of all tiles in the other: kept for its memory
};

enum class Cut {
    none,     ///< no tile can be left out, or tiles are no rectangles
    done,     ///< some are left out
    damaged,  ///< the markers are not all there in their order
};

/// Writes to `part` a JPEG of no more than the tiles that hold the pixels of `need`, and to `need` which pixels of the
/// whole it shows; changes nothing unless the answer is Cut::done.
Cut cut_tiles(Bytes jpeg, const RestartLayout& layout, PixelRange& need, TilePart& part);

/// How many units, of `mcu_width` pixels, lie between restart markers when a picture of that width is packed: a divisor
/// of the units in a row, so that tiles are rectangles, and at least 64 pixels. Narrower ones cost more bytes (2.7% at
/// 64 pixels and quality 90) than they save.
int64_t packed_interval(int64_t width, int64_t mcu_width);

}  // namespace rn50::formats
