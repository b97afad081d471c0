// The classifier: one small matrix product, by oneDNN's f32 gemm. In 16-bit precisions its inputs are rounded first, so
// the products are those of 16-bit numbers, summed in f32.
#pragma once

#include "backend/backend.h"

namespace rn50::cpu {

class CpuLinear final : public Linear {
  public:
    explicit CpuLinear(const LinearDesc& desc) : Linear(desc) {}
    int64_t workspace_bytes() const override;

  protected:
    void do_forward(const Tensor& src, const Tensor& weights, const Tensor& bias, const Tensor& dst,
                    const Tensor& workspace) override;
    void do_backward(const Tensor& src, const Tensor& weights, const Tensor& diff_dst, const Tensor& diff_src,
                     const Tensor& diff_weights, const Tensor& diff_bias, Write write_weights,
                     const Tensor& workspace) override;
};

}  // namespace rn50::cpu
