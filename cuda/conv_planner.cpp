#include "conv_planner.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "base/log.h"
#include "base/machine.h"
#include "conv_timing.h"

namespace rn50::cuda {

namespace {

using Phase = ConvProducts::Phase;

/// Everything about a problem that a choice depends on; the layer's name is not.
std::string key_of(const ConvShape& s, Phase phase, DType diff_weights, int64_t workspace_limit) {
    std::string key = cat(name_of(phase), " ", rn50::name_of(s.dtype), s.tf32 ? " tf32 " : " ", s.height, "x", s.width,
                          "x", s.in_channels, " to ", s.out_channels, " kernel ", s.kernel, " stride ", s.stride,
                          " pad ", s.pad, " within ", workspace_limit);
    if (phase == Phase::backward_weights) key += cat(" into ", rn50::name_of(diff_weights));
    return key;
}

/// What the choices on this machine depend on. A release of the driver brings compilers and clocks of its own; CUDA's
/// number, which many releases share, stands for it where it cannot be read.
std::string machine_name() {
    int device = 0, major = 0, minor = 0, driver = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
    check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cudaDeviceGetAttribute");
    check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
    const std::string release = nvidia_driver_release();
    return cat(properties.name, "-sm", major, minor,
               release.empty() ? cat("-cuda", cuda_version_text(driver)) : cat("-driver", release), "-cudnn",
               cudnn_version_text(cudnnGetVersion()));
}

std::unique_ptr<ConvPlan> first_of(std::vector<std::unique_ptr<ConvPlan>> plans) {
    return plans.empty() ? nullptr : std::move(plans.front());
}

/// The index of the fastest plan, which then knows its time, or plans.size() when none can run. The first that can is
/// measured; the others, as long as there is time. `record`: what they are up against from elsewhere.
size_t fastest(const std::vector<std::unique_ptr<ConvPlan>>& plans, const Problem& problem, const CudnnHandle& handle,
               cudaStream_t stream, const std::function<bool()>& time_left, float record) {
    problem.fill(stream);
    float least = cannot_run;
    for (const auto& plan : plans) {
        if (least != cannot_run && !time_left()) break;
        const auto run = [&] {
            return plan->try_run(handle, problem.image(), problem.weights(), problem.output(), problem.workspace()) ==
                   CUDNN_STATUS_SUCCESS;
        };
        const float time = time_of(run, stream, std::min(least, record));
        if (time != cannot_run) plan->set_milliseconds(time);
        least = std::min(least, time);
    }
    // Differences of this size are noise: then the smaller workspace is better, then the heuristics' order.
    constexpr float noise = 1.03f;
    size_t best = plans.size();
    for (size_t i = 0; i < plans.size(); ++i) {
        const float time = plans[i]->milliseconds();
        if (time > 0 && time <= least * noise &&
            (best == plans.size() || plans[i]->workspace_bytes() < plans[best]->workspace_bytes()))
            best = i;
    }
    return best;
}

}  // namespace

const char* name_of(ConvProducts::Phase phase) {
    switch (phase) {
        case Phase::forward:
            return "forward";
        case Phase::backward_data:
            return "backward data";
        case Phase::backward_weights:
            break;
    }
    return "backward weights";
}

PlannerOptions PlannerOptions::from_environment() {
    PlannerOptions options;
    const char* autotune = std::getenv("RN50_AUTOTUNE");
    options.autotune = autotune == nullptr || std::strcmp(autotune, "0") != 0;
    if (options.autotune) options.cache_folder = PlanCache::default_folder();
    if (const char* const seconds = std::getenv("RN50_AUTOTUNE_SECONDS"); seconds != nullptr && *seconds != '\0') {
        char* end = nullptr;
        options.budget_seconds = std::strtod(seconds, &end);
        if (*end != '\0' || !(options.budget_seconds >= 0))
            throw Error(Exit::usage, cat("RN50_AUTOTUNE_SECONDS=", seconds, " is no number of seconds"),
                        "set it to 120, say, or unset it; RN50_AUTOTUNE=0 times nothing at all");
    }
    return options;
}

double PlannerOptions::steady_seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

bool allowed(const ConvShape& shape, const std::vector<cudnnBackendNumericalNote_t>& numerical,
             const std::vector<cudnnBackendBehaviorNote_t>& behavior) {
    const bool strict = shape.dtype == DType::f32 && !shape.tf32;
    for (const cudnnBackendNumericalNote_t note : numerical) {
        switch (note) {
            case CUDNN_NUMERICAL_NOTE_TENSOR_CORE:
                // On f32 this means factors rounded to tf32.
                if (strict) return false;
                break;
            case CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS:          // to 16 bit, whatever came in
            case CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION:  // sums in 16 bit
            case CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC:
            case CUDNN_NUMERICAL_NOTE_FFT:
            case CUDNN_NUMERICAL_NOTE_WINOGRAD:
            case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4:
            case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6:
            case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13:
                return false;
            default:
                break;  // STRICT_NAN_PROP of newer versions promises more, not less
        }
    }
    return std::none_of(behavior.begin(), behavior.end(), [](cudnnBackendBehaviorNote_t note) {
        return note == CUDNN_BEHAVIOR_NOTE_REQUIRES_FILTER_INT8x32_REORDER ||
               note == CUDNN_BEHAVIOR_NOTE_REQUIRES_BIAS_INT8x32_REORDER;
    });
}

ConvPlanner::ConvPlanner(cudaStream_t stream, const PlannerOptions& options)
    : stream_(stream),
      options_(options),
      handle_(stream),
      cache_(options.cache_folder, machine_name()),
      kept_at_(options.clock()) {}

ConvPlanner::~ConvPlanner() {
    keep();
}

void ConvPlanner::keep_now_and_then() {
    constexpr double seconds_between = 10;  // what a start that is broken off measures again, at most
    if (options_.clock() - kept_at_ < seconds_between) return;
    keep();
    kept_at_ = options_.clock();
}

namespace {

/// Whether a proposal may be taken at all. f32 gradients of 16-bit factors are worth having where Tensor Cores make
/// them: without, they would cost several times what rounding them once more saves.
bool usable(const ConvShape& shape, DType weights, const EngineConfig& config) {
    return allowed(shape, config.numerical_notes, config.behavior_notes) &&
           (weights == shape.dtype || config.uses_tensor_cores());
}

}  // namespace

/// Plans that may be taken, in the order of the heuristics: settings of one engine's knobs differ as much as engines
/// do.
std::vector<std::unique_ptr<ConvPlan>> ConvPlanner::candidates(const ConvShape& shape,
                                                               const std::shared_ptr<const ConvGraph>& graph,
                                                               size_t most, int64_t workspace_limit) const {
    std::vector<std::unique_ptr<ConvPlan>> plans;
    for (const cudnnBackendHeurMode_t mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
        for (EngineConfig& config : graph->propose(mode)) {
            if (plans.size() == most) return plans;
            if (!usable(shape, graph->weights_dtype(), config)) continue;
            const bool known = std::any_of(plans.begin(), plans.end(),
                                           [&](const auto& plan) { return plan->choice() == config.choice; });
            if (known) continue;
            auto plan = ConvPlan::make(handle_, graph, std::move(config));
            if (!plan || plan->workspace_bytes() > workspace_limit) continue;
            plans.push_back(std::move(plan));
        }
        // The fallbacks are slow and sure: for when nothing else serves.
        if (!plans.empty()) return plans;
    }
    return plans;
}

/// A plan of an earlier choice, if this cuDNN still makes it and it is allowed: what stands on disk is not believed.
std::unique_ptr<ConvPlan> ConvPlanner::restored(const ConvShape& shape, const std::shared_ptr<const ConvGraph>& graph,
                                                const EngineChoice& choice, int64_t workspace_limit) const {
    for (EngineConfig& config : graph->restore(choice)) {
        if (!usable(shape, graph->weights_dtype(), config)) continue;
        auto plan = ConvPlan::make(handle_, graph, std::move(config));
        if (plan && plan->workspace_bytes() <= workspace_limit) return plan;
    }
    return nullptr;
}

std::unique_ptr<ConvPlan> ConvPlanner::best(const ConvShape& shape, Phase phase, DType diff_weights, float record) {
    const auto graph = std::make_shared<const ConvGraph>(handle_, shape, phase, diff_weights);
    const std::string any_batch = key_of(shape, phase, diff_weights, options_.workspace_limit);
    const std::string key = cat(any_batch, " batch ", shape.batch);
    const auto made_again = [&](const KeptPlan& kept) {
        auto plan = restored(shape, graph, kept.choice, options_.workspace_limit);
        if (plan) plan->set_milliseconds(kept.milliseconds);
        return plan;
    };
    std::unique_ptr<ConvPlan> plan;
    if (const auto kept = cache_.find(key)) plan = made_again(*kept);
    if (!plan)
        if (const auto kept = taken_.find(any_batch); kept != taken_.end()) plan = made_again(kept->second);
    if (!plan) plan = chosen(shape, phase, graph, diff_weights, key, record);
    if (plan) taken_[any_batch] = {plan->choice(), plan->milliseconds()};
    return plan;
}

Gemm& ConvPlanner::gemm() {
    if (!gemm_) gemm_ = std::make_unique<Gemm>(stream_);
    return *gemm_;
}

std::optional<float> ConvPlanner::product_milliseconds(const ConvShape& shape, float record) {
    const GemmShape product = weights_product(shape);
    int64_t workspace = 0;
    try {
        workspace = gemm().workspace_needed(product, product_workspace);
    } catch (const Error&) {
        return std::nullopt;  // cuBLASLt has none
    }
    const std::string any_batch =
        cat(key_of(shape, Phase::backward_weights, DType::f32, options_.workspace_limit), " as a matrix product");
    const std::string key = cat(any_batch, " batch ", shape.batch);
    if (const auto kept = cache_.find(key)) return kept->milliseconds;
    if (const auto kept = taken_.find(any_batch); kept != taken_.end()) return kept->second.milliseconds;
    float time = 0;
    bool keep = options_.autotune;
    if (options_.autotune && budget_left() > 0) {
        const double start = options_.clock();
        const Problem problem(shape, DType::f32, workspace);
        keep = problem.fits();
        if (keep) {
            problem.fill(stream_);
            const auto run = [&] {
                gemm().run(product, problem.output(), problem.image(), 0, problem.weights(), problem.workspace(),
                           product_workspace);
                return true;
            };
            time = time_of(run, stream_, record);
        }
        spent_ += options_.clock() - start;
    }
    const KeptPlan kept{{}, time};
    if (keep) cache_.store(key, kept);
    taken_[any_batch] = kept;
    return time;
}

/// The heuristics' first, or the fastest of several, which is then kept under `key`.
std::unique_ptr<ConvPlan> ConvPlanner::chosen(const ConvShape& shape, Phase phase,
                                              const std::shared_ptr<const ConvGraph>& graph, DType diff_weights,
                                              const std::string& key, float record) {
    if (!options_.autotune) return first_of(candidates(shape, graph, 1, options_.workspace_limit));
    if (budget_left() <= 0) {
        log::warn_once(
            "time for timing",
            cat("timing convolutions has taken ", std::llround(spent_), " s, the most it may take; from here (",
                shape.name, " ", name_of(phase), ") they run as cuDNN's heuristics propose",
                cache_.path().empty() ? "" : cat(", and will again. To time all, remove ", cache_.path()),
                cache_.path().empty() ? ". To time all," : " and", " start with RN50_AUTOTUNE_SECONDS=600"));
        auto plan = first_of(candidates(shape, graph, 1, options_.workspace_limit));
        if (plan) cache_.store(key, {plan->choice(), 0});
        return plan;
    }
    const double start = options_.clock();
    auto plan = measured(shape, phase, graph, diff_weights, key, record);
    spent_ += options_.clock() - start;
    return plan;
}

std::unique_ptr<ConvPlan> ConvPlanner::measured(const ConvShape& shape, Phase phase,
                                                const std::shared_ptr<const ConvGraph>& graph, DType diff_weights,
                                                const std::string& key, float record) {
    const double start = options_.clock();
    const auto time_left = [&] { return options_.clock() - start < budget_left(); };
    auto plans = candidates(shape, graph, static_cast<size_t>(options_.candidates), options_.workspace_limit);
    if (plans.empty()) return nullptr;
    int64_t workspace = 0;
    for (const auto& plan : plans)
        workspace = std::max(workspace, plan->workspace_bytes());
    const Problem problem(shape, phase == Phase::backward_weights ? diff_weights : shape.dtype, workspace);
    if (!problem.fits()) {
        log::warn_once("no memory to time",
                       cat("too little GPU memory is free to time the convolutions, so they run as "
                           "cuDNN's heuristics propose (first: ",
                           shape.name, ")"));
        return std::move(plans.front());
    }
    if (!said_) log::info("timing convolutions for this GPU and batch size, once");
    said_ = true;
    log::progress(cat("timing ", shape.name, " ", name_of(phase)));
    const size_t best = fastest(plans, problem, handle_, stream_, time_left, record);
    log::progress_done();
    if (best == plans.size()) return nullptr;
    cache_.store(key, {plans[best]->choice(), plans[best]->milliseconds()});
    return std::move(plans[best]);
}

std::unique_ptr<ConvPlan> ConvPlanner::smaller(const ConvShape& shape, const ConvPlan& whole, int64_t workspace_bytes) {
    const auto graph = std::make_shared<const ConvGraph>(handle_, shape, Phase::forward, shape.dtype);
    if (auto plan = restored(shape, graph, whole.choice(), workspace_bytes)) return plan;
    return first_of(candidates(shape, graph, 1, workspace_bytes));
}

GemmShape weights_product(const ConvShape& shape) {
    GemmShape product;
    product.transpose_a = true;
    product.m = shape.out_channels;
    product.n = shape.in_channels;
    product.k = shape.batch * shape.height * shape.width;
    product.ab = shape.dtype;
    product.c = DType::f32;
    product.tf32 = shape.tf32;
    return product;
}

}  // namespace rn50::cuda
