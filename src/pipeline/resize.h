// Antialiased bilinear resampling of 8-bit RGB.
#pragma once

#include <cstdint>
#include <vector>

#include "base/resample.h"

namespace rn50 {

/// A rectangle in pixels; x1 and y1 are outside.
struct Box {
    double x0 = 0, y0 = 0, x1 = 0, y1 = 0;
};

/// Rows of interleaved RGB.
struct PictureView {
    const uint8_t* data;
    int64_t height, width;
    int64_t stride;  ///< bytes from row to row
};

/// Resamples; keeps its buffers from call to call. One thread at a time.
class Resizer {
  public:
    /// Fills `dst`, dst_h rows of dst_w RGB pixels each `dst_stride` bytes apart, with the part `box` of `src`. Equal
    /// to Pillow's `Image.resize((dst_w, dst_h), BILINEAR, box=box)` within 1 of 255: a triangle filter whose support
    /// grows with the reduction, horizontally, rounded to 8 bits, then vertically. Pixels of `src` around the box take
    /// part where the filter reaches them; to keep them out, pass a view of the box alone. The result is the same on
    /// every CPU.
    void bilinear(const PictureView& src, const Box& box, uint8_t* dst, int64_t dst_h, int64_t dst_w,
                  int64_t dst_stride);

  private:
    ResampleFilter horizontal_, vertical_;
    std::vector<uint8_t> rows_;        // the horizontal pass's output
    std::vector<uint8_t> padded_row_;  // a source row with room behind it
};

/// The same for a single dense picture.
void resize_bilinear_antialias(const uint8_t* src, int64_t src_h, int64_t src_w, const Box& box, uint8_t* dst,
                               int64_t dst_h, int64_t dst_w);

}  // namespace rn50
