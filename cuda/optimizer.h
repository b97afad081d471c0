// What the optimizer's kernels keep for the whole run.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"

namespace rn50::cuda {

constexpr int gradient_sums = 512;  ///< partial sums of squares, one a block
constexpr int64_t gradient_sums_bytes = gradient_sums * 8;

/// A part of the parameter buffer for one block.
struct Piece {
    int64_t begin;
    int32_t count;  ///< at most piece_elements
    int32_t decay;  ///< 1: decayed
};
constexpr int64_t piece_elements = 8192;

/// The parameter ranges, cut into pieces, on the host and in device memory. Made by prepare_optimizer(), else at the
/// first step, and kept: a run has one set of ranges.
struct Pieces {
    Memory& memory;
    std::vector<ParameterRange> ranges;
    std::vector<Piece> host;
    Piece* device;

    ~Pieces() {
        if (device != nullptr) memory.release(device, bytes());
    }
    int64_t bytes() const { return static_cast<int64_t>(host.size() * sizeof(Piece)); }
};

}  // namespace rn50::cuda
