// How the batch norms of a net see the other ranks' pictures (--sync-bn).
#pragma once

#include <cstdint>

#include "backend/backend.h"

namespace rn50 {

/// All ranks call these in the same order. A dry run takes and returns the memory that they need.
class NormExchange {
  public:
    virtual ~NormExchange() = default;
    virtual int64_t ranks() const = 0;
    /// stats {2, C} f32 = mean and M2 over `count` elements a channel, of each rank the same; becomes those over all
    /// ranks' elements, the same bits on all of them.
    virtual void merge_statistics(Context& ctx, const Tensor& stats, int64_t count) = 0;
    /// sums {2, C} f32, in place: over all ranks, the same bits on all of them.
    virtual void sum(Context& ctx, const Tensor& sums) = 0;
};

}  // namespace rn50
