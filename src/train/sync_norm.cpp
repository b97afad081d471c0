#include "train/sync_norm.h"

namespace rn50 {

void SyncNorm::merge_statistics(Context& ctx, const Tensor& stats, int64_t count) {
    const Scratch parts(ctx.arena, DType::f32, {comm_.size(), 2, stats.shape[1]});
    if (!ctx.dry) comm_.gather(stats, parts.tensor());
    backend_.merge_statistics(ctx, parts.tensor(), count, stats);
}

void SyncNorm::sum(Context& ctx, const Tensor& sums) {
    const Scratch parts(ctx.arena, DType::f32, {comm_.size(), 2, sums.shape[1]});
    if (!ctx.dry) comm_.gather(sums, parts.tensor());
    backend_.sum_parts(ctx, parts.tensor(), sums);
}

}  // namespace rn50
