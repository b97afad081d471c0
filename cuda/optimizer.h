// What the optimizer's kernels read beside the parameters and their gradients.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"

namespace rn50::cuda {

constexpr int gradient_sums = 512;  ///< partial sums of squares, one a block

/// A part of the parameter buffer for one block: the optimizer's table is a list of them.
struct Piece {
    int64_t begin;
    int32_t count;  ///< at most piece_elements
    int32_t decay;  ///< 1: decayed
};
constexpr int64_t piece_elements = 8192;

}  // namespace rn50::cuda
