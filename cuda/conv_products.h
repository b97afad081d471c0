// Convolutions by cuDNN, and by cuBLASLt where a phase is a plain matrix product.
#pragma once

#include <memory>

#include "conv_planner.h"

namespace rn50::cuda {

/// Throws Error(Exit::device) when cuDNN has no allowed plan for a phase that will be needed.
std::unique_ptr<ConvProducts> make_conv_products(std::shared_ptr<ConvPlanner> planner, const ConvShape& shape);

}  // namespace rn50::cuda
