#include "pipeline/restarts.h"

#include <cstring>

#include "base/math.h"

namespace rn50::formats {

namespace {

constexpr uint8_t rst0 = 0xD0, eoi = 0xD9, sof0 = 0xC0, sof1 = 0xC1;

/// The units of a picture, by tiles.
struct Grid {
    int64_t tile_width = 0, tile_height = 0;  ///< pixels
    int64_t columns = 0, rows = 0;            ///< of tiles

    /// False: a tile is no rectangle.
    bool make(const RestartLayout& layout) {
        const int64_t across = ceil_div(layout.width, layout.mcu_width), n = layout.interval;
        const int64_t down = ceil_div(layout.height, layout.mcu_height);
        if (n <= 0 || (across % n != 0 && n % across != 0)) return false;
        const int64_t units_high = n < across ? 1 : n / across;
        tile_width = (n < across ? n : across) * layout.mcu_width;
        tile_height = units_high * layout.mcu_height;
        columns = n < across ? across / n : 1;
        rows = ceil_div(down, units_high);
        return true;
    }
};

/// Where each of `count` tiles begins, and where the last one's end marker ends. False: there are not so many, or
/// their markers are out of order.
bool find_tiles(Bytes jpeg, size_t scan_begin, int64_t count, std::vector<size_t>& begins) {
    begins.clear();
    begins.push_back(scan_begin);
    const uint8_t* const end = jpeg.data + jpeg.size;
    const uint8_t* at = jpeg.data + scan_begin;
    for (int64_t found = 0; found < count;) {
        at = static_cast<const uint8_t*>(std::memchr(at, 0xFF, static_cast<size_t>(end - at)));
        if (at == nullptr || end - at < 2) return false;
        const uint8_t marker = at[1];
        if (marker == 0xFF) {  // a fill byte
            ++at;
            continue;
        }
        at += 2;
        if (marker == 0) continue;  // a byte of data that happens to be ff
        if (marker != (found + 1 == count ? eoi : rst0 + found % 8)) return false;
        begins.push_back(static_cast<size_t>(at - jpeg.data));
        ++found;
    }
    return true;
}

/// Offset of the frame header's marker, whose height and width follow at 5 and 7; 0: there is none. The segments before
/// it have been read by libjpeg.
size_t find_frame(Bytes jpeg, size_t scan_begin) {
    size_t at = 2;
    while (at + 9 <= scan_begin && jpeg.data[at] == 0xFF) {
        const uint8_t marker = jpeg.data[at + 1];
        if (marker == sof0 || marker == sof1) return at;
        at += marker == 0xFF ? 1 : size_t{2} + (size_t{jpeg.data[at + 2]} << 8 | jpeg.data[at + 3]);
    }
    return 0;
}

void put_u16(uint8_t* to, int64_t value) {
    to[0] = static_cast<uint8_t>(value >> 8);
    to[1] = static_cast<uint8_t>(value);
}

}  // namespace

Cut cut_tiles(Bytes jpeg, const RestartLayout& layout, PixelRange& need, TilePart& part) {
    Grid grid;
    if (!grid.make(layout)) return Cut::none;
    const int64_t left = need.x0 / grid.tile_width, right = ceil_div(need.x1, grid.tile_width);
    const int64_t top = need.y0 / grid.tile_height, bottom = ceil_div(need.y1, grid.tile_height);
    const int64_t kept = (right - left) * (bottom - top), all = grid.columns * grid.rows;
    if (kept == all) return Cut::none;
    const size_t frame = find_frame(jpeg, layout.scan_begin);
    // All are looked for, though fewer are needed: a marker that was lost would shift every tile behind it.
    if (frame == 0 || !find_tiles(jpeg, layout.scan_begin, all, part.begins)) return Cut::damaged;

    need = {left * grid.tile_width, top * grid.tile_height, right * grid.tile_width, bottom * grid.tile_height};
    if (need.x1 > layout.width) need.x1 = layout.width;
    if (need.y1 > layout.height) need.y1 = layout.height;
    std::vector<uint8_t>& out = part.jpeg;
    out.assign(jpeg.data, jpeg.data + layout.scan_begin);
    put_u16(&out[frame + 5], need.y1 - need.y0);
    put_u16(&out[frame + 7], need.x1 - need.x0);
    int64_t written = 0;
    for (int64_t y = top; y < bottom; ++y) {
        const size_t* const row = &part.begins[static_cast<size_t>(y * grid.columns)];
        const auto copied = static_cast<int64_t>(out.size() - row[left]);  // from an offset in jpeg to one in out
        out.insert(out.end(), jpeg.data + row[left], jpeg.data + row[right]);
        for (int64_t x = left; x < right; ++x) {
            uint8_t& marker = out[static_cast<size_t>(static_cast<int64_t>(row[x + 1]) + copied - 1)];
            marker = ++written == kept ? eoi : static_cast<uint8_t>(rst0 + (written - 1) % 8);
        }
    }
    return Cut::done;
}

int64_t packed_interval(int64_t width, int64_t mcu_width) {
    const int64_t across = ceil_div(width, mcu_width);
    for (int64_t n = ceil_div(64, mcu_width); n < across; ++n)
        if (across % n == 0) return n;
    return across;
}

}  // namespace rn50::formats
