// A residual block, basic or bottleneck, with an identity or a projected shortcut (He et al., 2015; the stride of a
// bottleneck is in its 3x3 convolution, as in torchvision).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/unit.h"

namespace rn50 {

/// "layer1.0": its units are layer1.0.conv1, layer1.0.bn1 and so on.
struct BlockDesc {
    std::string name;
    bool bottleneck = true;
    int64_t side = 0, in_channels = 0, planes = 0, stride = 1;
    bool zero_init_residual = true;  ///< as NetDesc's

    int64_t out_side() const { return (side - 1) / stride + 1; }
    int64_t out_channels() const { return planes * (bottleneck ? 4 : 1); }
    bool projects() const { return stride != 1 || in_channels != out_channels(); }
};

class Block {
  public:
    Block(const NetBuild& build, const BlockDesc& desc);

    /// From x, plain, to the block's output, a tensor that belongs to the caller. Keeps what backward needs, but not x.
    Tensor forward(Context& ctx, const NetState& state, const Tensor& x);
    /// forward()'s output once more, from what it kept.
    Tensor join(Context& ctx, const Tensor& x) const;

    /// What the op that makes the gradient of this block's output `y` must clip and gather; its diff is left open. The
    /// gradient made so is the z-gradient `g` below.
    DiffSrc gradient_of_output(Context& ctx, const Tensor& y);

    /// First half, which needs no x: backward through all convolutions but those that read x. `write`: of the
    /// parameters' gradients.
    void backward_branch(Context& ctx, const NetState& state, const Tensor& g, Write write);
    /// Second half. `diff_x` says what to clip and gather for x; its diff and write are set here. Takes g over and
    /// returns the gradient of x, which belongs to the caller.
    Tensor backward_input(Context& ctx, const NetState& state, const Tensor& x, Tensor g, DiffSrc diff_x, Write write);

    /// Where its parameters begin in their buffer.
    int64_t first_offset() const { return units_.front().first_offset(); }

    void pack(Context& ctx, const NetState& state);
    /// Takes x over and returns the output, which belongs to the caller.
    Tensor infer(Context& ctx, Tensor x) const;
    void release_packed(Context& ctx);

  private:
    Backend& backend_;
    std::vector<Unit> units_;
    std::optional<Unit> shortcut_;  ///< the projection, if any
    DType dtype_;
    Tensor diff_first_;  ///< z-gradient of the first unit, between the two halves of the backward
};

}  // namespace rn50
