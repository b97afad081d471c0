// The one parameter table. Initialisation, the optimizer's groups, checkpoints, the import of PyTorch weights, gradient
// buckets and the exported graph all read it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace rn50 {

/// How a parameter starts (torchvision's ResNet initialisers).
enum class Init : uint8_t {
    kaiming_fan_out,  ///< normal(0, sqrt(2 / (out_channels * kernel^2)))
    one,
    zero,
    uniform_fan_in,  ///< uniform(-b, b), b = 1 / sqrt(in_features): torch.nn.Linear's default, weight and bias
};

/// One trained parameter. Device memory holds it as f32 at [offset, offset + count) of the parameter buffer: convolution
/// weights {K, kh, kw, C}, where torchvision has {K, C, kh, kw}; everything else as torchvision has it.
struct Parameter {
    std::string name;   ///< torchvision's: "layer1.0.conv1.weight"
    Shape shape;        ///< as in device memory
    Init init = Init::zero;
    int64_t fan = 0;    ///< of the initialiser
    bool decay = false; ///< whether weight decay applies: weights of convolutions and of the classifier only
    int64_t offset = 0; ///< elements

    /// torchvision's dimensions.
    std::vector<int64_t> torch_dims() const;
    int64_t count() const { return shape.count(); }
};

/// One batch norm's running statistics: {2, channels} f32 = mean, variance, at `offset` elements of the running buffer.
struct RunningStatistics {
    std::string name;  ///< torchvision's module: "layer1.0.bn1" (.running_mean, .running_var, .num_batches_tracked)
    int64_t channels = 0, offset = 0;
};

class ParameterTable {
  public:
    /// Appends a row and returns its index. Rows start at multiples of 64 elements; the gaps stay 0.
    int add(const std::string& name, const Shape& shape, Init init, int64_t fan, bool decay);
    int add_running(const std::string& name, int64_t channels);

    const std::vector<Parameter>& parameters() const { return parameters_; }
    const std::vector<RunningStatistics>& running() const { return running_; }
    int64_t parameter_elements() const { return parameter_elements_; }  ///< of the buffer, gaps included
    int64_t running_elements() const { return running_elements_; }
    int64_t trained_count() const;  ///< of the net: without the gaps
    /// For the optimizer, ascending.
    std::vector<ParameterRange> ranges() const;

    /// Starting values of the whole buffer, a function of seed and parameter name: f32 {parameter_elements()}.
    std::vector<float> initial_values(uint64_t seed) const;
    /// Mean 0, variance 1: f32 {running_elements()}.
    std::vector<float> initial_running() const;

  private:
    std::vector<Parameter> parameters_;
    std::vector<RunningStatistics> running_;
    int64_t parameter_elements_ = 0, running_elements_ = 0;
};

/// {K, kh, kw, C} in device order to torchvision's {K, C, kh, kw}, and back; other shapes are copied.
void to_torch_layout(const Parameter& parameter, const float* device, float* torch);
void from_torch_layout(const Parameter& parameter, const float* torch, float* device);

}  // namespace rn50
