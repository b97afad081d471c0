// Recorded steps on the emulator: whatever differs from step to step, they end as steps op by op do, bit for bit.
#include <doctest/doctest.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>

#include "base/error.h"
#include "base/pixel_ops.h"
#include "base/random.h"
#include "captured_stderr.h"
#include "environment.h"
#include "simt_backend.h"
#include "streams.h"
#include "train/trainer.h"

using namespace rn50;
using namespace rn50::test;

namespace {

constexpr int64_t size = 2, side = 32, classes = 5;

TrainerOptions options_of(Precision precision) {
    TrainerOptions options;
    options.net.model = "resnet18";
    options.net.classes = classes;
    options.net.image_size = side;
    options.net.batch = size;
    options.net.precision = precision;
    options.net.dropout = 0.5f;
    options.seed = 5;
    return options;
}

/// The batch of this number, by chance. Its share is another each time.
struct Pictures {
    std::vector<uint8_t> pixels;
    std::vector<int32_t> labels, partners;
    std::vector<pixel::Changes> changes;
    HostBatch batch{};

    Pictures(int64_t number, bool mixed, bool changed) {
        Random random(1, static_cast<uint32_t>(number), 0, Purpose::demo);
        for (int64_t i = 0; i < size * side * side * 3; ++i)
            pixels.push_back(static_cast<uint8_t>(random.u32() >> 24));
        for (int64_t i = 0; i < size; ++i) {
            labels.push_back(static_cast<int32_t>(random.below(classes)));
            partners.push_back(static_cast<int32_t>(random.below(classes)));
            pixel::Changes change{};
            for (int32_t& factor : change.factors)
                factor = pixel::one / 2 + static_cast<int32_t>(random.below(pixel::one));
            for (uint8_t jitter = 0; jitter < 3; ++jitter)
                change.order[jitter] = jitter;
            change.flip_vertical = static_cast<uint8_t>(random.below(2));
            changes.push_back(change);
        }
        batch = {pixels.data(), labels.data(), mixed ? partners.data() : nullptr,
                 mixed ? 0.5f + static_cast<float>(number % 7) / 16 : 1.0f, changed ? changes.data() : nullptr};
    }
};

/// What a run ends with, and what each step found.
struct Trained {
    std::vector<double> losses;
    std::vector<StepState> states;
    std::vector<float> parameters, moment1, running;
    int64_t replays = 0;
};

struct Run {
    Backend& backend;
    Trainer& trainer;
    std::vector<float> read(const Tensor& tensor) const {
        std::vector<float> values(static_cast<size_t>(tensor.count()));
        backend.copy_out(trainer.context(), tensor, values.data());
        return values;
    }
    void set_loss_scale(float scale) const {
        StepState state;
        backend.copy_out(trainer.context(), trainer.step_state(), &state);
        state.loss_scale = scale;
        backend.copy_in(trainer.context(), &state, trainer.step_state());
        backend.synchronize(trainer.context());
    }
    /// Pictures through the net as it infers, in the same memory in which it trains.
    void infer() const {
        Arena& arena = trainer.context().arena;
        auto& net = const_cast<Net&>(trainer.net());
        const Scratch pictures(arena, DType::u8, {1, side, side, 3}), logits(arena, DType::f32, {1, classes});
        backend.zero(trainer.context(), pictures.tensor());
        net.begin_inference(trainer.context());
        net.infer(trainer.context(), pictures.tensor(), logits.tensor());
        net.end_inference(trainer.context());
    }
};

/// On which the next run is, where it is not to have a backend of its own.
Backend* on = nullptr;

/// `between` is called before each step.
Trained trained(TrainerOptions options, bool recorded, int64_t steps,
                const std::function<void(const Run&, int64_t step)>& between = {}) {
    const ArenaMode one_block("shared");
    const std::unique_ptr<Backend> own = on == nullptr ? make_emulated_backend() : nullptr;
    Backend* const backend = own ? own.get() : on;
    options.record = recorded;
    Arena arena(backend->memory(), plan_memory(*backend, options).peak + (int64_t{64} << 20));
    Trainer trainer(*backend, arena, options);
    trainer.initialize();
    const Run run{*backend, trainer};
    Trained result;
    int64_t number = 0;
    for (int64_t step = 0; step < steps; ++step) {
        if (between) between(run, step);
        for (int64_t part = 0; part < options.net.accumulate; ++part) {
            const Pictures pictures(number++, options.mixed, options.changes);
            trainer.step(pictures.batch, step, 1e-3 * static_cast<double>(step + 1), part);
        }
        const StepResult found = trainer.result();
        result.losses.push_back(found.loss);
        result.states.push_back(found.state);
    }
    result.parameters = run.read(trainer.net().state().parameters);
    result.running = run.read(trainer.net().state().running);
    result.moment1 = run.read(trainer.moment1());
    if (trainer.recorded_steps() != nullptr) result.replays = trainer.recorded_steps()->replays();
    return result;
}

void check_same(const Trained& a, const Trained& b) {
    CHECK(a.losses == b.losses);
    REQUIRE(a.states.size() == b.states.size());
    for (size_t i = 0; i < a.states.size(); ++i) {
        CAPTURE(i);
        const StepState &x = a.states[i], &y = b.states[i];
        CHECK(x.lr == y.lr);
        CHECK(x.loss_scale == y.loss_scale);
        CHECK(x.skip == y.skip);
        CHECK(x.t == y.t);
        if (x.skip == 0) CHECK(x.grad_norm == y.grad_norm);
    }
    CHECK(a.parameters == b.parameters);
    CHECK(a.moment1 == b.moment1);
    CHECK(a.running == b.running);
}

}  // namespace

