#include "model/block.h"

namespace rn50 {

Block::Block(const NetBuild& build, const BlockDesc& desc) : backend_(build.backend), dtype_(build.dtype) {
    const auto unit = [&](const std::string& conv, const std::string& norm, int64_t side, int64_t in, int64_t out,
                          int64_t kernel, int64_t stride, Init gamma) {
        ConvDesc c;
        c.name = desc.name + "." + conv;
        c.height = c.width = side;
        c.in_channels = in;
        c.out_channels = out;
        c.kernel = kernel;
        c.stride = stride;
        c.pad = kernel / 2;
        return Unit(build, c, desc.name + "." + norm, gamma);
    };
    const int64_t in = desc.in_channels, mid = desc.planes, out = desc.out_channels();
    const Init last = desc.zero_init_residual ? Init::zero : Init::one;
    if (desc.bottleneck) {
        units_.push_back(unit("conv1", "bn1", desc.side, in, mid, 1, 1, Init::one));
        units_.push_back(unit("conv2", "bn2", desc.side, mid, mid, 3, desc.stride, Init::one));
        units_.push_back(unit("conv3", "bn3", desc.out_side(), mid, out, 1, 1, last));
    } else {
        units_.push_back(unit("conv1", "bn1", desc.side, in, mid, 3, desc.stride, Init::one));
        units_.push_back(unit("conv2", "bn2", desc.out_side(), mid, out, 3, 1, last));
    }
    if (desc.projects())
        shortcut_.emplace(unit("downsample.0", "downsample.1", desc.side, in, out, 1, desc.stride, Init::one));
}

Tensor Block::forward(Context& ctx, const NetState& state, const Tensor& x) {
    Activation src{x, {}, false};
    for (Unit& unit : units_) {
        unit.forward(ctx, state, src);
        src = unit.pending(true);
    }
    if (shortcut_) shortcut_->forward(ctx, state, {x, {}, false});
    return join(ctx, x);
}

Tensor Block::join(Context& ctx, const Tensor& x) const {
    const Tensor y = ctx.arena.alloc(Use::activations, dtype_, units_.back().dst_shape());
    const Activation side = shortcut_ ? shortcut_->pending(false) : Activation{x, {}, false};
    backend_.join(ctx, units_.back().pending(false), side, y);
    return y;
}

DiffSrc Block::gradient_of_output(Context& ctx, const Tensor& y) {
    DiffSrc diff;
    diff.at = {y, {}, true};
    diff.norms[0] = units_.back().take_sums(ctx);
    if (shortcut_) diff.norms[1] = shortcut_->take_sums(ctx);
    return diff;
}

void Block::backward_branch(Context& ctx, const NetState& state, const Tensor& g, Write write) {
    Tensor dz = g;
    for (size_t i = units_.size() - 1; i > 0; --i) {
        const Activation src = units_[i - 1].pending(true);
        DiffSrc diff;
        diff.diff = ctx.arena.alloc(Use::activation_gradients, dtype_, src.raw.shape);
        diff.at = src;
        diff.norms[0] = units_[i - 1].take_sums(ctx);
        units_[i].backward(ctx, state, src, dz, &diff, write);
        if (i + 1 < units_.size()) ctx.arena.release(dz);  // g is the shortcut's too
        dz = diff.diff;
    }
    diff_first_ = dz;
}

Tensor Block::backward_input(Context& ctx, const NetState& state, const Tensor& x, Tensor g, DiffSrc diff_x,
                             Write write) {
    const Activation src{x, {}, false};
    diff_x.diff = g;  // an identity passes g on: the first unit adds to it in place
    if (shortcut_) {
        DiffSrc diff;
        diff.diff = ctx.arena.alloc(Use::activation_gradients, dtype_, x.shape);
        shortcut_->backward(ctx, state, src, g, &diff, write);
        ctx.arena.release(g);
        diff_x.diff = diff.diff;
    }
    diff_x.write = Write::add;
    units_[0].backward(ctx, state, src, diff_first_, &diff_x, write);
    ctx.arena.release(diff_first_);
    return diff_x.diff;
}

void Block::pack(Context& ctx, const NetState& state) {
    for (Unit& unit : units_)
        unit.pack(ctx, state);
    if (shortcut_) shortcut_->pack(ctx, state);
}

Tensor Block::infer(Context& ctx, Tensor x) const {
    const int64_t batch = x.shape[0];
    const auto convolve = [&](const Unit& unit, const Tensor& src, bool relu) {
        const Tensor dst = ctx.arena.alloc(Use::activations, dtype_, unit.infer_shape(batch));
        unit.infer(ctx, {src, {}, false}, {}, relu, dst);
        return dst;
    };
    Tensor branch = convolve(units_[0], x, true);
    for (size_t i = 1; i + 1 < units_.size(); ++i) {
        const Tensor next = convolve(units_[i], branch, true);
        ctx.arena.release(branch);
        branch = next;
    }
    if (shortcut_) {
        const Tensor side = convolve(*shortcut_, x, false);
        ctx.arena.release(x);
        x = side;
    }
    units_.back().infer(ctx, {branch, {}, false}, x, true, x);
    ctx.arena.release(branch);
    return x;
}

void Block::release_packed(Context& ctx) {
    for (Unit& unit : units_)
        unit.release_packed(ctx);
    if (shortcut_) shortcut_->release_packed(ctx);
}

}  // namespace rn50
