#include "backend/cpu/conv.h"

#include <algorithm>
#include <cstring>

#include "backend/cpu/tiles.h"
#include "base/log.h"

namespace rn50::cpu {

using dnnl::memory;

namespace {

// Pictures at a time: source and destination of one chunk, in the last-level cache with room for their neighbours.
constexpr int64_t chunk_bytes = 6 << 20;

int64_t bytes_of(const memory::desc& desc) {
    return static_cast<int64_t>(desc.get_size());
}

char* at(const Tensor& tensor, int64_t picture) {
    const int64_t stride = tensor.bytes() / tensor.shape[0];
    return static_cast<char*>(tensor.data) + picture * stride;
}

}  // namespace

void CpuConv::Bound::run(void* src_data, void* weights_data, void* dst_data, void* bias_data, void* scratchpad_data) {
    src.set_data_handle(src_data);
    weights.set_data_handle(weights_data);
    dst.set_data_handle(dst_data);
    if (bias) bias.set_data_handle(bias_data);
    scratchpad.set_data_handle(scratchpad_data);
    primitive.execute(stream(), args);
    stream().wait();
}

int64_t CpuConv::rows_out(int64_t batch) const {
    const Shape out = desc().dst_shape();
    return batch * out[1] * out[2];
}

ConvMemory CpuConv::memory(int64_t batch) const {
    const ConvDesc& d = desc();
    const Shape out = d.dst_shape();
    const memory::data_type type = to_onednn(dtype_);
    ConvMemory m;
    m.src = memory::desc({batch, d.in_channels, d.height, d.width}, type, memory::format_tag::nhwc);
    m.dst = memory::desc({batch, d.out_channels, out[1], out[2]}, type, memory::format_tag::nhwc);
    m.weights = memory::desc({d.out_channels, d.in_channels, d.kernel, d.kernel}, type, memory::format_tag::any);
    m.strides = {d.stride, d.stride};
    m.padding = {d.pad, d.pad};
    return m;
}

CpuConv::CpuConv(const ConvDesc& desc) : Conv(desc), dtype_(desc.dtype) {
    const Shape in = desc.src_shape(), out = desc.dst_shape();
    const int64_t a_picture = (in.count() + out.count()) / desc.batch * size_of(dtype_);
    chunk_ = std::min(desc.batch, std::max<int64_t>(1, chunk_bytes / a_picture));
    chunk_ = ceil_div(desc.batch, ceil_div(desc.batch, chunk_));  // chunks of nearly one size
    plain_weights_ = dnnl::memory::desc({desc.out_channels, desc.in_channels, desc.kernel, desc.kernel},
                                        dnnl::memory::data_type::f32, dnnl::memory::format_tag::ohwi);
    try {
        if (desc.training) {
            make_step(chunk_);
            if (desc.batch % chunk_) make_step(desc.batch % chunk_);
            to_forward_ = Reorder(plain_weights_, forward_weights_);
            to_backward_ = Reorder(plain_weights_, backward_weights_);
            from_diff_ = Reorder(diff_weights_, plain_weights_);
            add_diff_ = Reorder(diff_weights_, plain_weights_, true);
        }
        infer_weights_ = forward_desc(memory(chunk_), false, user_scratchpad()).weights_desc();
        to_infer_ = Reorder(plain_weights_, infer_weights_);
        inference(chunk_, true, true);
    } catch (const dnnl::error& error) {
        onednn_failed(cat(desc.name, " in ", name_of(dtype_)), error);
    }
}

void CpuConv::make_step(int64_t batch) {
    ConvMemory m = memory(batch);
    const dnnl::primitive_attr attr = user_scratchpad();
    const auto bind = [&](Bound& bound, const dnnl::primitive& primitive, const auto& pd, int src_arg,
                          const memory::desc& src, int weights_arg, const memory::desc& weights, int dst_arg,
                          const memory::desc& dst) {
        bound.primitive = primitive;
        bound.src = dnnl::memory(src, engine(), nullptr);
        bound.weights = dnnl::memory(weights, engine(), nullptr);
        bound.dst = dnnl::memory(dst, engine(), nullptr);
        bound.scratchpad = dnnl::memory(pd.scratchpad_desc(), engine(), nullptr);
        bound.args = {{src_arg, bound.src},
                      {weights_arg, bound.weights},
                      {dst_arg, bound.dst},
                      {DNNL_ARG_SCRATCHPAD, bound.scratchpad}};
        scratchpad_bytes_ = std::max(scratchpad_bytes_, bytes_of(pd.scratchpad_desc()));
        if (std::strstr(pd.impl_info_str(), "ref"))
            log::warn_once("slow " + desc().name,
                           cat("oneDNN has only its slow reference code for ", desc().name, " on this CPU"));
    };
    // The weights' layouts are chosen for the first (the usual) number of pictures and kept for the other.
    const bool first = steps_.empty();
    if (!first) m.weights = forward_weights_;
    const auto forward = forward_desc(m, true, attr);
    if (!first) m.weights = backward_weights_;
    const auto data = backward_data_desc(m, attr, forward);
    m.weights = first ? memory::desc({desc().out_channels, desc().in_channels, desc().kernel, desc().kernel},
                                     memory::data_type::f32, memory::format_tag::any)
                      : diff_weights_;
    const auto weights = backward_weights_desc(m, attr, forward);
    if (first) {
        forward_weights_ = forward.weights_desc();
        backward_weights_ = data.weights_desc();
        diff_weights_ = weights.diff_weights_desc();
    }
    Step& step = steps_[batch];
    bind(step.forward, dnnl::convolution_forward(forward), forward, DNNL_ARG_SRC, forward.src_desc(), DNNL_ARG_WEIGHTS,
         forward.weights_desc(), DNNL_ARG_DST, forward.dst_desc());
    bind(step.backward_data, dnnl::convolution_backward_data(data), data, DNNL_ARG_DIFF_SRC, data.diff_src_desc(),
         DNNL_ARG_WEIGHTS, data.weights_desc(), DNNL_ARG_DIFF_DST, data.diff_dst_desc());
    bind(step.backward_weights, dnnl::convolution_backward_weights(weights), weights, DNNL_ARG_SRC, weights.src_desc(),
         DNNL_ARG_DIFF_WEIGHTS, weights.diff_weights_desc(), DNNL_ARG_DIFF_DST, weights.diff_dst_desc());
}

CpuConv::Bound& CpuConv::inference(int64_t batch, bool relu, bool residual) {
    const std::pair<int64_t, int> key{batch, relu * 2 + residual};
    const auto found = inference_.find(key);
    if (found != inference_.end()) return found->second;
    dnnl::post_ops ops;
    if (residual) ops.append_sum(1.0f);
    if (relu) {
#if DNNL_VERSION_MAJOR >= 3
        ops.append_eltwise(dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
#else
        ops.append_eltwise(1.0f, dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
#endif
    }
    dnnl::primitive_attr attr = user_scratchpad();
    attr.set_post_ops(ops);
    ConvMemory m = memory(batch);
    m.weights = infer_weights_;
    m.bias = memory::desc({desc().out_channels}, memory::data_type::f32, memory::format_tag::x);
    const auto pd = forward_desc(m, false, attr);
    Bound bound;
    bound.primitive = dnnl::convolution_forward(pd);
    bound.src = dnnl::memory(pd.src_desc(), engine(), nullptr);
    bound.weights = dnnl::memory(pd.weights_desc(), engine(), nullptr);
    bound.dst = dnnl::memory(pd.dst_desc(), engine(), nullptr);
    bound.bias = dnnl::memory(m.bias, engine(), nullptr);
    bound.scratchpad = dnnl::memory(pd.scratchpad_desc(), engine(), nullptr);
    bound.args = {{DNNL_ARG_SRC, bound.src},
                  {DNNL_ARG_WEIGHTS, bound.weights},
                  {DNNL_ARG_DST, bound.dst},
                  {DNNL_ARG_BIAS, bound.bias},
                  {DNNL_ARG_SCRATCHPAD, bound.scratchpad}};
    infer_scratchpad_bytes_ = std::max(infer_scratchpad_bytes_, bytes_of(pd.scratchpad_desc()));
    return inference_.emplace(key, std::move(bound)).first->second;
}

// --- workspaces: the same carving counts at set-up and places at run time ----------------------------------------

struct CpuConv::Forward {
    void *src, *weights, *scratchpad;
    StatsGatherer stats;
    Forward(const CpuConv& conv, Carver& carver)
        : src(carver.take(conv.rows_in(conv.chunk_) * conv.desc().in_channels * size_of(conv.dtype_))),
          weights(carver.take(bytes_of(conv.forward_weights_))),
          scratchpad(carver.take(conv.scratchpad_bytes_)),
          stats(carver, conv.rows_out(conv.chunk_), conv.desc().out_channels) {}
};

struct CpuConv::Backward {
    void *src, *d_raw, *g, *weights, *scratchpad;
    float *diff_weights, *total_weights;
    DiffSrcGatherer gatherer;
    Backward(const CpuConv& conv, Carver& carver, const DiffSrc* target)
        : src(carver.take(conv.rows_in(conv.chunk_) * conv.desc().in_channels * size_of(conv.dtype_))),
          d_raw(carver.take(conv.rows_out(conv.chunk_) * conv.desc().out_channels * size_of(conv.dtype_))),
          g(carver.take(conv.rows_in(conv.chunk_) * conv.desc().in_channels * size_of(conv.dtype_))),
          weights(carver.take(bytes_of(conv.backward_weights_))),
          scratchpad(carver.take(conv.scratchpad_bytes_)),
          diff_weights(carver.take<float>(bytes_of(conv.diff_weights_))),
          total_weights(carver.take<float>(bytes_of(conv.diff_weights_))),
          gatherer(carver, conv.rows_in(conv.chunk_), conv.desc().in_channels, target) {}
};

int64_t CpuConv::packed_bytes() const {
    return align_up(desc().out_channels * 4, Arena::alignment) + bytes_of(infer_weights_);
}

int64_t CpuConv::workspace_bytes(Phase phase) const {
    Carver carver;
    switch (phase) {
        case Phase::forward:
            Forward(*this, carver);
            break;
        case Phase::backward:
            Backward(*this, carver, nullptr);
            break;
        case Phase::pack:
            carver.take(desc().weights_shape().count() * 4);
            break;
        case Phase::infer:
            carver.take(rows_in(chunk_) * desc().in_channels * size_of(dtype_));
            carver.take(inference_scratch());
            break;
    }
    return carver.used();
}

int64_t CpuConv::library_workspace_bytes(Phase phase) const {
    Carver carver;
    if (phase == Phase::forward || phase == Phase::backward) carver.take(scratchpad_bytes_);
    if (phase == Phase::infer) carver.take(inference_scratch());
    return carver.used();
}

/// Other numbers of pictures may want more than the chunk's own; oneDNN asks for little here.
int64_t CpuConv::inference_scratch() const {
    return infer_scratchpad_bytes_ * 2 + (64 << 10);
}

// --- the phases --------------------------------------------------------------------------------------------------

void CpuConv::do_forward(const Activation& src, const Tensor& weights, const Tensor& dst, const Tensor& stats,
                         const Tensor& workspace) {
    Carver carver(workspace.data);
    Forward work(*this, carver);
    to_forward_.run(weights.data, work.weights);
    const bool plain = !src.norm && !src.relu && src.raw.dtype == dtype_;
    for (int64_t i = 0; i < desc().batch; i += chunk_) {
        const int64_t n = std::min(chunk_, desc().batch - i);
        void* input = at(src.raw, i);
        if (!plain) {
            apply_pending(src, input, work.src, dtype_, rows_in(n), desc().in_channels);
            input = work.src;
        }
        steps_.at(n).forward.run(input, work.weights, at(dst, i), nullptr, work.scratchpad);
        if (stats) work.stats.add(at(dst, i), dtype_, rows_out(n));
    }
    if (stats) work.stats.finish(stats);
}

void CpuConv::do_backward(const Activation& src, const Tensor& weights, const DiffDst& diff_dst,
                          const DiffSrc* diff_src, const Tensor& diff_weights, Write write_weights,
                          const Tensor& workspace) {
    Carver carver(workspace.data);
    Backward work(*this, carver, diff_src);
    const NormGradient& norm = diff_dst.norm;
    const int64_t in = desc().in_channels, out = desc().out_channels;
    const bool plain = !src.norm && !src.relu && src.raw.dtype == dtype_;
    if (diff_src) to_backward_.run(weights.data, work.weights);
    const int64_t weight_count = bytes_of(diff_weights_) / 4;
    for (int64_t i = 0; i < desc().batch; i += chunk_) {
        const int64_t n = std::min(chunk_, desc().batch - i);
        Step& step = steps_.at(n);
        const char *dz = at(diff_dst.dz, i), *raw = at(diff_dst.raw, i);
        for_tiles(rows_out(n), out, [&](int64_t, int64_t first, int64_t rows) {
            const int64_t skip = first * out * size_of(dtype_);
            kernels().norm_gradient(dz + skip, raw + skip, static_cast<char*>(work.d_raw) + skip, dtype_, rows, out,
                                    norm.factor.as<float>(), norm.mean_dz.as<float>(), norm.slope.as<float>(),
                                    norm.mean.as<float>());
        });
        void* input = at(src.raw, i);
        if (!plain) {
            apply_pending(src, input, work.src, dtype_, rows_in(n), in);
            input = work.src;
        }
        float* made = i ? work.diff_weights : work.total_weights;
        step.backward_weights.run(input, made, work.d_raw, nullptr, work.scratchpad);
        if (i) {
            for_tiles(ceil_div(weight_count, 1024), 1024, [&](int64_t, int64_t first, int64_t rows) {
                const int64_t begin = first * 1024, count = std::min(rows * 1024, weight_count - begin);
                kernels().add(made + begin, work.total_weights + begin, count);
            });
        }
        if (!diff_src) continue;
        const bool direct = diff_src->write == Write::overwrite;
        void* g = direct ? at(diff_src->diff, i) : work.g;
        step.backward_data.run(g, work.weights, work.d_raw, nullptr, work.scratchpad);
        if (!direct || !work.gatherer.trivial()) work.gatherer.add(g, in, rows_in(i), rows_in(n), diff_src->write);
    }
    if (diff_src) work.gatherer.finish();
    (write_weights == Write::add ? add_diff_ : from_diff_).run(work.total_weights, diff_weights.data);
}

void CpuConv::do_pack(const Tensor& weights, const Norm& norm, const Tensor& packed, const Tensor& workspace) {
    const int64_t channels = desc().out_channels, row = weights.count() / channels;
    const float *w = weights.as<float>(), *scale = norm.scale.as<float>();
    float* scaled = static_cast<float*>(workspace.data);
#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < channels; ++k)
        for (int64_t j = 0; j < row; ++j)
            scaled[k * row + j] = w[k * row + j] * scale[k];
    std::memcpy(packed.data, norm.shift.data, static_cast<size_t>(channels) * 4);
    to_infer_.run(scaled, static_cast<char*>(packed.data) + align_up(channels * 4, Arena::alignment));
}

void CpuConv::do_infer(const Activation& src, const Tensor& packed, const Tensor& residual, bool relu,
                       const Tensor& dst, const Tensor& workspace) {
    Carver carver(workspace.data);
    void* scratch = carver.take(rows_in(chunk_) * desc().in_channels * size_of(dtype_));
    void* scratchpad = carver.take(0);
    char* weights = static_cast<char*>(packed.data) + align_up(desc().out_channels * 4, Arena::alignment);
    const bool plain = !src.norm && !src.relu && src.raw.dtype == dtype_;
    if (residual && residual.data != dst.data) std::memcpy(dst.data, residual.data, static_cast<size_t>(dst.bytes()));
    const int64_t batch = src.raw.shape[0];
    for (int64_t i = 0; i < batch; i += chunk_) {
        const int64_t n = std::min(chunk_, batch - i);
        void* input = at(src.raw, i);
        if (!plain) {
            apply_pending(src, input, scratch, dtype_, rows_in(n), desc().in_channels);
            input = scratch;
        }
        const int64_t room = workspace.bytes() - (static_cast<char*>(scratchpad) - static_cast<char*>(workspace.data));
        Bound& bound = inference(n, relu, static_cast<bool>(residual));
        RN50_REQUIRE(bytes_of(bound.scratchpad.get_desc()) <= room, desc().name,
                     ": oneDNN asks for more scratch memory");
        bound.run(input, weights, at(dst, i), packed.data, scratchpad);
    }
}

}  // namespace rn50::cpu
