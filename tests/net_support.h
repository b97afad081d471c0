// Nets and blocks of the model room, filled by formula and driven step by step, everything seen as PyTorch names and
// orders it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace rn50::test {

/// A whole net on the formula pictures and labels of tools/reference.py.
class NetBench {
  public:
    NetBench(Backend& backend, Precision precision, int depth, int64_t batch, int64_t size, int64_t classes,
             double last_gamma);
    ~NetBench();

    /// Forward and backward in training mode; running statistics move. The mean loss.
    double forward_backward();
    /// One step with the gradients of the last backward; ranges of `desc` come from the parameter table.
    void optimize(OptimizerDesc desc, float lr);

    std::vector<float> logits();       ///< of the last forward, {N, classes}
    std::vector<float> eval_logits();  ///< of the same pictures in evaluation
    std::vector<std::string> parameter_names() const;
    std::vector<float> parameter(const std::string& name);
    std::vector<float> gradient(const std::string& name);
    /// "bn1.running_mean", ...
    std::vector<float> running(const std::string& name);

  private:
    struct Parts;
    std::unique_ptr<Parts> parts_;
};

/// One residual block alone, fed a reference input and a reference gradient of its output.
class BlockBench {
  public:
    struct Kind {
        std::string name;  ///< prefix of the formulas: "bottleneck_stride2"
        bool bottleneck = true;
        int64_t batch = 0, side = 0, channels = 0, planes = 0, stride = 1;
    };
    BlockBench(Backend& backend, Precision precision, const Kind& kind);
    ~BlockBench();

    /// src: NHWC, before the ReLU which the block's input has passed; diff_dst: NHWC, of the block's output.
    void forward_backward(const std::vector<float>& src, const std::vector<float>& diff_dst);

    std::vector<float> dst();                          ///< NHWC
    std::vector<float> diff_src();                     ///< NHWC, clipped by the ReLU of src
    std::vector<std::string> parameter_names() const;  ///< "conv1.weight", ...
    std::vector<float> gradient(const std::string& name);
    std::vector<float> running(const std::string& name);

  private:
    struct Parts;
    std::unique_ptr<Parts> parts_;
};

}  // namespace rn50::test
