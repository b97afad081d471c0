#include "backend/cpu/tiles.h"

#include <algorithm>

namespace rn50::cpu {

namespace {

const char* row_at(const void* data, DType dtype, int64_t row, int64_t channels) {
    return static_cast<const char*>(data) + row * channels * size_of(dtype);
}
char* row_at(void* data, DType dtype, int64_t row, int64_t channels) {
    return static_cast<char*>(data) + row * channels * size_of(dtype);
}

const float* floats(const Tensor& tensor) {
    return tensor ? tensor.as<float>() : nullptr;
}

}  // namespace

void apply_pending(const Activation& src, const void* src_data, void* dst, DType dst_dtype, int64_t rows,
                   int64_t channels) {
    const DType dtype = src.raw.dtype;
    for_tiles(rows, channels, [&](int64_t, int64_t first, int64_t n) {
        kernels().apply(row_at(src_data, dtype, first, channels), dtype, row_at(dst, dst_dtype, first, channels),
                        dst_dtype, n, channels, floats(src.norm.scale), floats(src.norm.shift), src.relu);
    });
}

int64_t StatsGatherer::bytes(int64_t max_rows, int64_t channels) {
    Carver carver;
    StatsGatherer(carver, max_rows, channels);
    return carver.used();
}

StatsGatherer::StatsGatherer(Carver& carver, int64_t max_rows, int64_t channels)
    : channels_(channels),
      tiles_(carver.take<float>(tile_count(max_rows, channels) * 3 * channels * 4)),
      mean_(carver.take<double>(channels * 8)),
      m2_(carver.take<double>(channels * 8)) {
    if (!tiles_) return;
    std::fill(mean_, mean_ + channels, 0.0);
    std::fill(m2_, m2_ + channels, 0.0);
}

void StatsGatherer::add(const void* data, DType dtype, int64_t rows) {
    for_tiles(rows, channels_, [&](int64_t tile, int64_t first, int64_t n) {
        kernels().stats(row_at(data, dtype, first, channels_), dtype, n, channels_, tiles_ + tile * 3 * channels_);
    });
    const int64_t step = tile_rows(channels_);
    for (int64_t first = 0; first < rows; first += step) {
        const float* tile = tiles_ + first / step * 3 * channels_;
        const double n = static_cast<double>(std::min(step, rows - first));
        const double before = static_cast<double>(count_), share = n / (before + n), weight = before * share;
        for (int64_t c = 0; c < channels_; ++c) {
            const double delta = static_cast<double>(tile[c]) + tile[channels_ + c] - mean_[c];
            mean_[c] += delta * share;
            m2_[c] += tile[2 * channels_ + c] + delta * delta * weight;
        }
        count_ += std::min(step, rows - first);
    }
}

void StatsGatherer::finish(const Tensor& stats) const {
    float* out = stats.as<float>();
    for (int64_t c = 0; c < channels_; ++c) {
        out[c] = static_cast<float>(mean_[c]);
        out[channels_ + c] = static_cast<float>(m2_[c]);
    }
}

int64_t DiffSrcGatherer::bytes(int64_t max_rows, int64_t channels) {
    Carver carver;
    DiffSrcGatherer(carver, max_rows, channels, nullptr);
    return carver.used();
}

DiffSrcGatherer::DiffSrcGatherer(Carver& carver, int64_t max_rows, int64_t channels, const DiffSrc* target)
    : target_(target),
      channels_(channels),
      tiles_(carver.take<float>(tile_count(max_rows, channels) * 4 * channels * 4)),
      totals_(carver.take<double>(4 * channels * 8)) {
    if (totals_) std::fill(totals_, totals_ + 4 * channels, 0.0);
}

void DiffSrcGatherer::add(const void* g, int64_t g_stride, int64_t first_row, int64_t rows, Write write) {
    const DType dtype = target_->diff.dtype;
    const int norm_count = !target_->norms[0] ? 0 : !target_->norms[1] ? 1 : 2;
    const bool clips = target_->at.raw && target_->at.relu;
    for_tiles(rows, channels_, [&](int64_t tile, int64_t first, int64_t n) {
        const int64_t row = first_row + first;
        DiffTile t;
        t.g = static_cast<const char*>(g) + first * g_stride * size_of(dtype);
        t.g_stride = g_stride;
        t.diff = row_at(target_->diff.data, dtype, row, channels_);
        t.add = write == Write::add;
        if (clips) {
            t.at = row_at(static_cast<const void*>(target_->at.raw.data), dtype, row, channels_);
            t.scale = floats(target_->at.norm.scale);
            t.shift = floats(target_->at.norm.shift);
        }
        for (int k = 0; k < norm_count; ++k) {
            float* out = tiles_ + (tile * 4 + k * 2) * channels_;
            const NormSums& norm = target_->norms[k];
            t.norms[k] = {row_at(static_cast<const void*>(norm.raw.data), dtype, row, channels_), floats(norm.mean),
                          out, out + channels_};
        }
        t.norm_count = norm_count;
        t.rows = n;
        t.channels = channels_;
        kernels().diff_src(t, dtype);
    });
    const int64_t tiles = tile_count(rows, channels_);
    for (int64_t tile = 0; tile < tiles; ++tile)
        for (int64_t i = 0; i < norm_count * 2 * channels_; ++i)
            totals_[i] += tiles_[tile * 4 * channels_ + i];
}

void DiffSrcGatherer::finish() const {
    for (int k = 0; k < 2; ++k) {
        const NormSums& norm = target_->norms[k];
        if (!norm) continue;
        float* sums = norm.sums.as<float>();
        const float* inv_std = norm.inv_std.as<float>();
        const double* total = totals_ + k * 2 * channels_;
        for (int64_t c = 0; c < channels_; ++c) {
            sums[c] = static_cast<float>(total[c]);
            sums[channels_ + c] = static_cast<float>(total[channels_ + c] * inv_std[c]);
        }
    }
}

}  // namespace rn50::cpu
