// Convolutions of the CPU twin. oneDNN computes them a few pictures at a time, so that what is applied before and
// gathered after stays in the cache: the raw tensors are read once and written once, as if it were fused.
#pragma once

#include <map>
#include <memory>

#include "backend/backend.h"
#include "backend/cpu/onednn.h"

namespace rn50::cpu {

class CpuConv final : public Conv {
  public:
    explicit CpuConv(const ConvDesc& desc);
    int64_t packed_bytes() const override;
    int64_t workspace_bytes(Phase phase) const override;
    int64_t library_workspace_bytes(Phase phase) const override;

  protected:
    void do_forward(const Activation& src, const Tensor& weights, const Tensor& dst, const Tensor& stats,
                    const Tensor& workspace) override;
    void do_backward(const Activation& src, const Tensor& weights, const DiffDst& diff_dst, const DiffSrc* diff_src,
                     const Tensor& diff_weights, Write write_weights, const Tensor& workspace) override;
    void do_pack(const Tensor& weights, const Norm& norm, const Tensor& packed, const Tensor& workspace) override;
    void do_infer(const Activation& src, const Tensor& packed, const Tensor& residual, bool relu, const Tensor& dst,
                  const Tensor& workspace) override;

  private:
    /// A primitive with its arguments bound once; execution only sets addresses.
    struct Bound {
        dnnl::primitive primitive;
        dnnl::memory src, weights, dst, bias, scratchpad;
        std::unordered_map<int, dnnl::memory> args;
        void run(void* src_data, void* weights_data, void* dst_data, void* bias_data, void* scratchpad_data);
    };
    struct Step {  ///< the three directions for one number of pictures
        Bound forward, backward_data, backward_weights;
    };
    struct Forward;
    struct Backward;

    ConvMemory memory(int64_t batch) const;
    void make_step(int64_t batch);
    Bound& inference(int64_t batch, bool relu, bool residual);
    int64_t inference_scratch() const;
    int64_t rows_in(int64_t batch) const { return batch * desc().height * desc().width; }
    int64_t rows_out(int64_t batch) const;

    int64_t chunk_;  ///< pictures at a time
    DType dtype_;
    dnnl::memory::desc plain_weights_;  ///< f32 {K, kh, kw, C}, as parameters lie
    dnnl::memory::desc forward_weights_, backward_weights_, diff_weights_, infer_weights_;
    Reorder to_forward_, to_backward_, to_infer_, from_diff_, add_diff_;  ///< of the weights
    int64_t scratchpad_bytes_ = 0, infer_scratchpad_bytes_ = 0;
    std::map<int64_t, Step> steps_;
    std::map<std::pair<int64_t, int>, Bound> inference_;
};

}  // namespace rn50::cpu
