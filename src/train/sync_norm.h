// Batch-norm statistics over all ranks.
#pragma once

#include "comm/comm.h"
#include "model/norm_exchange.h"

namespace rn50 {

/// Gathers and merges in the backend's own memory: on a GPU the host waits for nothing.
class SyncNorm : public NormExchange {
  public:
    /// Both must outlive it.
    SyncNorm(Backend& backend, Communicator& comm) : backend_(backend), comm_(comm) {}
    int64_t ranks() const override { return comm_.size(); }
    void merge_statistics(Context& ctx, const Tensor& stats, int64_t count) override;
    void sum(Context& ctx, const Tensor& sums) override;

  private:
    Backend& backend_;
    Communicator& comm_;
};

}  // namespace rn50
