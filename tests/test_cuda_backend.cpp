// What the CUDA backend promises beyond its ops: the loss scale's path, memory at full size, runs on the emulator.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "base/pixel_ops.h"
#include "environment.h"
#include "op_support.h"
#include "simt_backend.h"
#include "train/trainer.h"

using namespace rn50;
using namespace rn50::test;

TEST_CASE("the loss scale follows torch.amp.GradScaler through a recorded sequence of overflows") {
    // Recorded from torch.amp.GradScaler("cpu", init_scale=65536, growth_interval=5), PyTorch 2.15: 1 is a step whose
    // gradients were infinite; log2 of the scale and the growth tracker after each.
    const std::string overflows = "0101001010110010000011111100000001100000000000000001001010000000";
    const int log2_scale[] = {16, 15, 15, 14, 14, 14, 13, 13, 12, 12, 11, 10, 10, 10, 9, 9, 9, 9, 9, 10, 9, 8,
                              7,  6,  5,  4,  4,  4,  4,  4,  5,  5,  5,  4,  3,  3,  3, 3, 3, 4, 4, 4,  4, 4,
                              5,  5,  5,  5,  5,  6,  6,  5,  5,  5,  4,  4,  3,  3,  3, 3, 3, 4, 4, 4};
    const int tracker[] = {1, 0, 1, 0, 1, 2, 0, 1, 0, 1, 0, 0, 1, 2, 0, 1, 2, 3, 4, 0, 0, 0,
                           0, 0, 0, 0, 1, 2, 3, 4, 0, 1, 2, 0, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4,
                           0, 1, 2, 3, 4, 0, 1, 0, 1, 2, 0, 1, 0, 1, 2, 3, 4, 0, 1, 2};
    for_each_fp32_rig([&](Rig& rig) {
        ScalePolicy policy;
        policy.dynamic = true;
        policy.interval = 5;
        StepState start;
        start.loss_scale = 65536;
        const Tensor state = rig.put(start), good = rig.put_f32(uniform({37}, 1));
        Array broken = uniform({37}, 1);
        broken[36] = std::numeric_limits<double>::infinity();
        const Tensor bad = rig.put_f32(broken);
        int64_t steps = 0;
        int in_row = 0;
        for (size_t i = 0; i < overflows.size(); ++i) {
            const bool overflow = overflows[i] == '1';
            steps += !overflow;
            rig.backend.check_gradients(rig.ctx, overflow ? bad : good, 0, policy, state);
            const StepState now = rig.get_state(state);
            CHECK(now.loss_scale == std::ldexp(1.0f, log2_scale[i]));
            CHECK(now.good_steps == tracker[i]);
            CHECK((now.skip != 0) == overflow);
            CHECK(now.t == steps);
            in_row = overflow ? in_row + 1 : 0;  // 50 of them end a run
            CHECK(now.skipped_in_row == in_row);
        }
    });
}

TEST_CASE("memory that is not given: no room is one thing, a lost GPU another") {
    const std::unique_ptr<Backend> backend = make_emulated_backend();
    const auto refusal = [](Memory& memory, int cuda_error) {
        fail_next_allocation(cuda_error);
        try {
            memory.release(memory.allocate(int64_t{300} << 20), int64_t{300} << 20);
        } catch (const Error& error) {
            CHECK(error.code() == Exit::device);
            return cat(error.what(), " -> ", error.remedy());
        }
        return std::string("memory");
    };
    const auto has = [](const std::string& text, const char* words) { return text.find(words) != std::string::npos; };
    constexpr int no_error = 0, out_of_memory = 2, memory_fault = 214;
    CHECK(refusal(backend->memory(), no_error) == "memory");
    const std::string taken = refusal(backend->memory(), out_of_memory);
    CHECK(has(taken, "no room for 300 MiB of GPU memory: 8192 of 8192 MiB are free"));
    CHECK(has(taken, "another program has probably taken memory"));
    CHECK(last_cuda_error() == no_error);  // the next launch has no part in it
    const std::string lost = refusal(backend->memory(), memory_fault);
    CHECK(has(lost, "cudaMalloc: CUDA error 214"));
    CHECK_FALSE(has(lost, "--batch-size"));
    CHECK(has(refusal(backend->host_memory(), out_of_memory), "no room for 300 MiB of pinned host memory"));
    CHECK(last_cuda_error() == no_error);
    CHECK(has(refusal(backend->host_memory(), memory_fault), "cudaMallocHost: CUDA error 214"));
}

TEST_CASE("the loss scale never grows to infinity") {
    for_each_fp32_rig([](Rig& rig) {
        ScalePolicy policy;
        policy.dynamic = true;
        policy.interval = 1;
        StepState start;
        start.loss_scale = std::ldexp(1.0f, 127);
        const Tensor state = rig.put(start);
        for (int i = 0; i < 3; ++i) {
            rig.backend.check_gradients(rig.ctx, rig.put_f32(Array({5})), 0, policy, state);
            CHECK(rig.get_state(state).loss_scale == std::ldexp(1.0f, 127));  // as GradScaler's
        }
    });
}

namespace {

TrainerOptions at_full_size(int64_t image_size, int64_t batch, bool lean) {
    TrainerOptions options;
    options.net.classes = 200;
    options.net.image_size = image_size;
    options.net.batch = batch;
    options.net.precision = Precision::fp16;
    options.net.lean = lean;
    return options;
}

int64_t activations(const MemoryPlan& plan) {
    return plan.by_use[static_cast<size_t>(Use::activations)];
}

constexpr double gib = double{1 << 30};

}  // namespace

