// A device that computes beside the host, without a GPU: every op of the CPU backend is left to a stream of the
// make-believe CUDA, a thread, and batches and results travel as cuda/ has them travel. Whoever reads a result too
// early, or overwrites what a step still reads, finds other numbers.
#pragma once

#include <omp.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "fake.h"
#include "upload.h"

namespace rn50::fake {

/// Pinned memory, which copies go from and to while the host goes on.
class Pinned final : public Memory {
  public:
    explicit Pinned(Memory& memory) : memory_(memory) {}
    void* allocate(int64_t bytes) override {
        void* const data = memory_.allocate(bytes);
        blocks_[static_cast<const char*>(data)] = bytes;
        return data;
    }
    void release(void* data, int64_t bytes) override {
        blocks_.erase(static_cast<const char*>(data));
        memory_.release(data, bytes);
    }
    void fill(void* data, int value, int64_t bytes) override { memory_.fill(data, value, bytes); }
    bool holds(const void* data) const {
        const auto after = blocks_.upper_bound(static_cast<const char*>(data));
        if (after == blocks_.begin()) return false;
        const auto block = std::prev(after);
        return static_cast<const char*>(data) < block->first + block->second;
    }

  private:
    Memory& memory_;
    std::map<const char*, int64_t> blocks_;
};

/// What happened in a run, in the host's order.
struct Journal {
    std::atomic<int> launched{0};  ///< steps, whole
    std::atomic<int> waits{0};     ///< of the host for all that the device was given
    std::vector<int> when_read;    ///< steps launched when the host began to wait for a result
    /// Steps launched whole when the device was through with one. By the stream's thread.
    std::vector<int> when_done;
};

class StreamBackend final : public Backend {
  public:
    /// Called on the device with what a norm has observed ("observed") and with the losses ("loss") of a step, counted
    /// from 0: the time that it takes is the step's, and what it writes is what the step has found.
    using Touch = std::function<void(int step, const std::string& what, const Tensor& tensor)>;

    explicit StreamBackend(Touch touch = {})
        : sound_(make_backend("cpu", 1)),
          pinned_(sound_->host_memory()),
          arena_(sound_->memory(), int64_t{64} << 20),
          ctx_{arena_},
          touch_(std::move(touch)) {
        cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking);
        later([] { omp_set_num_threads(1); });
    }
    ~StreamBackend() override {
        cudaStreamSynchronize(stream_);
        cudaStreamDestroy(stream_);
    }

    Journal journal;
    cudaStream_t stream() const { return stream_; }

    DeviceInfo info() const override { return sound_->info(); }
    Memory& memory() override { return sound_->memory(); }
    Memory& host_memory() override { return pinned_; }
    bool asynchronous() const override { return true; }
    std::unique_ptr<rn50::Conv> conv(const ConvDesc& desc) override { return std::make_unique<Conv>(*this, desc); }
    std::unique_ptr<rn50::Linear> linear(const LinearDesc& desc) override {
        return std::make_unique<Linear>(*this, desc);
    }
    std::unique_ptr<Upload> upload() override { return cuda::make_upload(stream_); }
    std::unique_ptr<Download> download() override { return std::make_unique<Results>(*this); }
    int64_t optimizer_table_bytes(const OptimizerDesc&) const override { return 0; }

