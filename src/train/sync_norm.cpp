#include "train/sync_norm.h"

#include <algorithm>

namespace rn50 {

void merge_statistics(const float* parts, int64_t ranks, int64_t channels, int64_t count, float* merged) {
    for (int64_t c = 0; c < channels; ++c) {
        double mean = static_cast<double>(parts[c]), m2 = static_cast<double>(parts[channels + c]);
        const auto n = static_cast<double>(count);
        for (int64_t rank = 1; rank < ranks; ++rank) {
            const float* const part = parts + rank * 2 * channels;
            const double before = n * static_cast<double>(rank), after = before + n;
            const double delta = static_cast<double>(part[c]) - mean;
            mean += delta * n / after;
            m2 += static_cast<double>(part[channels + c]) + delta * delta * before * n / after;
        }
        merged[c] = static_cast<float>(mean);
        merged[channels + c] = static_cast<float>(m2);
    }
}

void SyncNorm::gather(Context& ctx, const Tensor& mine) {
    const auto count = static_cast<size_t>(mine.count());
    mine_.resize(std::max(mine_.size(), count));
    all_.resize(std::max(all_.size(), count * static_cast<size_t>(comm_.size())));
    backend_.copy_out(ctx, mine, mine_.data());
    comm_.gather({mine_.data(), DType::f32, {mine.count()}}, {all_.data(), DType::f32, {comm_.size(), mine.count()}});
}

void SyncNorm::merge_statistics(Context& ctx, const Tensor& stats, int64_t count) {
    gather(ctx, stats);
    rn50::merge_statistics(all_.data(), comm_.size(), stats.shape[1], count, mine_.data());
    backend_.copy_in(ctx, mine_.data(), stats);
    backend_.synchronize(ctx);  // mine_ is used again by the next norm
}

void SyncNorm::sum(Context& ctx, const Tensor& sums) {
    gather(ctx, sums);
    for (int64_t i = 0; i < sums.count(); ++i) {
        double total = 0;
        for (int64_t rank = 0; rank < comm_.size(); ++rank)
            total += static_cast<double>(all_[static_cast<size_t>(rank * sums.count() + i)]);
        mine_[static_cast<size_t>(i)] = static_cast<float>(total);
    }
    backend_.copy_in(ctx, mine_.data(), sums);
    backend_.synchronize(ctx);
}

}  // namespace rn50