TEST_CASE("recorded steps of two batches in fp16, mixed, weighted, dropped out, one of them skipped, are plain ones" *
          doctest::skip(!trains_emulated())) {
    TrainerOptions options = options_of(Precision::fp16);
    options.net.accumulate = 2;
    options.mixed = true;
    options.class_weights = {0.25f, 1, 2, 0.5f, 4};
    options.label_smoothing = 0.1f;
    const auto between = [](const Run& run, int64_t step) {
        if (step == 0) run.set_loss_scale(64);
        if (step == 3) run.set_loss_scale(0x1p60f);
        if (step == 4) run.set_loss_scale(64);
        if (step == 5) run.infer();
    };
    const Trained plain = trained(options, false, 6, between), recorded = trained(options, true, 6, between);
    CHECK(plain.replays == 0);
    CHECK(recorded.replays == 8);  // of both batches, from the third step on
    CHECK(recorded.states[3].skip == 1);
    CHECK(recorded.states.back().t == 5);
    check_same(plain, recorded);
    CHECK(std::isfinite(recorded.losses.back()));
    CHECK(streams::live_graphs() == 0);
}

TEST_CASE("recorded steps in fp32 from both places in turn, augmented on the device, are plain ones" *
          doctest::skip(!trains_emulated())) {
    TrainerOptions options = options_of(Precision::fp32);
    options.changes = true;
    const auto between = [](const Run& run, int64_t step) {
        if (step == 6) run.infer();
    };
    const Trained plain = trained(options, false, 7, between), recorded = trained(options, true, 7, between);
    CHECK(recorded.replays == 3);
    check_same(plain, recorded);
}

namespace {

/// An engine of one rank, whose averages are not to be captured.
class Uncapturable final : public Collectives {
  public:
    explicit Uncapturable(streams::Stream* stream) : stream_(stream) {}
    std::string name() const override { return "none"; }
    void begin_average(const Tensor&) override {
        if (streams::is_captured(stream_)) throw Error(Exit::device, "averages cannot be captured", "");
    }
    void finish_averages() override {}
    void broadcast(const Tensor&) override {}
    void gather(const Tensor&, const Tensor&) override {}
    void gather_host(const void* mine, int64_t bytes, void* all) override {
        std::memcpy(all, mine, static_cast<size_t>(bytes));
    }
    void sum_host(double*, int64_t) override {}
    void abort() override {}

  private:
    streams::Stream* stream_;
};

}  // namespace

