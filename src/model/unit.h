// A convolution and its batch norm: what residual nets are made of.
#pragma once

#include <memory>
#include <string>

#include "model/net.h"

namespace rn50 {

/// What all units of a net share while they are made.
struct NetBuild {
    Backend& backend;
    ParameterTable& table;
    DType dtype = DType::f32;  ///< of activations
    bool tf32 = false;
    bool training = true;
    int64_t batch = 0;        ///< of forward()
    int64_t infer_batch = 0;  ///< largest batch of infer()
    float eps = 1e-5f;
    NormExchange* norms = nullptr;
};

/// Appends its rows to the table when it is made: the convolution's weights, gamma, beta, the running statistics.
class Unit {
  public:
    /// `conv`: name ("layer1.0.conv1"), side, channels, kernel, stride, pad and src_dtype; the rest comes from `build`.
    Unit(const NetBuild& build, ConvDesc conv, const std::string& norm_name, Init gamma);

    Shape dst_shape() const { return desc_.dst_shape(); }
    /// As Conv's.
    bool takes_rounded_weights() const { return conv_ && conv_->takes_rounded_weights(); }
    /// Where its parameters begin in their buffer.
    int64_t first_offset() const { return weights_.offset; }

    /// Convolves, takes the batch's statistics, and keeps raw output and norm until backward() is through.
    void forward(Context& ctx, const NetState& state, const Activation& src);
    /// The last forward()'s output.
    Activation pending(bool relu) const { return {raw_, norm_, relu}; }

    /// For the op that makes this unit's z-gradient: the sums which it must gather.
    NormSums take_sums(Context& ctx);
    /// With those sums gathered: gradients of gamma, beta and the weights, by `write`; `diff_src` as Conv::backward.
    /// Gives back all that forward() kept.
    void backward(Context& ctx, const NetState& state, const Activation& src, const Tensor& dz, const DiffSrc* diff_src,
                  Write write);

    void pack(Context& ctx, const NetState& state);
    void infer(Context& ctx, const Activation& src, const Tensor& residual, bool relu, const Tensor& dst) const;
    /// The output's shape for `batch` pictures of infer().
    Shape infer_shape(int64_t batch) const;
    void release_packed(Context& ctx) { ctx.arena.release(packed_); }

  private:
    int64_t channels() const { return desc_.out_channels; }
    Tensor product_weights(const NetState& state) const;
    int64_t norm_count() const;  ///< elements a channel, of this rank
    int64_t shared_count() const { return norm_count() * (norms_ != nullptr ? norms_->ranks() : 1); }

    Backend& backend_;
    ConvDesc desc_;
    float eps_;
    NormExchange* norms_;
    Parameter weights_, gamma_, beta_;
    RunningStatistics running_;
    std::unique_ptr<Conv> conv_;        ///< absent without training
    std::unique_ptr<Conv> infer_conv_;  ///< of its own, for its smaller batch

    Tensor raw_, norm_memory_, sums_, packed_;
    Norm norm_;  ///< views of norm_memory_
};

/// The parameter's part of a buffer of the table's layout.
Tensor part_of(const Tensor& buffer, const Parameter& parameter);

}  // namespace rn50
