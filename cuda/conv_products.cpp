#include "conv_products.h"

#include <algorithm>
#include <array>
#include <map>

#include "base/error.h"
#include "base/log.h"

namespace rn50::cuda {

namespace {

using Phase = ConvProducts::Phase;

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
        if (phase == Phase::backward_weights && as_product_)
            return planner_->gemm().workspace_needed(weights_product(shape_), ConvPlanner::product_workspace);
        const auto& prepared = plans_[static_cast<size_t>(phase)];
        return prepared ? prepared->workspace_bytes() : 0;
    }
    int64_t in_channels() const override { return shape_.in_channels; }
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
        if (as_product_) {
            planner_->keep();
            planner_->gemm().run(weights_product(shape_), dy, x, 0, dw, workspace, ConvPlanner::product_workspace);
            return;
        }
        run(Phase::backward_weights, plan(Phase::backward_weights).get(), x, dw, dy, workspace);
    }

    /// Of all phases, once each; 0 when one of them was not timed.
    float milliseconds() const {
        float sum = 0;
        for (const auto& plan : plans_) {
            if (!plan) continue;
            if (plan->milliseconds() <= 0) return 0;
            sum += plan->milliseconds();
        }
        return sum;
    }
    void warn_of_slow_plans() const {
        if (shape_.dtype == DType::f32) return;
        for (const Phase phase : {Phase::forward, Phase::backward_data, Phase::backward_weights}) {
            const auto& prepared = plans_[static_cast<size_t>(phase)];
            if (!prepared || prepared->uses_tensor_cores()) continue;
            log::warn_once(cat("no Tensor Cores in ", rn50::name_of(shape_.dtype)),
                           cat(shape_.name, " ", name_of(phase), " in ", rn50::name_of(shape_.dtype),
                               " runs without Tensor Cores, the first to do so: cuDNN ",
                               cudnn_version_text(cudnnGetVersion()), " has no better plan for it on this GPU (batch ",
                               shape_.batch, ", ", shape_.height, "x", shape_.width, "x", shape_.in_channels, " to ",
                               shape_.out_channels, "); another version of cuDNN may have one"));
        }
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

    /// Gradients that leave the library in f32 are not rounded once more. Of 16-bit factors they are taken where they
    /// cost no time: cuDNN's engines for them, where it has any, may take ten times as long as those whose result is
    /// as narrow as the factors; a plain matrix product is as quick with either. So all are timed.
    void prepare_backward_weights() {
        auto narrow = planner_->best(shape_, Phase::backward_weights, shape_.dtype);
        std::unique_ptr<ConvPlan> wide;
        std::optional<float> product;
        if (shape_.dtype != DType::f32) {
            const float record = narrow && narrow->milliseconds() > 0 ? narrow->milliseconds() : cannot_run;
            if (shape_.kernel == 1 && shape_.stride == 1 && shape_.pad == 0)
                product = planner_->product_milliseconds(shape_, record);
            if (!product) wide = wide_gradients(record);
        }
        // In the order of what is taken when nothing was timed.
        const float times[] = {product.value_or(0), narrow ? narrow->milliseconds() : 0,
                               wide ? wide->milliseconds() : 0};
        float least = cannot_run;
        for (const float time : times)
            if (time > 0) least = std::min(least, time);
        // A twentieth is what timings of one plan differ by (fastest() takes 3% for noise) and what a gradient that is not
        // rounded again is worth: in a step a weights' gradient is a third of its layer's convolutions.
        const auto as_quick = [&](float time) { return time > 0 && time <= least * 1.05f; };
        if (product && (least == cannot_run || as_quick(times[0]))) {
            as_product_ = true;
            diff_weights_ = DType::f32;
        } else if (wide && (!narrow || as_quick(times[2]))) {
            plan(Phase::backward_weights) = std::move(wide);
            diff_weights_ = DType::f32;
        } else {
            plan(Phase::backward_weights) = found(Phase::backward_weights, std::move(narrow));
        }
    }

    std::unique_ptr<ConvPlan> wide_gradients(float record) {
        if (planner_->narrow_gradients(shape_.dtype)) return nullptr;
        std::unique_ptr<ConvPlan> wide;
        try {
            wide = planner_->best(shape_, Phase::backward_weights, DType::f32, record);
        } catch (const Error&) {
            // cuDNN 8.9 may refuse the very graph. An error of another kind meets the next plan too.
        }
        if (!wide) planner_->set_narrow_gradients(shape_.dtype);
        return wide;
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
    bool as_product_ = false;  ///< the weights' gradient: weights_product(), not a plan of cuDNN's
    std::array<std::unique_ptr<ConvPlan>, 3> plans_;
    std::map<int64_t, std::unique_ptr<ConvPlan>> smaller_;
};

}  // namespace

std::unique_ptr<ConvProducts> make_conv_products(std::shared_ptr<ConvPlanner> planner, const ConvShape& shape) {
    auto made = std::make_unique<CudnnConv>(planner, shape);
    // Pictures of 16 bit: some engines are made for four channels, others pad them to eight once more.
    if (shape.dtype != DType::f32 && shape.filled_channels <= 4 && shape.in_channels == 8) {
        ConvShape slim = shape;
        slim.in_channels = 4;
        std::unique_ptr<CudnnConv> other;
        try {
            if (made->milliseconds() > 0) other = std::make_unique<CudnnConv>(planner, slim);
        } catch (const Error&) {
            // cuDNN has no plan for four.
        }
        if (other && other->milliseconds() > 0 && other->milliseconds() < made->milliseconds()) made = std::move(other);
    }
    made->warn_of_slow_plans();
    return made;
}

}  // namespace rn50::cuda
