#include "conv.h"

#include "layout.h"
#include "tiles.h"

namespace rn50::cuda {

namespace {

ConvShape product_shape(const ConvDesc& desc, int64_t in, int64_t out) {
    ConvShape shape;
    shape.name = desc.name;
    shape.batch = desc.batch;
    shape.height = desc.height;
    shape.width = desc.width;
    shape.in_channels = in;
    shape.filled_channels = desc.in_channels;
    shape.out_channels = out;
    shape.kernel = desc.kernel;
    shape.stride = desc.stride;
    shape.pad = desc.pad;
    shape.dtype = desc.dtype;
    shape.tf32 = desc.tf32;
    shape.training = desc.training;
    shape.backward_data = desc.src_dtype != DType::u8;  // nobody asks for the gradient of a picture
    return shape;
}

int64_t rows_of(const Tensor& tensor) {
    return tensor.count() / tensor.shape[tensor.shape.rank() - 1];
}

}  // namespace

// --- workspaces: the same carving counts at set-up and places at run time

struct CudaConv::Forward {
    void *src, *weights, *dst, *sums, *library;
    Forward(const CudaConv& conv, Carver& carver)
        : src(carver.take(conv.src_bytes())),
          weights(carver.take(conv.weights_bytes())),
          dst(carver.take(conv.padded_out() ? conv.dst_bytes() : 0)),
          sums(carver.take(stats_workspace_bytes(conv.desc().dst_shape().count() / conv.desc().out_channels,
                                                 conv.desc().out_channels))),
          library(carver.take(conv.library_workspace_bytes(Conv::Phase::forward))) {}
};

struct CudaConv::Backward {
    void *d_raw, *src_or_g, *weights, *diff_weights, *sums, *library;
    // The source is needed for the weights' gradient alone, and g comes after it: they share memory.
    Backward(const CudaConv& conv, Carver& carver)
        : d_raw(carver.take(conv.dst_bytes())),
          src_or_g(carver.take(conv.src_bytes())),
          weights(carver.take(conv.weights_bytes())),
          diff_weights(carver.take(conv.out_ * conv.taps() * conv.in_ * 4)),
          sums(carver.take(leave_workspace_bytes(conv.desc().src_shape().count() / conv.desc().in_channels,
                                                 conv.desc().in_channels))),
          library(carver.take(conv.library_workspace_bytes(Conv::Phase::backward))) {}
};

struct CudaConv::Infer {
    void *src, *dst, *library;
    Infer(const CudaConv& conv, Carver& carver)
        : src(carver.take(conv.src_bytes())),
          dst(carver.take(conv.dst_bytes())),
          library(carver.take(conv.library_workspace_bytes(Conv::Phase::infer))) {}
};

CudaConv::CudaConv(const ConvDesc& desc, Products& products, cudaStream_t stream)
    : Conv(desc), dtype_(desc.dtype), stream_(stream) {
    const int64_t multiple = dtype_ == DType::f32 ? 4 : 8;
    in_ = align_up(desc.in_channels, multiple);
    out_ = align_up(desc.out_channels, multiple);
    products_ = products.conv(product_shape(desc, in_, out_));
    in_ = products_->in_channels();
}

int64_t CudaConv::src_bytes() const {
    return desc().src_shape().count() / desc().in_channels * in_ * size_of(dtype_);
}

int64_t CudaConv::dst_bytes() const {
    return desc().dst_shape().count() / desc().out_channels * out_ * size_of(dtype_);
}

int64_t CudaConv::weights_bytes() const {
    return out_ * taps() * in_ * size_of(dtype_);
}

int64_t CudaConv::packed_bytes() const {
    return align_up(out_ * 4, Arena::alignment) + weights_bytes();
}

int64_t CudaConv::workspace_bytes(Phase phase) const {
    Carver carver;
    switch (phase) {
        case Phase::forward:
            Forward(*this, carver);
            break;
        case Phase::backward:
            Backward(*this, carver);
            break;
        case Phase::pack:
            break;
        case Phase::infer:
            Infer(*this, carver);
            break;
    }
    return carver.used();
}

int64_t CudaConv::library_workspace_bytes(Phase phase) const {
    const auto bytes = [&](ConvProducts::Phase product) {
        return align_up(products_->workspace_bytes(product), Arena::alignment);
    };
    switch (phase) {
        case Phase::forward:
        case Phase::infer:
            return bytes(ConvProducts::Phase::forward);
        case Phase::backward:
            return std::max(bytes(ConvProducts::Phase::backward_data), bytes(ConvProducts::Phase::backward_weights));
        case Phase::pack:
            break;
    }
    return 0;
}

const void* CudaConv::source(const Activation& src, void* scratch) {
    if (!src.norm && !src.relu && src.raw.dtype == dtype_ && !padded_in()) return src.raw.data;
    apply_pending(stream_, src, scratch, dtype_, in_);
    return scratch;
}

const void* CudaConv::product_weights(const Tensor& weights, void* scratch) {
    if (weights.dtype == dtype_ && !padded_in() && !padded_out()) return weights.data;
    const Matrix from{weights.data, weights.dtype, desc().out_channels * taps(), desc().in_channels};
    copy_matrix(stream_, from, {scratch, dtype_, out_ * taps(), in_});
    return scratch;
}

// --- the phases

void CudaConv::do_forward(const Activation& src, const Tensor& weights, const Tensor& dst, const Tensor& stats,
                          const Tensor& workspace) {
    Carver carver(workspace.data);
    const Forward work(*this, carver);
    void* const product = padded_out() ? work.dst : dst.data;
    products_->forward(desc().batch, source(src, work.src), product_weights(weights, work.weights), product,
                       work.library);
    const int64_t rows = rows_of(dst), channels = desc().out_channels;
    if (padded_out()) copy_matrix(stream_, {product, dtype_, rows, out_}, {dst.data, dtype_, rows, channels});
    if (stats) gather_stats(stream_, dst.data, dtype_, rows, channels, work.sums, stats);
}

void CudaConv::do_backward(const Activation& src, const Tensor& weights, const DiffDst& diff_dst,
                           const DiffSrc* diff_src, const Tensor& diff_weights, Write write_weights,
                           const Tensor& workspace) {
    Carver carver(workspace.data);
    const Backward work(*this, carver);
    norm_gradient(stream_, diff_dst, work.d_raw, out_);

    const DType made = products_->diff_weights_dtype();
    const bool direct = made == DType::f32 && write_weights == Write::overwrite && !padded_in() && !padded_out();
    void* const total = direct ? diff_weights.data : work.diff_weights;
    products_->backward_weights(source(src, work.src_or_g), work.d_raw, total, work.library);
    const int64_t in = desc().in_channels;
    if (!direct)
        copy_matrix(stream_, {total, made, out_ * taps(), in_},
                    {diff_weights.data, DType::f32, desc().out_channels * taps(), in}, write_weights);

    if (!diff_src) return;
    const bool plain = diff_src->write == Write::overwrite && !padded_in();
    void* const g = plain ? diff_src->diff.data : work.src_or_g;
    products_->backward_data(work.d_raw, product_weights(weights, work.weights), g, work.library);
    if (!plain || diff_src->at.relu || diff_src->norms[0])
        leave_gradient(stream_, PlainGradient{g, in_}, *diff_src, work.sums);
}

void CudaConv::do_pack(const Tensor& weights, const Norm& norm, const Tensor& packed, const Tensor&) {
    copy_matrix(stream_, {norm.shift.data, DType::f32, 1, desc().out_channels}, {packed.data, DType::f32, 1, out_});
    void* const folded = static_cast<char*>(packed.data) + align_up(out_ * 4, Arena::alignment);
    fold_scale(stream_, weights, norm.scale, {folded, dtype_, out_ * taps(), in_}, taps());
}

void CudaConv::do_infer(const Activation& src, const Tensor& packed, const Tensor& residual, bool relu,
                        const Tensor& dst, const Tensor& workspace) {
    Carver carver(workspace.data);
    const Infer work(*this, carver);
    const void* const weights = static_cast<char*>(packed.data) + align_up(out_ * 4, Arena::alignment);
    const void* from = source(src, work.src);
    int64_t batch = src.raw.shape[0];
    if (!products_->takes(batch)) {
        // The whole batch's plan, of which the pictures that are missing are rubbish in and rubbish out.
        if (from != work.src)
            check(cudaMemcpyAsync(work.src, from, static_cast<size_t>(src.raw.bytes()), cudaMemcpyDeviceToDevice,
                                  stream_),
                  "copy within the GPU");
        from = work.src;
        batch = desc().batch;
    }
    products_->forward(batch, from, weights, work.dst, work.library);
    add_bias(stream_, work.dst, out_, static_cast<const float*>(packed.data), residual.data, relu, dst.data, dtype_,
             rows_of(dst), desc().out_channels);
}

}  // namespace rn50::cuda
