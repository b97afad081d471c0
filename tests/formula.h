// Weights, pictures and gradients as formulas of (name, index): the C++ half of tools/reference.py. Both sides must
// give the same bits, so that golden files hold results alone. Indices count in PyTorch's layout: weights OIHW,
// pictures NHWC.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace rn50::test {

/// splitmix64's finaliser (Steele et al., 2014) over FNV-1a of the name and the index.
uint64_t hash(const std::string& name, uint64_t index);
/// `count` numbers in [low, high).
std::vector<float> formula_uniform(const std::string& name, int64_t count, double low = -1, double high = 1);
/// u8 {batch, size, size, 3}: patches of 16 x 16 pixels in three quarters of the range, noise in the last quarter.
std::vector<uint8_t> formula_pictures(const std::string& name, int64_t batch, int64_t size);
std::vector<int32_t> formula_labels(const std::string& name, int64_t batch, int64_t classes);
/// Which elements of a tensor of `count` the golden files keep: all of them up to 256.
std::vector<int64_t> fixed_elements(const std::string& name, int64_t count);

/// A parameter of torchvision's name and shape (OIHW for convolutions), flat in PyTorch's order. `basic`: of a net of
/// basic blocks (their last norm is bn2). The last norm of each block starts at about `last_gamma`.
std::vector<float> formula_parameter(const std::string& name, const std::vector<int64_t>& shape, double last_gamma,
                                     bool basic);

}  // namespace rn50::test
