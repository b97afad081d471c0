// How a {rows, C} matrix is laid over blocks: a block has `lanes` threads along the channels, each with one pack of
// them, and row_threads along the rows; it walks over rows_per_tile rows. A thread meets the same channels in each of
// its rows, so what belongs to a channel is read once. Partial sums are one row a tile. All of it depends on the shape
// alone: the same call gives the same bits on every GPU.
#pragma once

#include <algorithm>

#include "base/math.h"
#include "portable.h"

namespace rn50::cuda {

constexpr int block_threads = 256;

/// Blocks for one thread an element, `most` at most: then threads walk in steps of the grid.
inline dim3 grid_of(int64_t threads, int64_t most = 0x7FFFFFFF) {
    return dim3(static_cast<unsigned>(std::min(ceil_div(threads, block_threads), most)));
}

struct Tiling {
    int lanes, row_threads;
    int64_t rows_per_tile, tiles, channel_blocks;

    dim3 grid() const { return dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(channel_blocks)); }
    dim3 block() const { return dim3(static_cast<unsigned>(lanes), static_cast<unsigned>(row_threads)); }
};

/// `width`: channels of a pack. The block has 256 threads; a thread has 8 rows at least and a multiple of `fetched`,
/// where there are enough. At most `most` tiles.
inline Tiling tile(int64_t rows, int64_t channels, int width, int64_t fetched, int64_t most) {
    const int64_t packs = ceil_div(channels, width);
    Tiling t;
    t.lanes = 1;
    while (t.lanes < packs && t.lanes < 32)
        t.lanes *= 2;
    t.row_threads = block_threads / t.lanes;
    t.channel_blocks = ceil_div(packs, t.lanes);
    const int64_t least = int64_t{8} * t.row_threads;
    t.rows_per_tile = std::max(least, align_up(ceil_div(rows, most), fetched * t.row_threads));
    t.tiles = ceil_div(rows, t.rows_per_tile);
    return t;
}

/// For a pass that sums nothing: many tiles, so that no multiprocessor waits long for the last one.
inline Tiling tile(int64_t rows, int64_t channels, int width) {
    return tile(rows, channels, width, 4, 1024);
}

constexpr int64_t max_sum_tiles = 512;

/// For a pass that gathers sums: each tile ends with the sums of its threads, which are written and merged, so there
/// are few more blocks than a large GPU has at once, which has two to four on each of 128 multiprocessors.
inline Tiling sum_tile(int64_t rows, int64_t channels, int width) {
    const int64_t channel_blocks = tile(1, channels, width).channel_blocks;
    return tile(rows, channels, width, 2, std::max(max_sum_tiles / channel_blocks, int64_t{1}));
}

/// At most this many tiles have sums of these rows or fewer, whatever the width of packs.
inline int64_t tile_bound(int64_t rows, int64_t channels) {
    int64_t bound = 0;
    for (const int width : {1, 4, 8}) {
        const Tiling t = sum_tile(1, channels, width);
        bound = std::max(bound, std::min(ceil_div(rows, t.rows_per_tile), max_sum_tiles / t.channel_blocks));
    }
    return std::max(bound, int64_t{1});
}

/// The rows of one thread: row, row + step, ... below end.
struct Steps {
    int64_t row, end, step;
};

/// A thread's part of a tile: its first channel (n of them) and its rows.
template <int n>
struct Walk : Steps {
    int64_t channel;
    __device__ Walk(int64_t rows, int64_t rows_per_tile)
        : Steps{int64_t{blockIdx.x} * rows_per_tile + threadIdx.y, (int64_t{blockIdx.x} + 1) * rows_per_tile,
                blockDim.y},
          channel((int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * n) {
        if (end > rows) end = rows;
    }
};

/// Calls use(row, fetch(row)) for each row of the walk, in order. `together` rows are fetched before the first is used:
/// a thread that waits for memory at every row would leave most of the bandwidth idle, and a loop whose length the
/// compiler does not know it does not reorder so. fetch() should hand on what it read as it is: floats of 16-bit
/// elements would take twice the registers. A kernel must say in its launch bounds how many blocks it wants on a
/// multiprocessor, or ptxas saves registers that nobody needs by moving each fetch down to its use.
template <int together = 4, class Fetch, class Use>
__device__ void for_rows(const Steps& walk, const Fetch& fetch, const Use& use) {
    int64_t row = walk.row;
    if constexpr (together > 1) {
#pragma unroll 1
        for (; row + (together - 1) * walk.step < walk.end; row += together * walk.step) {
            decltype(fetch(row)) fetched[together];
#pragma unroll
            for (int k = 0; k < together; ++k)
                fetched[k] = fetch(row + k * walk.step);
#pragma unroll
            for (int k = 0; k < together; ++k)
                use(row + k * walk.step, fetched[k]);
        }
    }
#pragma unroll 1
    for (; row < walk.end; row += walk.step)
        use(row, fetch(row));
}

}  // namespace rn50::cuda
