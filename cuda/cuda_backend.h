// The CUDA twin of src/backend/cpu: cuDNN and cuBLASLt for products, own kernels for everything else, on one stream.
#pragma once

#include <memory>

#include "backend/backend.h"
#include "driver_meter.h"
#include "products.h"

namespace rn50::cuda {

class CudaBackend final : public Backend {
  public:
    /// Takes GPU `device` (CUDA's number), whose `meter` showed `free_before` before this process took anything of it.
    /// Without a meter what CUDA's context takes is not seen. Throws Error(Exit::device) when it cannot.
    explicit CudaBackend(int device, DriverMeter meter = nullptr, int64_t free_before = 0);
    ~CudaBackend() override;
    DeviceInfo info() const override;
    Memory& memory() override;
    Memory& host_memory() override;
    std::unique_ptr<Conv> conv(const ConvDesc& desc) override;
    std::unique_ptr<Linear> linear(const LinearDesc& desc) override;
    std::unique_ptr<PictureDecoders> picture_decoders(std::string& why) override;
    std::vector<Pass> passes(const PassTensors& tensors) override;
    std::unique_ptr<Upload> upload() override;
    std::unique_ptr<Download> download() override;
    bool asynchronous() const override { return true; }
    std::unique_ptr<Recording> record(const std::function<void()>& work, std::string& why) override;
    MemoryTaken memory_taken() const override;
    int64_t optimizer_table_bytes(const OptimizerDesc& desc) const override;
    /// On which all of its work goes.
    cudaStream_t stream() const { return stream_; }

  protected:
    void do_norm_from_batch(const Tensor& stats, int64_t count, const Tensor& gamma, const Tensor& beta, float eps,
                            const Norm& norm, const Tensor& observed) override;
    void do_norm_from_running(const Tensor& running, const Tensor& gamma, const Tensor& beta, float eps,
                              const Norm& norm) override;
    void do_norm_backward(const Tensor& sums, int64_t count, const Norm& norm, const Tensor& gamma,
                          const NormGradient& gradient, const Tensor& diff_gamma, const Tensor& diff_beta,
                          Write write) override;
    void do_norm_update_running(const Tensor& observed, const Tensor& running, float momentum,
                                const Tensor& state) override;
    void do_merge_statistics(const Tensor& parts, int64_t count, const Tensor& stats) override;
    void do_sum_parts(const Tensor& parts, const Tensor& sums) override;
    void do_join(const Activation& a, const Activation& b, const Tensor& dst) override;
    void do_max_pool(const Activation& src, const Tensor& dst) override;
    int64_t max_pool_workspace_bytes(const Shape& src) const override;
    int64_t avg_pool_workspace_bytes(const Shape& src) const override;
    void do_max_pool_backward(const Activation& src, const Tensor& diff_dst, const DiffSrc& diff_src,
                              const Tensor& workspace) override;
    void do_avg_pool(const Tensor& src, const Tensor& dst) override;
    void do_avg_pool_backward(const Tensor& diff_dst, const DiffSrc& diff_src, const Tensor& workspace) override;
    void do_dropout(const Tensor& src, const Tensor& dst, float p, const DropoutKey& key) override;
    void do_softmax_cross_entropy(const Tensor& logits, const Targets& targets, float smoothing, const Tensor& state,
                                  const Tensor& loss, const Tensor& diff_logits) override;
    int64_t gradients_workspace_bytes() const override;
    void do_check_gradients(const Tensor& gradients, float clip_norm, const ScalePolicy& policy, const Tensor& divisor,
                            const Tensor& state, const Tensor& workspace) override;
    void do_prepare_optimizer(const OptimizerDesc& desc, const Tensor& table) override;
    void do_optimize(const OptimizerDesc& desc, const Tensor& parameters, const Tensor& gradients,
                     const Tensor& moment1, const Tensor& moment2, const Tensor& state, const Tensor& table) override;
    int64_t augment_workspace_bytes(int64_t pictures) const override;
    void do_augment(const Tensor& src, const Tensor& changes, const Tensor& dst, const Tensor& workspace) override;
    void do_zero(const Tensor& dst) override;
    void do_convert(const Tensor& src, const Tensor& dst) override;
    void do_copy_in(const void* host, const Tensor& dst) override;
    void do_copy_out(const Tensor& src, void* host) override;
    void do_synchronize() override;

  private:
    int device_;
    DriverMeter meter_;
    int64_t free_before_;
    DeviceInfo info_;  // without the memory, which changes
    cudaStream_t stream_ = nullptr;
    std::unique_ptr<Products> products_;
};

}  // namespace rn50::cuda
