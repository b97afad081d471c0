// What the CUDA twin leaves to libraries: convolutions (cuDNN) and matrix products (cuBLASLt), over plain dense tensors
// in device memory. Everything pending, padded, rounded or gathered around them is done by the twin's own kernels. The
// emulator of tests/ has naive ones.
#pragma once

#include <limits>
#include <memory>
#include <string>

#include "portable.h"
#include "tensor/tensor.h"

namespace rn50::cuda {

/// A square convolution, NHWC: x {N, H, W, C}, w {K, kernel, kernel, C}, y {N, OH, OW, K}, all of `dtype`, sums in f32.
/// Channel counts are multiples of 4 (f32) or 8 (16 bit).
struct ConvShape {
    std::string name;  ///< for messages: "layer1.0.conv1"
    int64_t batch = 0, height = 0, width = 0, in_channels = 0, out_channels = 0;
    int64_t filled_channels = std::numeric_limits<int64_t>::max();  ///< of x: those behind them are zeros
    int64_t kernel = 1, stride = 1, pad = 0;
    DType dtype = DType::f32;   ///< f32, f16, bf16
    bool tf32 = false;          ///< f32 products may round their factors to tf32; never otherwise
    bool training = true;       ///< false: only forward() will be called
    bool backward_data = true;  ///< false: backward_data() will not be called (the first layer)

    int64_t out_height() const { return (height + 2 * pad - kernel) / stride + 1; }
    int64_t out_width() const { return (width + 2 * pad - kernel) / stride + 1; }
};

/// One convolution, prepared. All pointers are device memory, aligned to 128 bytes; `workspace` has the phase's bytes.
/// Outputs are overwritten. Work goes to the stream that Products was made for.
class ConvProducts {
  public:
    virtual ~ConvProducts() = default;
    enum class Phase { forward, backward_data, backward_weights };
    virtual int64_t workspace_bytes(Phase phase) const = 0;
    /// The channels that x and w must have: the shape's, or 4 of 8 where no more are filled and the library is faster so.
    virtual int64_t in_channels() const = 0;
    /// The dtype of dw: f32, or the shape's dtype where the library has no wider one that is as quick.
    virtual DType diff_weights_dtype() const = 0;

    /// Whether forward() takes this batch: the shape's always, a smaller one where the library has a plan for it in
    /// the workspace of the whole.
    virtual bool takes(int64_t batch) = 0;
    /// y = conv(x, w) for the first `batch` pictures.
    virtual void forward(int64_t batch, const void* x, const void* w, void* y, void* workspace) = 0;
    /// dx = conv^T(dy, w)
    virtual void backward_data(const void* dy, const void* w, void* dx, void* workspace) = 0;
    /// dw = sum over pictures and pixels of x * dy
    virtual void backward_weights(const void* x, const void* dy, void* dw, void* workspace) = 0;
};

/// C {m, n} = op(A) op(B) + beta C, row-major and dense: A is {m, k}, or {k, m} when transposed; B {k, n} or {n, k}.
struct GemmShape {
    bool transpose_a = false, transpose_b = false;
    int64_t m = 0, n = 0, k = 0;
    DType ab = DType::f32;  ///< of A and B
    DType c = DType::f32;   ///< of C: f32, or ab
    bool tf32 = false;
};

/// The libraries, bound to one stream.
class Products {
  public:
    virtual ~Products() = default;
    /// "cuDNN 9.13.0, cuBLASLt 13.0.2"
    virtual std::string name() const = 0;
    /// Throws Error(Exit::device) when the library has no deterministic plan of this precision for the shape.
    virtual std::unique_ptr<ConvProducts> conv(const ConvShape& shape) = 0;
    virtual int64_t gemm_workspace_bytes() const = 0;
    virtual void gemm(const GemmShape& shape, const void* a, const void* b, float beta, void* c, void* workspace) = 0;
};

/// cuDNN and cuBLASLt on the current device (libraries.cpp).
std::unique_ptr<Products> make_products(cudaStream_t stream);

}  // namespace rn50::cuda
