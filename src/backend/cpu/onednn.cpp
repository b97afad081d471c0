#include "backend/cpu/onednn.h"

namespace rn50::cpu {

void onednn_failed(const std::string& what, const dnnl::error& error) {
    throw Error(Exit::device, cat("oneDNN cannot run ", what, ": ", error.message),
                "choose another --precision; `rn50 doctor` shows what this CPU has");
}

dnnl::engine& engine() {
    static dnnl::engine the_engine(dnnl::engine::kind::cpu, 0);
    return the_engine;
}

dnnl::stream& stream() {
    static dnnl::stream the_stream(engine());
    return the_stream;
}

dnnl::primitive_attr user_scratchpad() {
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    return attr;
}

Reorder::Reorder(const dnnl::memory::desc& from, const dnnl::memory::desc& to, bool add)
    : from_(from, engine(), nullptr), to_(to, engine(), nullptr) {
    dnnl::primitive_attr attr = user_scratchpad();
    if (add) {
        dnnl::post_ops ops;
        ops.append_sum(1.0f);
        attr.set_post_ops(ops);
    }
    const dnnl::reorder::primitive_desc desc(engine(), from, engine(), to, attr);
    RN50_REQUIRE(desc.scratchpad_desc().get_size() == 0, "oneDNN wants a scratchpad to change a layout");
    primitive_ = dnnl::reorder(desc);
}

void Reorder::run(void* from, void* to) {
    from_.set_data_handle(from);
    to_.set_data_handle(to);
    primitive_.execute(stream(), from_, to_);
    stream().wait();
}

using dnnl::algorithm;
using dnnl::prop_kind;

#if DNNL_VERSION_MAJOR >= 3

dnnl::convolution_forward::primitive_desc forward_desc(const ConvMemory& m, bool training,
                                                       const dnnl::primitive_attr& attr) {
    const prop_kind kind = training ? prop_kind::forward_training : prop_kind::forward_inference;
    return {engine(),  kind, algorithm::convolution_direct, m.src, m.weights, m.bias, m.dst, m.strides, m.padding,
            m.padding, attr};
}

dnnl::convolution_backward_data::primitive_desc backward_data_desc(
    const ConvMemory& m, const dnnl::primitive_attr& attr, const dnnl::convolution_forward::primitive_desc& forward) {
    return {engine(), algorithm::convolution_direct, m.src, m.weights, m.dst, m.strides, m.padding, m.padding, forward,
            attr};
}

dnnl::convolution_backward_weights::primitive_desc backward_weights_desc(
    const ConvMemory& m, const dnnl::primitive_attr& attr, const dnnl::convolution_forward::primitive_desc& forward) {
    return {engine(), algorithm::convolution_direct, m.src, m.weights, m.dst, m.strides, m.padding, m.padding, forward,
            attr};
}

#else

dnnl::convolution_forward::primitive_desc forward_desc(const ConvMemory& m, bool training,
                                                       const dnnl::primitive_attr& attr) {
    const prop_kind kind = training ? prop_kind::forward_training : prop_kind::forward_inference;
    const dnnl::convolution_forward::desc desc(kind, algorithm::convolution_direct, m.src, m.weights, m.bias, m.dst,
                                               m.strides, m.padding, m.padding);
    return {desc, attr, engine()};
}

dnnl::convolution_backward_data::primitive_desc backward_data_desc(
    const ConvMemory& m, const dnnl::primitive_attr& attr, const dnnl::convolution_forward::primitive_desc& forward) {
    const dnnl::convolution_backward_data::desc desc(algorithm::convolution_direct, m.src, m.weights, m.dst, m.strides,
                                                     m.padding, m.padding);
    return {desc, attr, engine(), forward};
}

dnnl::convolution_backward_weights::primitive_desc backward_weights_desc(
    const ConvMemory& m, const dnnl::primitive_attr& attr, const dnnl::convolution_forward::primitive_desc& forward) {
    const dnnl::convolution_backward_weights::desc desc(algorithm::convolution_direct, m.src, m.weights, m.dst,
                                                        m.strides, m.padding, m.padding);
    return {desc, attr, engine(), forward};
}

#endif

}  // namespace rn50::cpu
