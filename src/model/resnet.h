// Residual nets of 18 to 152 layers: stem, four stages of blocks, mean over pixels, classifier.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/block.h"

namespace rn50 {

class ResNet : public Net {
  public:
    ResNet(Backend& backend, const NetDesc& desc);

    const NetDesc& desc() const override { return desc_; }
    const ParameterTable& table() const override { return table_; }
    void allocate(Context& ctx) override;
    const NetState& state() const override { return state_; }
    Tensor forward(Context& ctx, const Tensor& pictures, const DropoutKey& key, int64_t part) override;
    void backward(Context& ctx, const Tensor& diff_logits, Write write, const GradientsReady& ready) override;
    void update_running(Context& ctx, const Tensor& step_state) override;
    void begin_inference(Context& ctx) override;
    void infer(Context& ctx, const Tensor& pictures, const Tensor& logits) override;
    void end_inference(Context& ctx) override;

  private:
    Activation picture_activation(const Tensor& pictures) const;
    /// What batch `part` of the step has observed.
    Tensor observed_of(int64_t part) const;
    /// Whether blocks_[i]'s output is dropped once the next block has read it, and made again in the backward.
    bool recomputed(size_t i) const;
    Tensor classifier_gradient(Context& ctx, const Tensor& diff_logits, Write write);
    void backward_stem(Context& ctx, Tensor diff_pooled, Write write);
    /// Pictures to the mean over pixels of the last block's output.
    void infer_features(Context& ctx, const Tensor& pictures, const Tensor& features);

    Backend& backend_;
    NetDesc desc_;
    ParameterTable table_;
    DType dtype_;
    int64_t infer_batch_;  ///< pictures that infer() takes through the net at a time
    std::optional<Unit> stem_;
    std::vector<Block> blocks_;
    Parameter weights_, bias_;
    std::unique_ptr<Linear> linear_;

    NetState state_;
    Tensor picture_norm_;  ///< {2, channels}: scale and shift from bytes to normalised values
    // From forward() to backward():
    Activation pictures_;
    std::vector<Tensor> inputs_;  ///< inputs_[i] goes into blocks_[i]; the last one is the output of the last block
    Tensor features_, logits_;
    DropoutKey key_;
};

}  // namespace rn50
