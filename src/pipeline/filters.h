// Blur and noise, in integers: the same bits on every system.
#pragma once

#include <cstdint>
#include <vector>

#include "base/pixel_ops.h"

namespace rn50 {

/// Gaussian blur of `pixels`, {size, size, channels}, with the standard deviation `sigma` in pixels, > 0; the picture
/// is mirrored at its edges. Within 1 of torchvision's gaussian_blur with kernel_size 2 * min(ceil(3 sigma), size - 1)
/// + 1. `scratch` keeps its memory from call to call.
void gaussian_blur(double sigma, uint8_t* pixels, int64_t size, int channels, std::vector<uint16_t>& scratch);

/// Adds to each byte its own normal number of the standard deviation `deviation`, in units of 1/256 of a level, and
/// cuts off what leaves a byte. `key` names the numbers: Purpose::noise from block first_noise_block on.
void add_noise(int32_t deviation, const pixel::Key& key, uint8_t* pixels, int64_t bytes);
/// The blocks before it draw the deviation.
constexpr uint32_t first_noise_block = 1;

}  // namespace rn50
