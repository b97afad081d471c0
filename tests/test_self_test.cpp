// The self-test of doctor: a sound backend passes it, and each planted fault is found under the name of its op.
#include <doctest/doctest.h>

#include <algorithm>

#include "cli/self_test.h"
#include "op_support.h"

using namespace rn50;

namespace {

/// The memory of a device that can be lost: then every call fails.
class LosableMemory final : public Memory {
  public:
    explicit LosableMemory(Memory& sound) : sound_(sound) {}
    void* allocate(int64_t bytes) override {
        if (lost) throw Error(Exit::device, "cudaMalloc: an illegal memory access was encountered");
        return sound_.allocate(bytes);
    }
    void release(void* data, int64_t bytes) override { sound_.release(data, bytes); }
    void fill(void* data, int value, int64_t bytes) override { sound_.fill(data, value, bytes); }
    bool lost = false;

  private:
    Memory& sound_;
};

enum class Fault { wrong_number, lost_device };

/// Hands every op on to another backend, and spoils what the one named op writes, or is lost with it.
class Faulty final : public Backend {
  public:
    Faulty(Backend& sound, const std::string& broken, Fault fault = Fault::wrong_number)
        : sound_(sound),
          memory_(sound.memory()),
          broken_(broken),
          fault_(fault),
          arena_(sound.memory(), int64_t{32} << 20),
          ctx_{arena_} {}

    DeviceInfo info() const override {
        DeviceInfo info = sound_.info();
        info.bf16 = info.fp16 = info.tf32 = false;
        return info;
    }
    Memory& memory() override { return memory_; }
    Memory& host_memory() override { return sound_.host_memory(); }
    std::unique_ptr<rn50::Conv> conv(const ConvDesc& desc) override { return std::make_unique<Conv>(*this, desc); }
    std::unique_ptr<rn50::Linear> linear(const LinearDesc& desc) override {
        return std::make_unique<Linear>(*this, desc);
    }
    std::unique_ptr<Upload> upload() override { return sound_.upload(); }
    std::unique_ptr<Download> download() override { return sound_.download(); }
    int64_t optimizer_table_bytes(const OptimizerDesc&) const override { return 0; }

