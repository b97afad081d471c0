// PyTorch's numbers (tests/golden/*.json, written by tools/reference.py) and how ours are held against them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace rn50::test {

/// tests/golden/NAME.json
nlohmann::json read_golden(const std::string& name);

/// Convolution weights {K, kh, kw, C} to PyTorch's order {K, C, kh, kw}, and back; other shapes stay as they are.
std::vector<float> to_torch_order(const std::vector<float>& values, const Shape& shape);
std::vector<float> from_torch_order(const std::vector<float>& values, const Shape& shape);
/// The shape as PyTorch says it.
std::vector<int64_t> torch_shape(const Shape& shape);

/// A tensor beside its golden summary (norm and fixed elements), `values` in PyTorch's order.
struct Likeness {
    double cosine;    ///< over the fixed elements
    double norm;      ///< | ‖ours‖ / ‖theirs‖ - 1 |
    double distance;  ///< ‖ours - theirs‖ / ‖theirs‖ over the fixed elements
};
Likeness compare(const nlohmann::json& summary, const std::string& name, const std::vector<float>& values);
/// ‖a - b‖ / ‖b‖
double distance(const std::vector<float>& a, const nlohmann::json& b);

}  // namespace rn50::test