TEST_CASE("steps that cannot be recorded go op by op, which is said once" * doctest::skip(!trains_emulated())) {
    const TrainerOptions options = options_of(Precision::fp32);
    const Trained plain = trained(options, false, 5);
    const auto told = [&](TrainerOptions how, const std::function<void(const Run&, int64_t)>& between) {
        CapturedStderr said;
        const Trained recorded = trained(std::move(how), true, 5, between);
        CHECK(recorded.replays == 0);
        check_same(plain, recorded);
        return said.text();
    };
    const std::string head = "warning: --cuda-graph: steps are not recorded and go op by op: ";
    CHECK(told(options, [](const Run&, int64_t step) {
              if (step == 4) fail_next_instance(2);
          }) == head + "cudaGraphInstantiate: CUDA error 2\n");

    // The work breaks off, in the middle of the backward pass.
    const std::unique_ptr<Backend> backend = make_emulated_backend();
    Communicator comm(rn50::Place{}, std::chrono::milliseconds(30000));
    comm.connect([&](StoreClient&, const rn50::Place&, std::chrono::milliseconds) {
        return std::make_unique<Uncapturable>(static_cast<streams::Stream*>(emulated_stream(*backend)));
    });
    on = backend.get();
    TrainerOptions with_rank = options;
    with_rank.comm = &comm;
    CHECK(told(with_rank, {}) == head + "averages cannot be captured\n");
    on = nullptr;
    comm.leave();
}

TEST_CASE("a backend that records nothing says so, and the emulated one what it refuses") {
    std::string why;
    CHECK(make_backend("cpu", 1)->record([] { FAIL("was done"); }, why) == nullptr);
    CHECK(why == "this device records nothing");

    const ArenaMode one_block("shared");
    const std::unique_ptr<Backend> backend = make_emulated_backend();
    Arena arena(backend->memory(), 1 << 20);
    Context ctx{arena};
    const Scratch values(arena, DType::f32, {3});
    float host[3] = {};
    const auto refused = [&](const std::function<void()>& work) {
        why.clear();
        CHECK(backend->record(work, why) == nullptr);
        CHECK_FALSE(why.empty());
        backend->zero(ctx, values.tensor());  // the stream is as before
        backend->copy_out(ctx, values.tensor(), host);
        CHECK(host[2] == 0);
    };
    refused([&] { backend->synchronize(ctx); });
    refused([&] { backend->copy_in(ctx, host, values.tensor()); });
    refused([&] { backend->copy_out(ctx, values.tensor(), host); });
    refused([&] { backend->memory().fill(values.tensor().data, 0, 4); });
    refused([&] { backend->memory().release(backend->memory().allocate(16), 16); });
    CHECK_THROWS_AS(backend->record([] { throw Error(Exit::peer_lost, "a rank was lost", ""); }, why), Error);

    const std::unique_ptr<Recording> recording = backend->record([&] { backend->zero(ctx, values.tensor()); }, why);
    REQUIRE(recording != nullptr);
    const float ones[3] = {1, 1, 1};
    for (int i = 0; i < 2; ++i) {
        backend->copy_in(ctx, ones, values.tensor());
        backend->copy_out(ctx, values.tensor(), host);
        CHECK(host[2] == 1);  // noted, not done
        recording->run();
        backend->copy_out(ctx, values.tensor(), host);
        CHECK(host[2] == 0);
    }
}

TEST_CASE("dropout of a training run belongs to the step") {
    const std::unique_ptr<Backend> backend = make_backend("cpu", 1);
    const TrainerOptions options = options_of(Precision::fp32);
    Arena arena(backend->memory(), plan_memory(*backend, options).peak);
    Trainer trainer(*backend, arena, options);
    trainer.initialize();
    const Pictures pictures(0, false, false);
    std::vector<double> losses;
    for (const int64_t step : {0, 3, 4, 3}) {
        trainer.step(pictures.batch, step, 0);  // at this rate nothing is learnt
        losses.push_back(trainer.result().loss);
    }
    CHECK(losses[1] != losses[0]);
    CHECK(losses[2] != losses[1]);
    CHECK(losses[3] == losses[1]);
}

TEST_CASE("an arena goes back to what it held, and knows its layout") {
    const ArenaMode one_block("shared");
    const std::unique_ptr<Backend> backend = make_emulated_backend();
    Arena arena(backend->memory(), 1 << 20);
    Tensor kept = arena.alloc(Use::input, DType::f32, {100});
    const uint64_t layout = arena.layout();
    const int64_t in_use = arena.in_use();
    const Arena::Mark mark = arena.mark();
    const Tensor lost = arena.alloc(Use::workspace, DType::f32, {1000});
    CHECK(arena.layout() != layout);
    arena.rewind(mark);
    CHECK(arena.layout() == layout);
    CHECK(arena.in_use() == in_use);
    CHECK(arena.alloc(Use::workspace, DType::f32, {1000}).data == lost.data);
    arena.rewind(mark);
    arena.release(kept);
    CHECK(arena.in_use() == 0);
}
