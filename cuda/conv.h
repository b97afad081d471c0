// Convolutions on a GPU: the library's plain products, and this twin's own passes around them.
#pragma once

#include "backend/backend.h"
#include "backend/carver.h"
#include "products.h"

namespace rn50::cuda {

/// Tensor Cores take channels in multiples of 8 (16 bit, of pictures also 4) or 4 (f32). Where a convolution has others (the three colours
/// of the stem), sources, weights and results pass through padded copies in the workspace.
class CudaConv final : public Conv {
  public:
    /// `products` must outlive the convolution.
    CudaConv(const ConvDesc& desc, Products& products, cudaStream_t stream);
    bool takes_rounded_weights() const override { return dtype_ != DType::f32; }
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
    struct Forward;
    struct Backward;
    struct Infer;

    int64_t taps() const { return desc().kernel * desc().kernel; }
    bool padded_in() const { return in_ != desc().in_channels; }
    bool padded_out() const { return out_ != desc().out_channels; }
    int64_t src_bytes() const;
    int64_t dst_bytes() const;
    int64_t weights_bytes() const;
    /// The product's source: src itself, or what is pending applied (and padded) into `scratch`.
    const void* source(const Activation& src, void* scratch);
    /// The product's weights: the tensor itself, or converted (and padded) into `scratch`.
    const void* product_weights(const Tensor& weights, void* scratch);

    DType dtype_;
    cudaStream_t stream_;
    int64_t in_, out_;  ///< channels as the products see them
    std::unique_ptr<ConvProducts> products_;
};

}  // namespace rn50::cuda
