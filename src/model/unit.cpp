#include "model/unit.h"

namespace rn50 {

namespace {

Tensor row(const Tensor& matrix, int64_t i) {
    return matrix.slice(i, 1).reshaped({matrix.shape[1]});
}

/// {4, C} as scale, shift, mean, inv_std.
Norm norm_in(const Tensor& memory) {
    return {row(memory, 0), row(memory, 1), row(memory, 2), row(memory, 3), false};
}

Tensor part_of(const Tensor& buffer, const RunningStatistics& running) {
    return buffer.slice(running.offset, 2 * running.channels).reshaped({2, running.channels});
}

}  // namespace

Tensor part_of(const Tensor& buffer, const Parameter& parameter) {
    return buffer.slice(parameter.offset, parameter.count()).reshaped(parameter.shape);
}

Unit::Unit(const NetBuild& build, ConvDesc conv, const std::string& norm_name, Init gamma)
    : backend_(build.backend), desc_(std::move(conv)), eps_(build.eps), norms_(build.norms) {
    desc_.dtype = build.dtype;
    desc_.tf32 = build.tf32;
    if (desc_.src_dtype != DType::u8) desc_.src_dtype = build.dtype;

    ParameterTable& table = build.table;
    const auto add = [&](const std::string& name, const Shape& shape, Init init, int64_t fan, bool decay) {
        return table.parameters()[static_cast<size_t>(table.add(name, shape, init, fan, decay))];
    };
    weights_ = add(desc_.name + ".weight", desc_.weights_shape(), Init::kaiming_fan_out,
                   channels() * desc_.kernel * desc_.kernel, true);
    gamma_ = add(norm_name + ".weight", {channels()}, gamma, 0, false);
    beta_ = add(norm_name + ".bias", {channels()}, Init::zero, 0, false);
    running_ = table.running()[static_cast<size_t>(table.add_running(norm_name, channels()))];

    desc_.batch = build.infer_batch;
    desc_.training = false;
    infer_conv_ = backend_.conv(desc_);
    desc_.batch = build.batch;
    desc_.training = true;
    if (build.training) conv_ = backend_.conv(desc_);
}

Tensor Unit::product_weights(const NetState& state) const {
    return part_of(state.rounded ? state.rounded : state.parameters, weights_);
}

int64_t Unit::norm_count() const {
    return desc_.dst_shape().count() / channels();
}

void Unit::forward(Context& ctx, const NetState& state, const Activation& src) {
    RN50_REQUIRE(conv_, desc_.name, " was made for inference");
    raw_ = ctx.arena.alloc(Use::activations, desc_.dtype, desc_.dst_shape());
    norm_memory_ = ctx.arena.alloc(Use::statistics, DType::f32, {4, channels()});
    norm_ = norm_in(norm_memory_);
    const Scratch stats(ctx.arena, DType::f32, {2, channels()});
    conv_->forward(ctx, src, product_weights(state), raw_, stats.tensor());
    if (norms_ != nullptr) norms_->merge_statistics(ctx, stats.tensor(), norm_count());
    backend_.norm_from_batch(ctx, stats.tensor(), shared_count(), part_of(state.parameters, gamma_),
                             part_of(state.parameters, beta_), eps_, norm_, part_of(state.observed, running_));
}

NormSums Unit::take_sums(Context& ctx) {
    sums_ = ctx.arena.alloc(Use::statistics, DType::f32, {2, channels()});
    return {raw_, norm_.mean, norm_.inv_std, sums_};
}

void Unit::backward(Context& ctx, const NetState& state, const Activation& src, const Tensor& dz,
                    const DiffSrc* diff_src, Write write) {
    {
        const Scratch memory(ctx.arena, DType::f32, {3, channels()});
        const NormGradient gradient{row(memory.tensor(), 0), row(memory.tensor(), 1), row(memory.tensor(), 2),
                                    norm_.mean};
        backend_.norm_backward(ctx, sums_, norm_count(), norm_, part_of(state.parameters, gamma_), gradient,
                               part_of(state.gradients, gamma_), part_of(state.gradients, beta_), write);
        if (norms_ != nullptr) {
            // The gradients of gamma and beta stay this rank's own: they are averaged with all others. What goes back
            // to the convolution depends on all ranks' sums.
            const Scratch elsewhere(ctx.arena, DType::f32, {2, channels()});
            norms_->sum(ctx, sums_);
            backend_.norm_backward(ctx, sums_, shared_count(), norm_, part_of(state.parameters, gamma_), gradient,
                                   row(elsewhere.tensor(), 0), row(elsewhere.tensor(), 1), Write::overwrite);
        }
        conv_->backward(ctx, src, product_weights(state), {dz, raw_, gradient}, diff_src,
                        part_of(state.gradients, weights_), write);
    }
    ctx.arena.release(sums_);
    ctx.arena.release(raw_);
    ctx.arena.release(norm_memory_);
    norm_ = {};
}

void Unit::pack(Context& ctx, const NetState& state) {
    const Scratch memory(ctx.arena, DType::f32, {4, channels()});
    const Norm norm = norm_in(memory.tensor());
    packed_ = ctx.arena.alloc(Use::packed_weights, DType::u8, {infer_conv_->packed_bytes()});
    backend_.norm_from_running(ctx, part_of(state.running, running_), part_of(state.parameters, gamma_),
                               part_of(state.parameters, beta_), eps_, norm);
    infer_conv_->pack(ctx, part_of(state.parameters, weights_), norm, packed_);
}

void Unit::infer(Context& ctx, const Activation& src, const Tensor& residual, bool relu, const Tensor& dst) const {
    infer_conv_->infer(ctx, src, packed_, residual, relu, dst);
}

Shape Unit::infer_shape(int64_t batch) const {
    const Shape shape = desc_.dst_shape();
    return {batch, shape[1], shape[2], shape[3]};
}

}  // namespace rn50
