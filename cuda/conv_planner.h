// Which of cuDNN's plans a convolution may use, and which of these is fastest on this GPU.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "conv_graph.h"
#include "conv_timing.h"
#include "gemm.h"
#include "plan_cache.h"

namespace rn50::cuda {

struct PlannerOptions {
    int64_t workspace_limit = int64_t{1} << 30;  ///< bytes; no plan that needs more
    int candidates = 16;                         ///< plans that are timed for each shape
    bool autotune = true;                        ///< false: the first that the heuristics propose
    double budget_seconds = 120;                 ///< of this process for timing; then as if autotune were false
    std::string cache_folder;                    ///< empty: choices are not kept
    double (*clock)() = steady_seconds;          ///< by which the budget is reckoned

    /// From RN50_AUTOTUNE, RN50_AUTOTUNE_SECONDS and RN50_PLAN_CACHE. Throws Error(Exit::usage) for seconds that are
    /// none.
    static PlannerOptions from_environment();
    /// Seconds of a clock that never goes back.
    static double steady_seconds();
};

/// Whether an engine may compute this: the same bits at each run, sums in f32, no factors rounded beyond their own
/// dtype (f32 to tf32 only where asked for), and no algorithm that moves rounding errors between pixels.
bool allowed(const ConvShape& shape, const std::vector<cudnnBackendNumericalNote_t>& numerical,
             const std::vector<cudnnBackendBehaviorNote_t>& behavior);

/// "forward", "backward data", "backward weights"
const char* name_of(ConvProducts::Phase phase);

/// The weights' gradient of a convolution that is pointwise (1x1, stride 1, no padding): dw {K, C} f32 = dy^T x, over
/// all pixels of all pictures.
GemmShape weights_product(const ConvShape& shape);

/// Finds plans for one device and stream.
class ConvPlanner {
  public:
    ConvPlanner(cudaStream_t stream, const PlannerOptions& options);

    ~ConvPlanner();
    ConvPlanner(const ConvPlanner&) = delete;
    ConvPlanner& operator=(const ConvPlanner&) = delete;

    /// The plan for the whole batch of `shape`: the kept choice, or the one taken for another batch in this process (so
    /// that searching for the largest batch which fits measures once), or the fastest of those measured now, or, when
    /// the budget for measuring is spent, the heuristics' first, which is kept like a measured one: another start must
    /// not take another plan. Null when cuDNN has none that is allowed. `record`: milliseconds of another way to compute
    /// the same; plans that are far slower are not measured closely.
    std::unique_ptr<ConvPlan> best(const ConvShape& shape, ConvProducts::Phase phase, DType diff_weights,
                                   float record = cannot_run);
    /// Milliseconds of weights_product(): as kept, or measured now; 0 when there is no time or memory to measure it (or
    /// was none at an earlier start). Nothing when cuBLASLt has no algorithm for it.
    std::optional<float> product_milliseconds(const ConvShape& shape, float record);
    /// What weights_product() may take of workspace.
    static constexpr int64_t product_workspace = int64_t{32} << 20;
    Gemm& gemm();
    /// Whether this cuDNN has ever refused to give f32 weight gradients of 16-bit factors.
    bool narrow_gradients(DType dtype) const { return narrow_.count(dtype) != 0; }
    void set_narrow_gradients(DType dtype) { narrow_.insert(dtype); }
    /// A plan for a smaller batch in the workspace that the whole batch's plan has: that plan's engine where it serves,
    /// else the heuristics' first. Nothing is measured. Null when there is none.
    std::unique_ptr<ConvPlan> smaller(const ConvShape& shape, const ConvPlan& whole, int64_t workspace_bytes);
    /// Writes new choices to disk: before the first convolution runs on them, and at the end. While a net's many
    /// convolutions are prepared, only now and then.
    void keep() { cache_.flush(); }
    void keep_now_and_then();
    const CudnnHandle& handle() const { return handle_; }

  private:
    std::vector<std::unique_ptr<ConvPlan>> candidates(const ConvShape& shape,
                                                      const std::shared_ptr<const ConvGraph>& graph, size_t most,
                                                      int64_t workspace_limit) const;
    std::unique_ptr<ConvPlan> chosen(const ConvShape& shape, ConvProducts::Phase phase,
                                     const std::shared_ptr<const ConvGraph>& graph, DType diff_weights,
                                     const std::string& key, float record);
    std::unique_ptr<ConvPlan> measured(const ConvShape& shape, ConvProducts::Phase phase,
                                       const std::shared_ptr<const ConvGraph>& graph, DType diff_weights,
                                       const std::string& key, float record);
    std::unique_ptr<ConvPlan> restored(const ConvShape& shape, const std::shared_ptr<const ConvGraph>& graph,
                                       const EngineChoice& choice, int64_t workspace_limit) const;

    /// What is left of the budget, in seconds.
    double budget_left() const { return options_.budget_seconds - spent_; }

    cudaStream_t stream_;
    PlannerOptions options_;
    CudnnHandle handle_;
    std::unique_ptr<Gemm> gemm_;
    PlanCache cache_;
    std::map<std::string, KeptPlan> taken_;  ///< by key without the batch
    std::set<DType> narrow_;
    double spent_ = 0;    ///< seconds, on measuring
    double kept_at_ = 0;  ///< by the clock
    bool said_ = false;
};

}  // namespace rn50::cuda
