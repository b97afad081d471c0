// What is done to a picture before the net sees it: the geometry of evaluation, and the random augmentation of
// training, whose parameters are a function of (seed, epoch, sample).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "pipeline/decode.h"
#include "pipeline/resize.h"

namespace rn50 {

/// How a whole picture becomes a square.
enum class Resize : uint8_t {
    squash,     ///< both sides to the size; nothing is cut off, the aspect is not kept
    letterbox,  ///< the longer side to the size, the rest filled with grey; nothing is cut off, the aspect is kept
    center,     ///< torchvision's Resize(size * 256 / 224) then CenterCrop(size)
};
/// How training varies pictures.
enum class Augment : uint8_t {
    none,  ///< as in evaluation
    flip,  ///< the geometry of evaluation, then flips and colour jitter
    crop,  ///< RandomResizedCrop, then flips and colour jitter
};
/// What is decoded of a picture that is cropped.
enum class Decode : uint8_t {
    whole,   ///< all of it
    region,  ///< what the crop needs, reduced while decoding (Decoder::decode_region)
};
const char* name_of(Resize resize);
const char* name_of(Augment augment);
const char* name_of(Decode decode);
/// From the command line's names; throw Error(Exit::usage) with the list for an unknown one.
Resize resize_from(const std::string& name);
Augment augment_from(const std::string& name);
Decode decode_from(const std::string& name);

struct PictureOptions {
    int64_t image_size = 224;
    Resize resize = Resize::squash;
    /// Evaluation uses none. With Resize::letterbox nothing is ever cut off: crop then acts as flip.
    Augment augment = Augment::none;
    Decode decode = Decode::region;
    double crop_scale_min = 0.08, crop_scale_max = 1;  ///< share of the area that a random crop takes
    bool flip_horizontal = true, flip_vertical = false;
    /// Factors are drawn from [max(0, 1 - jitter), 1 + jitter]; 0 is off.
    float jitter_brightness = 0, jitter_contrast = 0, jitter_saturation = 0;
    std::array<uint8_t, 3> letterbox_fill = {114, 114, 114};
};

/// What was drawn for one picture.
struct AugmentParameters {
    bool cropped = false;  ///< else the geometry of evaluation
    Box crop;              ///< inside the picture; as drawn, in whole pixels
    bool flip_horizontal = false, flip_vertical = false;
    float brightness = 1, contrast = 1, saturation = 1;
    std::array<uint8_t, 3> jitter_order = {0, 1, 2};  ///< 0 brightness, 1 contrast, 2 saturation
};

/// Draws for a picture of height x width. The crop is torchvision's RandomResizedCrop: ten tries with the area uniform
/// in the scale and the ratio log-uniform in [3/4, 4/3], else the largest centred crop with such a ratio. Exact on
/// every system: no libm, only operations that IEEE 754 rounds correctly.
AugmentParameters draw_augment(const PictureOptions& options, int64_t height, int64_t width, uint64_t seed,
                               int64_t epoch, int64_t sample);

/// Makes the net's input from pictures; keeps its buffers. One thread at a time.
class Renderer {
  public:
    /// Fills dst, {image_size, image_size, 3}. `parameters` null: evaluation.
    void render(const Picture& picture, const PictureOptions& options, const AugmentParameters* parameters,
                uint8_t* dst);

  private:
    Resizer resizer_;
};

/// The same for a single picture.
void render(const Picture& picture, const PictureOptions& options, const AugmentParameters* parameters, uint8_t* dst);

}  // namespace rn50
