// The one place that knows oneDNN's versions: 2.x describes an op and then makes its primitive descriptor, 3.x does
// both at once. Everything else of the CPU twin uses what is common to both.
#pragma once

#include <oneapi/dnnl/dnnl.hpp>
#include <string>

#include "backend/backend.h"

namespace rn50::cpu {

/// Throws what oneDNN says as Error(Exit::device) naming the op.
[[noreturn]] void onednn_failed(const std::string& what, const dnnl::error& error);

dnnl::engine& engine();
dnnl::stream& stream();

inline dnnl::memory::data_type to_onednn(DType dtype) {
    return dtype == DType::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

/// Without a scratchpad of the library's own: what an op needs beside its tensors is in the plan.
dnnl::primitive_attr user_scratchpad();

/// A change of layout and dtype, prepared once; running it only sets addresses.
class Reorder {
  public:
    Reorder() = default;
    /// add: `to` += `from`
    Reorder(const dnnl::memory::desc& from, const dnnl::memory::desc& to, bool add = false);
    void run(void* from, void* to);

  private:
    dnnl::reorder primitive_;
    dnnl::memory from_, to_;
};

/// The memory descriptors of a convolution over `batch` pictures: NHWC pictures, weights in the library's choice of
/// layout; bias only where a norm is folded.
struct ConvMemory {
    dnnl::memory::desc src, weights, dst, bias;
    dnnl::memory::dims strides, padding;
};

dnnl::convolution_forward::primitive_desc forward_desc(const ConvMemory& memory, bool training,
                                                       const dnnl::primitive_attr& attr);
dnnl::convolution_backward_data::primitive_desc backward_data_desc(
    const ConvMemory& memory, const dnnl::primitive_attr& attr,
    const dnnl::convolution_forward::primitive_desc& forward);
dnnl::convolution_backward_weights::primitive_desc backward_weights_desc(
    const ConvMemory& memory, const dnnl::primitive_attr& attr,
    const dnnl::convolution_forward::primitive_desc& forward);

}  // namespace rn50::cpu