  protected:
    void do_norm_from_batch(const Tensor& stats, int64_t count, const Tensor& gamma, const Tensor& beta, float eps,
                            const Norm& norm, const Tensor& observed) override {
        sound_.norm_from_batch(ctx_, stats, count, gamma, beta, eps, norm, observed);
        spoil("norm from batch", norm.shift);
    }
    void do_norm_from_running(const Tensor& running, const Tensor& gamma, const Tensor& beta, float eps,
                              const Norm& norm) override {
        sound_.norm_from_running(ctx_, running, gamma, beta, eps, norm);
        spoil("norm from running", norm.scale);
    }
    void do_norm_backward(const Tensor& sums, int64_t count, const Norm& norm, const Tensor& gamma,
                          const NormGradient& gradient, const Tensor& diff_gamma, const Tensor& diff_beta,
                          Write write) override {
        sound_.norm_backward(ctx_, sums, count, norm, gamma, gradient, diff_gamma, diff_beta, write);
        spoil("norm backward", diff_beta);
    }
    void do_norm_update_running(const Tensor& observed, const Tensor& running, float momentum,
                                const Tensor& state) override {
        sound_.norm_update_running(ctx_, observed, running, momentum, state);
        spoil("norm update running", running);
    }
    void do_merge_statistics(const Tensor& parts, int64_t count, const Tensor& stats) override {
        sound_.merge_statistics(ctx_, parts, count, stats);
        spoil("norm merge statistics", stats);
    }
    void do_sum_parts(const Tensor& parts, const Tensor& sums) override {
        sound_.sum_parts(ctx_, parts, sums);
        spoil("norm sum parts", sums);
    }
    void do_join(const Activation& a, const Activation& b, const Tensor& dst) override {
        sound_.join(ctx_, a, b, dst);
        spoil("join", dst);
    }
    void do_max_pool(const Activation& src, const Tensor& dst) override {
        sound_.max_pool(ctx_, src, dst);
        spoil("max pool", dst);
    }
    int64_t max_pool_workspace_bytes(const Shape&) const override { return 0; }
    int64_t avg_pool_workspace_bytes(const Shape&) const override { return 0; }
    void do_max_pool_backward(const Activation& src, const Tensor& diff_dst, const DiffSrc& diff_src,
                              const Tensor&) override {
        sound_.max_pool_backward(ctx_, src, diff_dst, diff_src);
        spoil("max pool backward", diff_src.diff);
    }
    void do_avg_pool(const Tensor& src, const Tensor& dst) override {
        sound_.avg_pool(ctx_, src, dst);
        spoil("average pool", dst);
    }
    void do_avg_pool_backward(const Tensor& diff_dst, const DiffSrc& diff_src, const Tensor&) override {
        sound_.avg_pool_backward(ctx_, diff_dst, diff_src);
        spoil("average pool backward", diff_src.norms[1].sums);
    }
    void do_dropout(const Tensor& src, const Tensor& dst, float p, const DropoutKey& key) override {
        sound_.dropout(ctx_, src, dst, p, key);
        spoil("dropout", dst);
    }
    void do_softmax_cross_entropy(const Tensor& logits, const Targets& targets, float smoothing, const Tensor& state,
                                  const Tensor& loss, const Tensor& diff_logits) override {
        sound_.softmax_cross_entropy(ctx_, logits, targets, smoothing, state, loss, diff_logits);
        spoil("softmax cross-entropy", diff_logits);
    }
    int64_t gradients_workspace_bytes() const override { return 0; }
    void do_check_gradients(const Tensor& gradients, float clip_norm, const ScalePolicy& policy, const Tensor& divisor,
                            const Tensor& state, const Tensor&) override {
        sound_.check_gradients(ctx_, gradients, clip_norm, policy, state, divisor);
        if (broken_ == "check gradients") static_cast<StepState*>(state.data)->skip = 0;
    }
    void do_optimize(const OptimizerDesc& desc, const Tensor& parameters, const Tensor& gradients,
                     const Tensor& moment1, const Tensor& moment2, const Tensor& state, const Tensor&) override {
        sound_.optimize(ctx_, desc, parameters, gradients, moment1, moment2, state);
        spoil(desc.kind == OptimizerDesc::Kind::adamw ? "AdamW" : "SGD", moment1);
    }
    void do_zero(const Tensor& dst) override {
        sound_.zero(ctx_, dst);
        spoil("zero and copy", dst);
    }
    void do_convert(const Tensor& src, const Tensor& dst) override {
        sound_.convert(ctx_, src, dst);
        if (dst.dtype == DType::f32) spoil("convert", dst);
    }
    int64_t augment_workspace_bytes(int64_t) const override { return 0; }
    void do_augment(const Tensor& src, const Tensor& changes, const Tensor& dst, const Tensor&) override {
        sound_.augment(ctx_, src, changes, dst);
        if (broken_ == "augment") ++dst.as<uint8_t>()[dst.count() - 1];
    }
    void do_copy_in(const void* host, const Tensor& dst) override { sound_.copy_in(ctx_, host, dst); }
    void do_copy_out(const Tensor& src, void* host) override { sound_.copy_out(ctx_, src, host); }
    void do_synchronize() override { sound_.synchronize(ctx_); }

  private:
    /// Only one number of the last element, and not much: by a 64th.
    void spoil(const std::string& op, const Tensor& tensor) {
        if (op != broken_) return;
        if (fault_ == Fault::lost_device) {
            memory_.lost = true;
            throw Error(Exit::device, "wait for the GPU: an illegal memory access was encountered");
        }
        float& last = tensor.as<float>()[tensor.count() - 1];
        last = last * 1.015625f + 0.01f;
    }

