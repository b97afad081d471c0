// --loss-scale: a constant factor of the loss that the step takes out again.
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "train/fit.h"

using namespace rn50;

namespace {

TrainerOptions options_of(float loss_scale) {
    TrainerOptions options;
    options.net.model = "resnet18";
    options.net.classes = 5;
    options.net.image_size = 32;
    options.net.batch = 2;
    options.net.dropout = 0;
    options.loss_scale = loss_scale;
    return options;
}

/// A trainer with memory of its own, after so many steps on one batch.
class Run {
  public:
    Run(Backend& backend, float loss_scale, int steps)
        : backend_(backend),
          arena_(backend.memory(), plan_memory(backend, options_of(loss_scale)).peak),
          trainer_(backend, arena_, options_of(loss_scale)) {
        trainer_.initialize();
        std::vector<uint8_t> pictures(2 * 32 * 32 * 3);
        for (size_t i = 0; i < pictures.size(); ++i)
            pictures[i] = static_cast<uint8_t>(i * 2654435761u >> 24);
        const int32_t labels[] = {1, 3};
        for (int step = 0; step < steps; ++step) {
            trainer_.step(pictures.data(), labels, step, 1e-3);
            result_ = trainer_.result();
        }
    }
    const StepResult& result() const { return result_; }
    std::string first_non_finite() { return trainer_.first_non_finite(); }
    std::vector<float> parameters() { return fetch(trainer_.net().state().parameters); }
    std::vector<float> gradients() { return fetch(trainer_.net().state().gradients); }

  private:
    std::vector<float> fetch(const Tensor& tensor) {
        std::vector<float> values(static_cast<size_t>(tensor.count()));
        backend_.copy_out(trainer_.context(), tensor, values.data());
        return values;
    }

    Backend& backend_;
    Arena arena_;
    Trainer trainer_;
    StepResult result_;
};

}  // namespace

TEST_CASE("loss scale: a constant one scales the gradients, not the step, and never moves") {
    const std::unique_ptr<Backend> backend = make_backend("cpu");
    Run plain(*backend, 0, 1), scaled(*backend, 1024, 1);
    CHECK(plain.result().state.loss_scale == 1);
    CHECK(scaled.result().state.loss_scale == 1024);
    CHECK(scaled.result().loss == plain.result().loss);
    CHECK(scaled.result().state.grad_norm == doctest::Approx(plain.result().state.grad_norm).epsilon(1e-6));
    const std::vector<float> g = plain.gradients(), scaled_g = scaled.gradients();
    const std::vector<float> p = plain.parameters(), scaled_p = scaled.parameters();
    const auto off = [](float got, float expected) {
        return !(std::fabs(got - expected) <= 1e-5f * std::fabs(expected) + 1e-30f);
    };
    size_t gradients_off = 0, parameters_off = 0;
    for (size_t i = 0; i < g.size(); ++i) {
        gradients_off += off(scaled_g[i], 1024 * g[i]);
        parameters_off += off(scaled_p[i], p[i]);
    }
    CHECK(gradients_off == 0);
    CHECK(parameters_off == 0);
}

TEST_CASE("loss scale: gradients that overflow skip their step, and a constant scale stays") {
    const std::unique_ptr<Backend> backend = make_backend("cpu");
    Run run(*backend, 3e38f, 2);
    CHECK(run.result().state.skipped == 2);
    CHECK(run.result().state.t == 0);
    CHECK(run.result().state.loss_scale == 3e38f);
    CHECK(run.result().state.skipped_in_row == 2);
    CHECK(run.first_non_finite().find("the gradient of ") == 0);
}

TEST_CASE("loss scale: a step left out for a loss that is no number has no part in the epoch's mean loss") {
    FitState state;
    CHECK(std::isnan(state.mean_loss()));
    for (const double loss : {1.0, std::nan(""), double{HUGE_VAL}, 4.0})
        state.add_loss(loss);
    CHECK(state.mean_loss() == 2.5);
    CHECK(state.loss_steps == 2);
}
