// The ranks' gradients become their mean while the backward pass still makes them.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/comm.h"
#include "model/net.h"

namespace rn50 {

/// Where the gradient buffer is cut into buckets: descending, from its end to 0, each at the begin of a parameter. The
/// backward pass goes that way, and a bucket is whole once it holds `elements`. The first one is closed at a 16th of
/// that, so that the ranks begin to talk early; the last one holds at most as much, because nothing is left to compute
/// while it is under way. elements 0: one bucket, of everything.
std::vector<int64_t> bucket_bounds(const ParameterTable& table, int64_t elements);

class GradientAveraging {
  public:
    /// Buckets of about `bucket_bytes` go over the wire as `wire`, f32, f16 or bf16, where each rank's gradients are
    /// divided by the number of ranks before they are added: infinities and NaN of one rank reach all, so that all skip
    /// the step. All the others must outlive it; `net` has its memory already. In a dry run nothing is sent.
    GradientAveraging(Backend& backend, Context& ctx, Communicator& comm, const Net& net, int64_t bucket_bytes,
                      DType wire);
    ~GradientAveraging();
    GradientAveraging(const GradientAveraging&) = delete;
    GradientAveraging& operator=(const GradientAveraging&) = delete;

    /// Before the backward pass, after which finish() comes: nothing of the step has begun, whatever became of the one
    /// before.
    void start() { begun_ = 0; }
    /// For Net::backward(): begins to average the buckets that are whole.
    void ready(int64_t from);
    /// After the backward pass: what the backend does from now on finds all gradients averaged.
    void finish();

  private:
    Backend& backend_;
    Context& ctx_;
    Communicator& comm_;
    const Net& net_;
    Tensor wire_;  ///< of the gradients' shape; absent where they travel as they are
    std::vector<int64_t> bounds_;
    size_t begun_ = 0;  ///< buckets of this step
};

}  // namespace rn50
