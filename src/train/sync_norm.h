// Batch-norm statistics over all ranks, by way of host memory.
#pragma once

#include <vector>

#include "comm/comm.h"
#include "model/norm_exchange.h"

namespace rn50 {

/// {ranks, 2, C} of mean and M2 over `count` elements each to {2, C} over all of them, merged in the order of ranks
/// (Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979).
void merge_statistics(const float* parts, int64_t ranks, int64_t channels, int64_t count, float* merged);

class SyncNorm : public NormExchange {
  public:
    /// Both must outlive it.
    SyncNorm(Backend& backend, Communicator& comm) : backend_(backend), comm_(comm) {}
    int64_t ranks() const override { return comm_.size(); }
    void merge_statistics(Context& ctx, const Tensor& stats, int64_t count) override;
    void sum(Context& ctx, const Tensor& sums) override;

  private:
    void gather(Context& ctx, const Tensor& mine);

    Backend& backend_;
    Communicator& comm_;
    std::vector<float> mine_, all_;  ///< as large as the largest norm needs, after the first step
};

}  // namespace rn50