  protected:
    void do_norm_from_batch(const Tensor& stats, int64_t count, const Tensor& gamma, const Tensor& beta, float eps,
                            const Norm& norm, const Tensor& observed) override {
        later([=] {
            sound_->norm_from_batch(ctx_, stats, count, gamma, beta, eps, norm, observed);
            touch("observed", observed);
        });
    }
    void do_norm_from_running(const Tensor& running, const Tensor& gamma, const Tensor& beta, float eps,
                              const Norm& norm) override {
        later([=] { sound_->norm_from_running(ctx_, running, gamma, beta, eps, norm); });
    }
    void do_norm_backward(const Tensor& sums, int64_t count, const Norm& norm, const Tensor& gamma,
                          const NormGradient& gradient, const Tensor& diff_gamma, const Tensor& diff_beta,
                          Write write) override {
        later([=] { sound_->norm_backward(ctx_, sums, count, norm, gamma, gradient, diff_gamma, diff_beta, write); });
    }
    void do_norm_update_running(const Tensor& observed, const Tensor& running, float momentum,
                                const Tensor& state) override {
        later([=] { sound_->norm_update_running(ctx_, observed, running, momentum, state); });
    }
    void do_merge_statistics(const Tensor& parts, int64_t count, const Tensor& stats) override {
        later([=] { sound_->merge_statistics(ctx_, parts, count, stats); });
    }
    void do_sum_parts(const Tensor& parts, const Tensor& sums) override {
        later([=] { sound_->sum_parts(ctx_, parts, sums); });
    }
    void do_join(const Activation& a, const Activation& b, const Tensor& dst) override {
        later([=] { sound_->join(ctx_, a, b, dst); });
    }
    void do_max_pool(const Activation& src, const Tensor& dst) override {
        later([=] { sound_->max_pool(ctx_, src, dst); });
    }
    int64_t max_pool_workspace_bytes(const Shape&) const override { return 0; }
    int64_t avg_pool_workspace_bytes(const Shape&) const override { return 0; }
    void do_max_pool_backward(const Activation& src, const Tensor& diff_dst, const DiffSrc& diff_src,
                              const Tensor&) override {
        later([=] { sound_->max_pool_backward(ctx_, src, diff_dst, diff_src); });
    }
    void do_avg_pool(const Tensor& src, const Tensor& dst) override {
        later([=] { sound_->avg_pool(ctx_, src, dst); });
    }
    void do_avg_pool_backward(const Tensor& diff_dst, const DiffSrc& diff_src, const Tensor&) override {
        later([=] { sound_->avg_pool_backward(ctx_, diff_dst, diff_src); });
    }
    void do_dropout(const Tensor& src, const Tensor& dst, float p, const DropoutKey& key) override {
        later([=] { sound_->dropout(ctx_, src, dst, p, key); });
    }
    void do_softmax_cross_entropy(const Tensor& logits, const Targets& targets, float smoothing, const Tensor& state,
                                  const Tensor& loss, const Tensor& diff_logits) override {
        later([=] {
            sound_->softmax_cross_entropy(ctx_, logits, targets, smoothing, state, loss, diff_logits);
            if (diff_logits) touch("loss", loss);
        });
    }
    void do_check_gradients(const Tensor& gradients, float clip_norm, const ScalePolicy& policy, const Tensor& divisor,
                            const Tensor& state, const Tensor&) override {
        later([=] { sound_->check_gradients(ctx_, gradients, clip_norm, policy, state, divisor); });
    }
    int64_t gradients_workspace_bytes() const override { return 0; }
    void do_optimize(const OptimizerDesc& desc, const Tensor& parameters, const Tensor& gradients,
                     const Tensor& moment1, const Tensor& moment2, const Tensor& state, const Tensor&) override {
        later([=] { sound_->optimize(ctx_, desc, parameters, gradients, moment1, moment2, state); });
    }
    void do_zero(const Tensor& dst) override {
        later([=] { sound_->zero(ctx_, dst); });
    }
    void do_convert(const Tensor& src, const Tensor& dst) override {
        later([=] { sound_->convert(ctx_, src, dst); });
    }
    int64_t augment_workspace_bytes(int64_t) const override { return 0; }
    void do_augment(const Tensor& src, const Tensor& changes, const Tensor& dst, const Tensor&) override {
        later([=] { sound_->augment(ctx_, src, changes, dst); });
    }
    /// As the runtime may: what is not pinned goes when all before it has gone.
    void do_copy_in(const void* host, const Tensor& dst) override {
        cudaMemcpyAsync(dst.data, host, static_cast<size_t>(dst.bytes()), cudaMemcpyHostToDevice, stream_);
        if (!pinned_.holds(host)) do_synchronize();
    }
    void do_copy_out(const Tensor& src, void* host) override {
        cudaMemcpyAsync(host, src.data, static_cast<size_t>(src.bytes()), cudaMemcpyDeviceToHost, stream_);
        do_synchronize();
    }
    void do_synchronize() override {
        ++journal.waits;
        cudaStreamSynchronize(stream_);
    }