    class Conv final : public rn50::Conv {
      public:
        Conv(Faulty& on, const ConvDesc& desc)
            : rn50::Conv(desc),
              on_(on),
              sound_(on.sound_.conv(desc)),
              name_(cat("conv ", desc.kernel, "x", desc.kernel, desc.kernel == 7 ? " of a picture" : "",
                        desc.kernel == 3 && desc.stride == 2 ? " stride 2" : "")) {}
        int64_t packed_bytes() const override { return sound_->packed_bytes(); }
        int64_t workspace_bytes(Phase) const override { return 0; }

      protected:
        void do_forward(const Activation& src, const Tensor& weights, const Tensor& dst, const Tensor& stats,
                        const Tensor&) override {
            sound_->forward(on_.ctx_, src, weights, dst, stats);
            on_.spoil(name_, stats);
        }
        void do_backward(const Activation& src, const Tensor& weights, const DiffDst& diff_dst, const DiffSrc* diff_src,
                         const Tensor& diff_weights, Write write_weights, const Tensor&) override {
            sound_->backward(on_.ctx_, src, weights, diff_dst, diff_src, diff_weights, write_weights);
            on_.spoil(name_ + " backward", diff_weights);
        }
        void do_pack(const Tensor& weights, const Norm& norm, const Tensor& packed, const Tensor&) override {
            sound_->pack(on_.ctx_, weights, norm, packed);
        }
        void do_infer(const Activation& src, const Tensor& packed, const Tensor& residual, bool relu, const Tensor& dst,
                      const Tensor&) override {
            sound_->infer(on_.ctx_, src, packed, residual, relu, dst);
            on_.spoil(name_ + " folded", dst);
        }

      private:
        Faulty& on_;
        std::unique_ptr<rn50::Conv> sound_;
        std::string name_;
    };

    class Linear final : public rn50::Linear {
      public:
        Linear(Faulty& on, const LinearDesc& desc) : rn50::Linear(desc), on_(on), sound_(on.sound_.linear(desc)) {}
        int64_t workspace_bytes() const override { return 0; }

      protected:
        void do_forward(const Tensor& src, const Tensor& weights, const Tensor& bias, const Tensor& dst,
                        const Tensor&) override {
            sound_->forward(on_.ctx_, src, weights, bias, dst);
            on_.spoil("linear", dst);
        }
        void do_backward(const Tensor& src, const Tensor& weights, const Tensor& diff_dst, const Tensor& diff_src,
                         const Tensor& diff_weights, const Tensor& diff_bias, Write write_weights,
                         const Tensor&) override {
            sound_->backward(on_.ctx_, src, weights, diff_dst, diff_src, diff_weights, diff_bias, write_weights);
            on_.spoil("linear backward", diff_bias);
        }

      private:
        Faulty& on_;
        std::unique_ptr<rn50::Linear> sound_;
    };

    Backend& sound_;
    LosableMemory memory_;
    std::string broken_;
    Fault fault_;
    Arena arena_;
    Context ctx_;
};

std::vector<doctor::OpResult> test_beside_cpu(Backend& device, Backend& reference) {
    return doctor::self_test(device, reference, [](const doctor::OpResult&) {});
}

}  // namespace

TEST_CASE("self-test: every backend that works here passes beside the CPU") {
    const std::unique_ptr<Backend> cpu = make_backend("cpu");
    test::for_each_fp32_rig([&](test::Rig& rig) {
        const DeviceInfo info = rig.backend.info();
        size_t wide = 0, narrow = 0;
        for (const doctor::OpResult& result : test_beside_cpu(rig.backend, *cpu)) {
            INFO(cat(info.kind, " ", name_of(result.precision), " ", result.op, ": ", result.worst));
            CHECK(result.fault == "");
            CHECK(result.worst <= result.tolerance);
            // Rounding to 16 bits shows: the op did run in that precision.
            if (result.precision == Precision::bf16 && result.op == "join") CHECK(result.worst > 1e-4);
            ++(result.precision == Precision::fp32 ? wide : narrow);
        }
        CHECK(wide == 30);
        CHECK(narrow == 17 * static_cast<size_t>(info.bf16 + info.fp16 + info.tf32));
    });
}

