// The hot loops of resampling. kernels.cpp is compiled once for each instruction set; resize_kernels() picks the best
// that this CPU has. All arithmetic is in integers, so each gives the same bits.
#pragma once

#include <cstdint>

namespace rn50 {

struct ResizeKernels {
    /// Resamples a row of RGB: dst[x] = sum over t < taps of src[first[x] + t] * weights[x * taps + t], shifted and
    /// clipped to a byte. `taps` is a multiple of 4; unused weights are 0, but the pixels they stand for are read: up
    /// to 16 bytes from each group of four taps on must be readable.
    void (*row)(const uint8_t* src, const int32_t* first, const int16_t* weights, int64_t taps, int shift, uint8_t* dst,
                int64_t width);
    /// dst[i] = sum over t < taps of src[t * stride + i] * weights[t], shifted and clipped, i < n. `taps` is a multiple
    /// of 2; with an odd number of true taps the last row is read as the one before it (its weight is 0).
    void (*column)(const uint8_t* src, int64_t stride, int64_t true_taps, const int16_t* weights, int shift,
                   uint8_t* dst, int64_t n);
};

/// The table for this CPU; RN50_ISA=v2|v3|v4 in the environment asks for a lower one.
const ResizeKernels& resize_kernels();
/// The table of one instruction set ("v2", "v3", "v4"), or null when this CPU lacks it.
const ResizeKernels* resize_kernels_for(const char* isa);

}  // namespace rn50
