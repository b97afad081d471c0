// The classifier on a GPU: the library's products over weights and gradients rounded to the activation dtype.
#pragma once

#include "backend/backend.h"
#include "products.h"

namespace rn50::cuda {

class CudaLinear final : public Linear {
  public:
    /// `products` must outlive the layer.
    CudaLinear(const LinearDesc& desc, Products& products, cudaStream_t stream)
        : Linear(desc), products_(products), stream_(stream) {}
    int64_t workspace_bytes() const override;
    int64_t library_workspace_bytes() const override;

  protected:
    void do_forward(const Tensor& src, const Tensor& weights, const Tensor& bias, const Tensor& dst,
                    const Tensor& workspace) override;
    void do_backward(const Tensor& src, const Tensor& weights, const Tensor& diff_dst, const Tensor& diff_src,
                     const Tensor& diff_weights, const Tensor& diff_bias, Write write_weights,
                     const Tensor& workspace) override;

  private:
    struct Work;
    /// The tensor itself, or rounded to the activation dtype into `scratch`.
    const void* rounded(const Tensor& tensor, void* scratch);
    GemmShape product(int64_t m, int64_t n, int64_t k) const;

    Products& products_;
    cudaStream_t stream_;
};

}  // namespace rn50::cuda
