// Convolutions by cuDNN: which of its plans may be used, which is fastest on this GPU, and running them.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "conv_graph.h"
#include "plan_cache.h"

namespace rn50::cuda {

struct PlannerOptions {
    int64_t workspace_limit = int64_t{1} << 30;  ///< bytes; no plan that needs more
    int candidates = 16;                         ///< plans that are timed for each shape
    bool autotune = true;                        ///< false: the first that the heuristics propose
    std::string cache_folder;                    ///< empty: choices are not kept

    /// From RN50_AUTOTUNE and RN50_PLAN_CACHE.
    static PlannerOptions from_environment();
};

/// Whether an engine may compute this: the same bits at each run, sums in f32, no factors rounded beyond their own
/// dtype (f32 to tf32 only where asked for), and no algorithm that moves rounding errors between pixels.
bool allowed(const ConvShape& shape, const std::vector<cudnnBackendNumericalNote_t>& numerical,
             const std::vector<cudnnBackendBehaviorNote_t>& behavior);

/// Finds plans for one device and stream.
class ConvPlanner {
  public:
    ConvPlanner(cudaStream_t stream, const PlannerOptions& options);

    /// The plan for the whole batch of `shape`: the kept choice, or the one taken for another batch in this process (so
    /// that searching for the largest batch which fits measures once), or the fastest of those measured now. Null when
    /// cuDNN has none that is allowed.
    std::unique_ptr<ConvPlan> best(const ConvShape& shape, ConvProducts::Phase phase, DType diff_weights);
    /// Whether this cuDNN has ever refused to give f32 weight gradients of 16-bit factors.
    bool narrow_gradients(DType dtype) const { return narrow_.count(dtype) != 0; }
    void set_narrow_gradients(DType dtype) { narrow_.insert(dtype); }
    /// A plan for a smaller batch in the workspace that the whole batch's plan has: that plan's engine where it serves,
    /// else the heuristics' first. Nothing is measured. Null when there is none.
    std::unique_ptr<ConvPlan> smaller(const ConvShape& shape, const ConvPlan& whole, int64_t workspace_bytes);
    /// Writes new choices to disk.
    void keep() { cache_.flush(); }
    const CudnnHandle& handle() const { return handle_; }

  private:
    std::vector<std::unique_ptr<ConvPlan>> candidates(const ConvShape& shape,
                                                      const std::shared_ptr<const ConvGraph>& graph, size_t most,
                                                      int64_t workspace_limit) const;
    std::unique_ptr<ConvPlan> chosen(const ConvShape& shape, ConvProducts::Phase phase,
                                     const std::shared_ptr<const ConvGraph>& graph, DType diff_weights,
                                     const std::string& key);
    std::unique_ptr<ConvPlan> restored(const ConvShape& shape, const std::shared_ptr<const ConvGraph>& graph,
                                       const EngineChoice& choice, int64_t workspace_limit) const;

    cudaStream_t stream_;
    PlannerOptions options_;
    CudnnHandle handle_;
    PlanCache cache_;
    std::map<std::string, EngineChoice> taken_;  ///< by key without the batch
    std::set<DType> narrow_;
    bool said_ = false;
};

/// Throws Error(Exit::device) when cuDNN has no allowed plan for a phase that will be needed.
std::unique_ptr<ConvProducts> make_conv_products(std::shared_ptr<ConvPlanner> planner, const ConvShape& shape);

}  // namespace rn50::cuda