TEST_CASE("at 224 px and batch 256 in fp16 the stored activations take 8.5 GiB at most, lean 7.2") {
    const std::unique_ptr<Backend> backend = make_emulated_backend();
    CHECK(static_cast<double>(activations(plan_memory(*backend, at_full_size(224, 256, false)))) <= 8.5 * gib);
    CHECK(static_cast<double>(activations(plan_memory(*backend, at_full_size(224, 256, true)))) <= 7.2 * gib);
}

namespace {

TrainerOptions small_training(Precision precision) {
    TrainerOptions options;
    options.net.model = "resnet18";
    options.net.classes = 5;
    options.net.image_size = 32;
    options.net.batch = 2;
    options.net.precision = precision;
    options.net.accumulate = 2;
    options.mixed = options.changes = true;
    options.class_weights = {1, 2, 3, 4, 5};
    return options;
}

}  // namespace

TEST_CASE("the device holds what the plan says, to the byte, and nothing is taken after the set-up" *
          doctest::skip(!trains_emulated())) {
    const ArenaMode shared("shared");
    for (const OptimizerDesc::Kind kind : {OptimizerDesc::Kind::adamw, OptimizerDesc::Kind::sgd}) {
        const int64_t idle = emulated_bytes();
        const std::unique_ptr<Backend> backend = make_emulated_backend();
        TrainerOptions options = small_training(Precision::fp16);
        options.optimizer.kind = kind;
        const MemoryPlan plan = plan_memory(*backend, options);
        CHECK(emulated_bytes() == idle);  // a plan takes nothing
        Arena arena(backend->memory(), plan.peak);
        Trainer trainer(*backend, arena, options);
        set_emulated_library_bytes(123456789);
        trainer.rehearse();
        trainer.initialize();
        CHECK(emulated_bytes() - idle == plan.total());
        const int64_t taken = emulated_allocations();
        const std::vector<uint8_t> pictures(2 * 32 * 32 * 3, 7);
        const std::vector<int32_t> labels{3, 1};
        const std::vector<pixel::Changes> changes(2);
        for (int64_t step = 0; step < 2; ++step)
            for (int64_t part = 0; part < 2; ++part)
                trainer.step({pictures.data(), labels.data(), labels.data(), 0.5f, changes.data()}, step, 1e-3, part);
        trainer.result();
        CHECK(emulated_allocations() == taken);
        CHECK(arena.plan().peak == plan.peak);
        CHECK(arena.plan().by_use == plan.by_use);

        const MemoryTaken beside = backend->memory_taken();
        CHECK(beside.beside.empty());
        CHECK(beside.libraries.name == "CUDA's libraries");  // the emulator has no meter of the driver
        CHECK(beside.libraries.bytes == 123456789);
        set_emulated_library_bytes(0);
    }
}

TEST_CASE("the plan names the workspace of the libraries") {
    const std::unique_ptr<Backend> backend = make_emulated_backend();
    const ConvDesc desc{"conv", 2, 8, 8, 16, 16, 3, 1, 1, DType::f16, DType::f16};
    const auto conv = backend->conv(desc);
    CHECK(conv->library_workspace_bytes(Conv::Phase::forward) == 512);  // as tests/simt_products.cpp has it
    CHECK(conv->library_workspace_bytes(Conv::Phase::infer) == 512);
    CHECK(conv->library_workspace_bytes(Conv::Phase::backward) == 0);
    CHECK(backend->linear({"fc", 2, 16, 5, DType::f16})->library_workspace_bytes() == 256);
    Arena arena;
    Context ctx{arena, true};
    const auto tensor = [&](DType dtype, const Shape& shape) { return arena.alloc(Use::activations, dtype, shape); };
    conv->forward(ctx, {tensor(DType::f16, desc.src_shape()), {}}, tensor(DType::f32, desc.weights_shape()),
                  tensor(DType::f16, desc.dst_shape()), {});
    CHECK(arena.plan().by_use[static_cast<size_t>(Use::library_workspace)] == 512);
    CHECK(arena.plan().by_use[static_cast<size_t>(Use::workspace)] > 0);
}

TEST_CASE("a rehearsal leaves nothing behind in what a run computes" * doctest::skip(!trains_emulated())) {
    for_each_fp32_rig([](Rig& rig) {
        const TrainerOptions options = small_training(Precision::fp32);
        const auto trained = [&](bool rehearsed) {
            Arena arena(rig.backend.memory(), plan_memory(rig.backend, options).peak);
            Trainer trainer(rig.backend, arena, options);
            if (rehearsed) trainer.rehearse();
            trainer.initialize();
            const std::vector<uint8_t> pictures(2 * 32 * 32 * 3, 7);
            const std::vector<int32_t> labels{3, 1};
            for (int64_t part = 0; part < 2; ++part)
                trainer.step({pictures.data(), labels.data(), nullptr, 1}, 0, 1e-3, part);
            const StepResult result = trainer.result();
            CHECK(result.state.t == 1);
            std::vector<float> values(static_cast<size_t>(trainer.net().state().parameters.count()));
            rig.backend.copy_out(trainer.context(), trainer.net().state().parameters, values.data());
            values.push_back(static_cast<float>(result.loss));
            return values;
        };
        CHECK(trained(true) == trained(false));
    });
}

TEST_CASE("1024 px trains in fp16 at batch 24 within 24 GB, with 1 GiB left to the libraries") {
    const std::unique_ptr<Backend> backend = make_emulated_backend();
    const MemoryPlan plan = plan_memory(*backend, at_full_size(1024, 24, false));
    INFO(plan.table());
    CHECK(static_cast<double>(plan.peak) + gib <= 24e9);
}
