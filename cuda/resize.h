// Antialiased bilinear resampling of pictures in device memory.
#pragma once

#include <cstdint>

#include "portable.h"

namespace rn50::cuda {

/// A ResampleFilter (base/resample.h) in device memory.
struct DeviceFilter {
    const int32_t *first, *count;
    const int16_t* weights;
    int taps, shift;
};

/// dst {dst_h, dst_w, 3} = src {src_h, src_w, 3}, both u8 RGB, resampled horizontally into `rows` {src_h, dst_w, 3} and
/// then vertically: the same bits as the CPU's Resizer gives with these filters. All in device memory, nothing
/// overlaps; returns when it is queued.
void resize_picture(cudaStream_t stream, const uint8_t* src, int64_t src_h, int64_t src_w,
                    const DeviceFilter& horizontal, const DeviceFilter& vertical, uint8_t* rows, uint8_t* dst,
                    int64_t dst_h, int64_t dst_w);

}  // namespace rn50::cuda