TEST_CASE("self-test: a fault in any op is found, and in no other") {
    const std::unique_ptr<Backend> cpu = make_backend("cpu");
    std::vector<std::string> ops;
    for (const doctor::OpResult& result : test_beside_cpu(*cpu, *cpu))
        if (result.precision == Precision::fp32) ops.push_back(result.op);
    for (const std::string& op : ops) {
        Faulty faulty(*cpu, op);
        std::vector<std::string> found;
        for (const doctor::OpResult& result : test_beside_cpu(faulty, *cpu))
            if (!result.fault.empty()) found.push_back(result.op);
        INFO("planted in ", op);
        CHECK(found == std::vector<std::string>{op});
    }
}

TEST_CASE("self-test: a device that is lost is said to be, with the op that lost it, and no further op is tried") {
    const std::unique_ptr<Backend> cpu = make_backend("cpu");
    Faulty faulty(*cpu, "join", Fault::lost_device);
    CHECK(doctor::answers(faulty));
    const std::vector<doctor::OpResult> results = test_beside_cpu(faulty, *cpu);
    CHECK(results.back().op == "join");
    CHECK(results.back().fault == "wait for the GPU: an illegal memory access was encountered");
    CHECK(std::count_if(results.begin(), results.end(), [](const auto& result) { return result.device_lost; }) == 1);
    CHECK(results.back().device_lost);
    CHECK_FALSE(doctor::answers(faulty));
}

TEST_CASE("rigs: after a device was lost, every case says where") {
    const std::unique_ptr<Backend> cpu = make_backend("cpu");
    Faulty faulty(*cpu, "join", Fault::lost_device);
    const auto join = [](test::Rig& rig) {
        const Tensor tensor = rig.rubbish(DType::f32, {1, 2, 2, 4});
        rig.backend.join(rig.ctx, {tensor, {}, false}, {tensor, {}, false}, rig.rubbish(DType::f32, {1, 2, 2, 4}));
    };
    int run = 0;
    const auto nothing = [&](test::Rig&) { ++run; };
    test::run_rig(faulty, Precision::fp32, nothing);
    CHECK_THROWS_AS(test::run_rig(faulty, Precision::fp32, [](test::Rig&) { throw Error(Exit::device, "small"); }),
                    Error);
    test::run_rig(faulty, Precision::fp32, nothing);  // an error alone loses no device
    CHECK(run == 2);
    CHECK_THROWS_WITH(test::run_rig(faulty, Precision::fp32, join),
                      "wait for the GPU: an illegal memory access was encountered");
    CHECK_THROWS_WITH(
        test::run_rig(faulty, Precision::fp32, nothing),
        "not run: the device was lost in \"rigs: after a device was lost, every case says where\" at cpu fp32");
    CHECK(run == 2);
    CHECK_NOTHROW(test::run_rig(*cpu, Precision::fp32, nothing));
}

TEST_CASE("self-test: a device beside itself is said to be only repeated in fp32") {
    const auto info = [](const char* kind, const char* name) {
        DeviceInfo device;
        device.kind = kind;
        device.name = name;
        return device;
    };
    const DeviceInfo gpu = info("cuda", "NVIDIA H200"), cpu = info("cpu", "AMD EPYC");
    CHECK(doctor::self_test_heading(gpu, cpu) == "NVIDIA H200, beside AMD EPYC in fp32");
    CHECK(doctor::self_test_heading(gpu, gpu) ==
          "NVIDIA H200, beside itself in fp32, for this build has no CPU backend: there fp32 is only repeated, not "
          "compared with anything else");
    CHECK(doctor::self_test_heading(cpu, cpu) ==
          "AMD EPYC, beside itself in fp32: there fp32 is only repeated, not compared with anything else");
}