  private:
    void touch(const std::string& what, const Tensor& tensor) const {
        if (touch_) touch_(static_cast<int>(journal.when_done.size()), what, tensor);
    }
    template <class Work>
    void later(Work work) const {
        push(stream_, std::move(work));
    }

    /// Those of cuda/, with notes of when they are used.
    class Results final : public Download {
      public:
        explicit Results(StreamBackend& on) : on_(on), download_(cuda::make_download(on.stream_)) {}
        void begin(const Tensor& src, void* host) override {
            if (!on_.pinned_.holds(host)) note_fault("a result that goes to memory which is not pinned");
            download_->begin(src, host);
            if (src.count() != int64_t{sizeof(StepState)} || src.dtype != DType::u8) return;
            ++on_.journal.launched;
            on_.later([&on = on_] { on.journal.when_done.push_back(on.journal.launched); });
        }
        void wait() override {
            on_.journal.when_read.push_back(on_.journal.launched);
            download_->wait();
        }

      private:
        StreamBackend& on_;
        std::unique_ptr<Download> download_;
    };

    class Conv final : public rn50::Conv {
      public:
        Conv(StreamBackend& on, const ConvDesc& desc) : rn50::Conv(desc), on_(on), sound_(on.sound_->conv(desc)) {}
        int64_t packed_bytes() const override { return sound_->packed_bytes(); }
        int64_t workspace_bytes(Phase) const override { return 0; }

      protected:
        void do_forward(const Activation& src, const Tensor& weights, const Tensor& dst, const Tensor& stats,
                        const Tensor&) override {
            on_.later([=] { sound_->forward(on_.ctx_, src, weights, dst, stats); });
        }
        void do_backward(const Activation& src, const Tensor& weights, const DiffDst& diff_dst, const DiffSrc* diff_src,
                         const Tensor& diff_weights, Write write_weights, const Tensor&) override {
            const std::optional<DiffSrc> kept = diff_src ? std::optional<DiffSrc>(*diff_src) : std::nullopt;
            on_.later([=] {
                sound_->backward(on_.ctx_, src, weights, diff_dst, kept ? &*kept : nullptr, diff_weights,
                                 write_weights);
            });
        }
        void do_pack(const Tensor& weights, const Norm& norm, const Tensor& packed, const Tensor&) override {
            on_.later([=] { sound_->pack(on_.ctx_, weights, norm, packed); });
        }
        void do_infer(const Activation& src, const Tensor& packed, const Tensor& residual, bool relu, const Tensor& dst,
                      const Tensor&) override {
            on_.later([=] { sound_->infer(on_.ctx_, src, packed, residual, relu, dst); });
        }

      private:
        StreamBackend& on_;
        std::unique_ptr<rn50::Conv> sound_;
    };

    class Linear final : public rn50::Linear {
      public:
        Linear(StreamBackend& on, const LinearDesc& desc)
            : rn50::Linear(desc), on_(on), sound_(on.sound_->linear(desc)) {}
        int64_t workspace_bytes() const override { return 0; }

      protected:
        void do_forward(const Tensor& src, const Tensor& weights, const Tensor& bias, const Tensor& dst,
                        const Tensor&) override {
            on_.later([=] { sound_->forward(on_.ctx_, src, weights, bias, dst); });
        }
        void do_backward(const Tensor& src, const Tensor& weights, const Tensor& diff_dst, const Tensor& diff_src,
                         const Tensor& diff_weights, const Tensor& diff_bias, Write write_weights,
                         const Tensor&) override {
            on_.later([=] {
                sound_->backward(on_.ctx_, src, weights, diff_dst, diff_src, diff_weights, diff_bias, write_weights);
            });
        }

      private:
        StreamBackend& on_;
        std::unique_ptr<rn50::Linear> sound_;
    };

    std::unique_ptr<Backend> sound_;
    Pinned pinned_;
    mutable Arena arena_;
    mutable Context ctx_;
    Touch touch_;
    cudaStream_t stream_ = nullptr;
};

}  // namespace rn50::fake
