// Augmentation of pictures that lie in device memory.
#pragma once

#include <cstdint>

#include "base/pixel_ops.h"
#include "portable.h"

namespace rn50::cuda {

/// dst[i] = src[i] turned, flipped, jittered and erased as changes[i] says (see pixel::Changes), for n pictures u8
/// {size, size, channels}, channels 1 or 3: the same bits as the CPU's Renderer gives. src and dst do not overlap;
/// `sums` is scratch for n numbers. All in device memory; returns when it is queued.
void augment_pictures(cudaStream_t stream, const uint8_t* src, const pixel::Changes* changes, int64_t* sums,
                      uint8_t* dst, int64_t n, int64_t size, int channels);

}  // namespace rn50::cuda
