// Rows in tiles of a fixed size: the unit of parallel work and of partial sums. Tiles depend on shapes alone, and partial
// sums are merged in their order in double, so the same call gives the same bits.
#pragma once

#include <omp.h>

#include <vector>

#include "backend/carver.h"
#include "backend/cpu/kernels.h"
#include "backend/types.h"
#include "base/math.h"

namespace rn50::cpu {

/// About 128 KiB of f32 a tile: it stays in a core's second-level cache together with what is computed from it.
inline int64_t tile_rows(int64_t channels) {
    const int64_t rows = 32768 / channels;
    return rows < 16 ? 16 : rows > 512 ? 512 : rows;
}
inline int64_t tile_count(int64_t rows, int64_t channels) { return ceil_div(rows, tile_rows(channels)); }

/// Calls body(tile, first_row, rows) for every tile of `rows` rows, over all threads.
template <class Body>
void for_tiles(int64_t rows, int64_t channels, const Body& body) {
    const int64_t step = tile_rows(channels), tiles = ceil_div(rows, step);
#pragma omp parallel for schedule(static) if (tiles > 1)
    for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t first = tile * step;
        body(tile, first, rows - first < step ? rows - first : step);
    }
}

/// dst = pending value of src, over all threads; rows of src's last dimension.
void apply_pending(const Activation& src, const void* src_data, void* dst, DType dst_dtype, int64_t rows,
                   int64_t channels);

/// Mean and M2 by channel, gathered tile by tile (Chan, Golub & LeVeque, 1979).
class StatsGatherer {
  public:
    static int64_t bytes(int64_t max_rows, int64_t channels);
    StatsGatherer(Carver& carver, int64_t max_rows, int64_t channels);
    void add(const void* data, DType dtype, int64_t rows);
    void finish(const Tensor& stats) const;

  private:
    int64_t channels_, count_ = 0;
    float* tiles_;     // {tiles, 3, C}
    double *mean_, *m2_;  // {C}
};

/// Runs the epilogue of a DiffSrc over a part of its rows, gathering its norms' sums.
class DiffSrcGatherer {
  public:
    static int64_t bytes(int64_t max_rows, int64_t channels);
    /// `target` may be null: nothing is asked for.
    DiffSrcGatherer(Carver& carver, int64_t max_rows, int64_t channels, const DiffSrc* target);
    /// g: `rows` rows of gradients for rows [first_row, first_row + rows) of the target, or, with g_stride 0, one row.
    void add(const void* g, int64_t g_stride, int64_t first_row, int64_t rows, Write write);
    /// Whether add() would only copy.
    bool trivial() const { return !target_->at.relu && !target_->norms[0]; }
    void finish() const;

  private:
    const DiffSrc* target_;
    int64_t channels_;
    float* tiles_;    // {tiles, norm, 2, C}
    double* totals_;  // {norm, 2, C}
};

}  // namespace rn50::cpu
