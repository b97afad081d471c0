// A net: explicit forward and backward over one backend. No autograd: both read from top to bottom in resnet.cpp.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "model/norm_exchange.h"
#include "model/parameters.h"

namespace rn50 {

struct NetDesc {
    std::string model = "resnet50";  ///< resnet18, 34, 50, 101, 152
    int64_t classes = 0;
    int64_t image_size = 224;  ///< pixels a side
    int64_t channels = 3;      ///< of pictures: 3, RGB; or 1, grey
    int64_t batch = 64;        ///< training batch of this rank
    int64_t accumulate = 1;    ///< batches in a step
    int64_t eval_batch = 0;    ///< largest batch of infer(); 0: batch
    Precision precision = Precision::fp32;
    float dropout = 0.3f;                          ///< before the classifier
    float norm_eps = 1e-5f, norm_momentum = 0.1f;  ///< momentum in PyTorch's sense
    /// Of pixels / 255, by channel: ImageNet's. The first `channels` of them count.
    float mean[3] = {0.485f, 0.456f, 0.406f}, std[3] = {0.229f, 0.224f, 0.225f};
    bool lean = false;               ///< recompute every second block output in the backward pass
    bool zero_init_residual = true;  ///< a block starts as its shortcut: gamma of its last norm starts at 0, else at 1
    bool training = true;            ///< false: infer() only
    NormExchange* norms = nullptr;   ///< batch norms see all ranks by it; must outlive the net. Null: this one alone
};

/// Mean and deviation of grey pictures: ImageNet's by ITU-R 601's luma weights .299, .587, .114. (The deviation of a
/// weighted sum is at most the weighted sum of the deviations, and near it where channels vary together.)
constexpr float gray_mean = 0.458971f, gray_std = 0.225609f;

/// The numbers of a net that a checkpoint keeps, in device memory. Which are there depends on NetDesc::training.
struct NetState {
    Tensor parameters;  ///< f32 {parameter_elements}
    Tensor gradients;   ///< f32, the same layout
    Tensor rounded;     ///< the activations' dtype, the same layout: the parameters as convolutions take them in a step,
                        ///< made at its first forward(). Absent where they take f32
    Tensor running;     ///< f32 {running_elements}
    Tensor observed;    ///< f32 {accumulate * running_elements}: mean and unbiased variance of each batch of the step
};

/// Told during a backward pass: from this offset on the gradient buffer is final. The table is in the order of the
/// forward pass and the backward pass goes from its end to its begin, so what is told falls, and the last is 0.
using GradientsReady = std::function<void(int64_t from)>;

class Net {
  public:
    virtual ~Net() = default;
    virtual const NetDesc& desc() const = 0;
    virtual const ParameterTable& table() const = 0;

    /// Takes the tensors of state() from the arena, and keeps them; once, before anything else. Contents: parameters
    /// and running statistics undefined, gaps zero.
    virtual void allocate(Context& ctx) = 0;
    virtual const NetState& state() const = 0;

    /// Pictures u8 {batch, S, S, channels} to logits f32 {batch, classes}; keeps what backward() needs. The logits stay
    /// valid until backward() returns. `part`: which batch of the step this is, from 0.
    virtual Tensor forward(Context& ctx, const Tensor& pictures, const DropoutKey& key, int64_t part = 0) = 0;
    /// From diff_logits f32 {batch, classes} to state().gradients, by `write`; releases what forward() kept.
    /// `ready`, where given, is told after the classifier, after each block and at the end.
    virtual void backward(Context& ctx, const Tensor& diff_logits, Write write = Write::overwrite,
                          const GradientsReady& ready = {}) = 0;
    /// Moves the running statistics towards those of each batch of the step, in order; nothing when the StepState says
    /// skip.
    virtual void update_running(Context& ctx, const Tensor& step_state) = 0;

    /// Folds the running statistics into packed weights, which it takes from the arena; infer() needs them.
    virtual void begin_inference(Context& ctx) = 0;
    /// Any number of pictures up to eval_batch to logits f32 {n, classes}, overwritten.
    virtual void infer(Context& ctx, const Tensor& pictures, const Tensor& logits) = 0;
    /// Gives the packed weights back.
    virtual void end_inference(Context& ctx) = 0;
};

/// Throws Error(Exit::usage) for an unknown model or a picture too small for it, naming what there is.
std::unique_ptr<Net> make_net(Backend& backend, const NetDesc& desc);
/// {"resnet18", ...}
std::vector<std::string> model_names();

}  // namespace rn50
