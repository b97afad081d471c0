#include "conv_products.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <map>

#include "base/error.h"
#include "base/log.h"
#include "base/machine.h"
#include "base/random.h"
#include "ledger.h"

namespace rn50::cuda {

namespace {

using Phase = ConvProducts::Phase;

const char* name_of(Phase phase) {
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

/// Device memory for the time of a measurement.
class Scratch {
  public:
    explicit Scratch(int64_t bytes) {
        if (bytes == 0) return;
        if (ledger().take(Taken::timing, &data_, bytes) == cudaSuccess) return;
        cudaGetLastError();  // too little memory is no error here
        data_ = nullptr;
        failed_ = true;
    }
    ~Scratch() { ledger().give_back(data_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    void* data() const { return data_; }
    bool failed() const { return failed_; }

  private:
    void* data_ = nullptr;
    bool failed_ = false;
};

class Event {
  public:
    Event() { check(cudaEventCreate(&event_), "cudaEventCreate"); }
    ~Event() { cudaEventDestroy(event_); }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    cudaEvent_t raw() const { return event_; }

  private:
    cudaEvent_t event_ = nullptr;
};

/// A block of numbers as tensors hold them: of both signs, 2^-5 to 2^-3, the bits of their fractions by chance.
std::vector<uint16_t> some_numbers(DType dtype) {
    std::vector<uint16_t> halves(size_t{1} << 19);
    for (size_t i = 0; i < halves.size(); i += 8) {
        const auto words = philox({static_cast<uint32_t>(i), 0, 0, 0}, {0, 0});
        for (size_t k = 0; k < 8; ++k) {
            const auto half = static_cast<uint16_t>(words[k / 2] >> 16 * (k % 2));
            if (dtype == DType::f16)
                halves[i + k] = static_cast<uint16_t>((half & 0x83FF) | 0x2800);
            else if (dtype == DType::bf16 || k % 2 == 1)  // of an f32 the upper half
                halves[i + k] = static_cast<uint16_t>((half & 0x80FF) | 0x3D00);
            else
                halves[i + k] = half;
        }
    }
    return halves;
}

/// Buffers as large as a problem's tensors. What they hold matters: a GPU clocks by its power, and zeros or one number
/// all over would let it run faster than it will.
class Problem {
  public:
    Problem(const ConvShape& s, DType weights, int64_t workspace)
        : image_bytes_(s.batch * s.height * s.width * s.in_channels * size_of(s.dtype)),
          weights_bytes_(s.out_channels * s.kernel * s.kernel * s.in_channels * size_of(weights)),
          output_bytes_(s.batch * s.out_height() * s.out_width() * s.out_channels * size_of(s.dtype)),
          image_(image_bytes_),
          weights_(weights_bytes_),
          output_(output_bytes_),
          workspace_(workspace),
          numbers_(some_numbers(s.dtype)) {}
    bool fits() const { return !image_.failed() && !weights_.failed() && !output_.failed() && !workspace_.failed(); }
    void fill(cudaStream_t stream) const {
        fill(image_, image_bytes_, stream);
        fill(weights_, weights_bytes_, stream);
        fill(output_, output_bytes_, stream);
    }
    cudnnStatus_t run(ConvPlan& plan, const CudnnHandle& handle) const {
        return plan.try_run(handle, image_.data(), weights_.data(), output_.data(), workspace_.data());
    }

  private:
    void fill(const Scratch& memory, int64_t bytes, cudaStream_t stream) const {
        auto* const begin = static_cast<char*>(memory.data());
        const auto copy = [&](int64_t at, const void* from, int64_t count, cudaMemcpyKind kind) {
            check(cudaMemcpyAsync(begin + at, from, static_cast<size_t>(count), kind, stream), "filling a tensor");
        };
        int64_t done = std::min(bytes, static_cast<int64_t>(numbers_.size() * sizeof numbers_[0]));
        copy(0, numbers_.data(), done, cudaMemcpyHostToDevice);
        for (; done < bytes; done *= 2)
            copy(done, begin, std::min(done, bytes - done), cudaMemcpyDeviceToDevice);
    }

    int64_t image_bytes_, weights_bytes_, output_bytes_;
    Scratch image_, weights_, output_, workspace_;
    std::vector<uint16_t> numbers_;  // the device reads them for as long as this lives
};

constexpr float cannot_run = std::numeric_limits<float>::infinity();

/// Milliseconds of one run: the least of several rounds, since everything else on the machine only adds. A plan that is
/// far behind `record` is not measured closely; the first round, a single run, errs by more than the others.
float milliseconds(ConvPlan& plan, const Problem& problem, const CudnnHandle& handle, cudaStream_t stream,
                   float record) {
    constexpr int rounds = 5;
    constexpr float far_at_first = 3, far = 1.3f;
    // The first run also loads the kernel.
    if (problem.run(plan, handle) != CUDNN_STATUS_SUCCESS) return cannot_run;
    Event begin, end;
    float least = cannot_run;
    for (int round = 0; round < rounds; ++round) {
        const int runs = round == 0 ? 1 : 3;
        check(cudaEventRecord(begin.raw(), stream), "cudaEventRecord");
        for (int i = 0; i < runs; ++i)
            if (problem.run(plan, handle) != CUDNN_STATUS_SUCCESS) return cannot_run;
        check(cudaEventRecord(end.raw(), stream), "cudaEventRecord");
        check(cudaEventSynchronize(end.raw()), "timing a convolution");
        float elapsed = 0;
        check(cudaEventElapsedTime(&elapsed, begin.raw(), end.raw()), "cudaEventElapsedTime");
        least = std::min(least, elapsed / static_cast<float>(runs));
        if (least > (round == 0 ? far_at_first : far) * record) break;
    }
    return least;
}

std::unique_ptr<ConvPlan> first_of(std::vector<std::unique_ptr<ConvPlan>> plans) {
    return plans.empty() ? nullptr : std::move(plans.front());
}

/// The index of the fastest plan, or plans.size() when none can run. The first that can is measured; the others, as
/// long as there is time.
size_t fastest(const std::vector<std::unique_ptr<ConvPlan>>& plans, const Problem& problem, const CudnnHandle& handle,
               cudaStream_t stream, const std::function<bool()>& time_left) {
    problem.fill(stream);
    std::vector<float> times;
    float record = cannot_run;
    for (const auto& plan : plans) {
        if (record != cannot_run && !time_left()) break;
        times.push_back(milliseconds(*plan, problem, handle, stream, record));
        record = std::min(record, times.back());
    }
    // Differences of this size are noise: then the smaller workspace is better, then the heuristics' order.
    constexpr float noise = 1.03f;
    size_t best = plans.size();
    for (size_t i = 0; i < times.size(); ++i)
        if (times[i] != cannot_run && times[i] <= record * noise &&
            (best == plans.size() || plans[i]->workspace_bytes() < plans[best]->workspace_bytes()))
            best = i;
    return best;
}

}  // namespace

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

std::unique_ptr<ConvPlan> ConvPlanner::best(const ConvShape& shape, Phase phase, DType diff_weights) {
    const auto graph = std::make_shared<const ConvGraph>(handle_, shape, phase, diff_weights);
    const std::string any_batch = key_of(shape, phase, diff_weights, options_.workspace_limit);
    const std::string key = cat(any_batch, " batch ", shape.batch);
    std::unique_ptr<ConvPlan> plan;
    if (const auto choice = cache_.find(key)) plan = restored(shape, graph, *choice, options_.workspace_limit);
    if (!plan)
        if (const auto choice = taken_.find(any_batch); choice != taken_.end())
            plan = restored(shape, graph, choice->second, options_.workspace_limit);
    if (!plan) plan = chosen(shape, phase, graph, diff_weights, key);
    if (!plan) return nullptr;
    taken_[any_batch] = plan->choice();
    if (shape.dtype != DType::f32 && !plan->uses_tensor_cores())
        log::warn_once(
            cat("no Tensor Cores in ", rn50::name_of(shape.dtype)),
            cat(shape.name, " ", name_of(phase), " in ", rn50::name_of(shape.dtype),
                " runs without Tensor Cores, the first to do so: cuDNN ", cudnn_version_text(cudnnGetVersion()),
                " has no better plan for it on this GPU (batch ", shape.batch, ", ", shape.height, "x", shape.width,
                "x", shape.in_channels, " to ", shape.out_channels, "); another version of cuDNN may have one"));
    return plan;
}

/// The heuristics' first, or the fastest of several, which is then kept under `key`.
std::unique_ptr<ConvPlan> ConvPlanner::chosen(const ConvShape& shape, Phase phase,
                                              const std::shared_ptr<const ConvGraph>& graph, DType diff_weights,
                                              const std::string& key) {
    if (!options_.autotune) return first_of(candidates(shape, graph, 1, options_.workspace_limit));
    if (budget_left() <= 0) {
        log::warn_once(
            "time for timing",
            cat("timing convolutions has taken ", std::llround(spent_), " s, the most it may take; from here (",
                shape.name, " ", name_of(phase), ") they run as cuDNN's heuristics propose",
                cache_.path().empty() ? "" : cat(", and will again. To time all, remove ", cache_.path()),
                cache_.path().empty() ? ". To time all," : " and", " start with RN50_AUTOTUNE_SECONDS=600"));
        auto plan = first_of(candidates(shape, graph, 1, options_.workspace_limit));
        if (plan) cache_.store(key, plan->choice());
        return plan;
    }
    const double start = options_.clock();
    auto plan = measured(shape, phase, graph, diff_weights, key);
    spent_ += options_.clock() - start;
    return plan;
}

std::unique_ptr<ConvPlan> ConvPlanner::measured(const ConvShape& shape, Phase phase,
                                                const std::shared_ptr<const ConvGraph>& graph, DType diff_weights,
                                                const std::string& key) {
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
    const size_t best = fastest(plans, problem, handle_, stream_, time_left);
    log::progress_done();
    if (best == plans.size()) return nullptr;
    cache_.store(key, plans[best]->choice());
    return std::move(plans[best]);
}

std::unique_ptr<ConvPlan> ConvPlanner::smaller(const ConvShape& shape, const ConvPlan& whole, int64_t workspace_bytes) {
    const auto graph = std::make_shared<const ConvGraph>(handle_, shape, Phase::forward, shape.dtype);
    if (auto plan = restored(shape, graph, whole.choice(), workspace_bytes)) return plan;
    return first_of(candidates(shape, graph, 1, workspace_bytes));
}

namespace {

class CudnnConv final : public ConvProducts {
  public:
    CudnnConv(std::shared_ptr<ConvPlanner> planner, const ConvShape& shape)
        : planner_(std::move(planner)), shape_(shape), diff_weights_(shape.dtype) {
        plan(Phase::forward) = found(Phase::forward, planner_->best(shape_, Phase::forward, shape_.dtype));
        if (shape_.training) {
            if (shape_.backward_data)
                plan(Phase::backward_data) =
                    found(Phase::backward_data, planner_->best(shape_, Phase::backward_data, shape_.dtype));
            prepare_backward_weights();
        }
        planner_->keep_now_and_then();
    }

    int64_t workspace_bytes(Phase phase) const override {
        const auto& prepared = plans_[static_cast<size_t>(phase)];
        return prepared ? prepared->workspace_bytes() : 0;
    }
    DType diff_weights_dtype() const override { return diff_weights_; }

    void forward(int64_t batch, const void* x, const void* w, void* y, void* workspace) override {
        RN50_REQUIRE(takes(batch), shape_.name, " has no plan for a batch of ", batch);
        ConvPlan* chosen = batch == shape_.batch ? plan(Phase::forward).get() : smaller(batch);
        run(Phase::forward, chosen, x, w, y, workspace);
    }
    bool takes(int64_t batch) override {
        RN50_REQUIRE(batch >= 1 && batch <= shape_.batch, shape_.name, ": a batch of ", batch, " where ", shape_.batch,
                     " was prepared");
        return batch == shape_.batch || smaller(batch) != nullptr;
    }
    void backward_data(const void* dy, const void* w, void* dx, void* workspace) override {
        run(Phase::backward_data, plan(Phase::backward_data).get(), dx, w, dy, workspace);
    }
    void backward_weights(const void* x, const void* dy, void* dw, void* workspace) override {
        run(Phase::backward_weights, plan(Phase::backward_weights).get(), x, dw, dy, workspace);
    }

  private:
    std::unique_ptr<ConvPlan>& plan(Phase phase) { return plans_[static_cast<size_t>(phase)]; }

    std::unique_ptr<ConvPlan> found(Phase phase, std::unique_ptr<ConvPlan> plan) const {
        if (plan) return plan;
        throw Error(
            Exit::device,
            cat("cuDNN ", cudnn_version_text(cudnnGetVersion()), " has no deterministic plan for ", shape_.name, " ",
                name_of(phase), " in ", shape_.tf32 ? "tf32" : rn50::name_of(shape_.dtype), " (batch ", shape_.batch,
                ", ", shape_.height, "x", shape_.width, "x", shape_.in_channels, " to ", shape_.out_channels, ")"),
            "try another --precision or --batch-size, or another version of cuDNN");
    }

    void prepare_backward_weights() {
        auto& prepared = plan(Phase::backward_weights);
        // Gradients that leave the library in f32 are not rounded once more; few versions offer that for 16-bit
        // factors.
        if (shape_.dtype != DType::f32 && !planner_->narrow_gradients(shape_.dtype)) {
            try {
                prepared = planner_->best(shape_, Phase::backward_weights, DType::f32);
            } catch (const Error&) {
                // cuDNN 8.9 may refuse the very graph. An error of another kind meets the next plan too.
            }
            if (prepared)
                diff_weights_ = DType::f32;
            else
                planner_->set_narrow_gradients(shape_.dtype);
        }
        if (!prepared)
            prepared = found(Phase::backward_weights, planner_->best(shape_, Phase::backward_weights, shape_.dtype));
    }

    /// The last batch of an evaluation is smaller, and any other that lost a damaged picture; their plans are made when
    /// they come. Null where there is none.
    ConvPlan* smaller(int64_t batch) {
        const auto [prepared, fresh] = smaller_.try_emplace(batch);
        if (fresh) {
            ConvShape part = shape_;
            part.batch = batch;
            const ConvPlan& whole = *plan(Phase::forward);
            prepared->second = planner_->smaller(part, whole, whole.workspace_bytes());
            if (!prepared->second)
                log::warn_once("no plan for a smaller batch",
                               cat("cuDNN ", cudnn_version_text(cudnnGetVersion()), " has no plan for ", shape_.name,
                                   " with a batch of ", batch, " within ", whole.workspace_bytes(),
                                   " bytes of workspace: such batches take as long as whole ones there"));
        }
        return prepared->second.get();
    }

    void run(Phase phase, ConvPlan* plan, const void* image, const void* weights, const void* output, void* workspace) {
        RN50_REQUIRE(plan, shape_.name, ": ", name_of(phase), " was not prepared");
        planner_->keep();  // what runs now must be what a resumed run takes
        const cudnnStatus_t status = plan->try_run(planner_->handle(), image, weights, output, workspace);
        if (status != CUDNN_STATUS_SUCCESS) check(status, cat(shape_.name, " ", name_of(phase)));
    }

    std::shared_ptr<ConvPlanner> planner_;
    ConvShape shape_;
    DType diff_weights_;
    std::array<std::unique_ptr<ConvPlan>, 3> plans_;
    std::map<int64_t, std::unique_ptr<ConvPlan>> smaller_;
};

}  // namespace

std::unique_ptr<ConvProducts> make_conv_products(std::shared_ptr<ConvPlanner> planner, const ConvShape& shape) {
    return std::make_unique<CudnnConv>(std::move(planner), shape);
}

}  // namespace rn50::cuda
