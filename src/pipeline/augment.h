// What is done to a picture before the net sees it: the geometry of evaluation, and the random augmentation of
// training, whose parameters are a function of (seed, epoch, sample).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/pixel_ops.h"
#include "pipeline/decode.h"
#include "pipeline/policy.h"
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
    none,         ///< as in evaluation
    flip,         ///< the geometry of evaluation, then flips and colour jitter
    crop,         ///< RandomResizedCrop, then flips and colour jitter
    randaugment,  ///< crop, then RandAugment
    trivial,      ///< crop, then TrivialAugment
};
/// What is decoded of a picture that training varies.
enum class Decode : uint8_t {
    whole,   ///< all of it
    region,  ///< what the crop needs (without one, all), reduced while decoding (Decoder::decode_region)
    device,  ///< crops by a PictureDecoder, at full size; what it does not take, and what is not cropped, as region
};
const char* name_of(Resize resize);
const char* name_of(Augment augment);
/// From the command line's names; throw Error(Exit::usage) with the list for an unknown one.
Resize resize_from(const std::string& name);
Augment augment_from(const std::string& name);

struct PictureOptions {
    int64_t image_size = 224;
    Resize resize = Resize::squash;
    int channels = 3;  ///< 3: RGB; 1: ITU-R 601 luma of colour pictures, a grey picture's own values
    int bits = 0;      ///< that count of pictures of 16 bits: Decoder::open()
    /// Evaluation uses none. With Resize::letterbox nothing is ever cut off: crop then acts as flip.
    Augment augment = Augment::none;
    Decode decode = Decode::region;
    double crop_scale_min = 0.08, crop_scale_max = 1;  ///< share of the area that a random crop takes
    bool flip_horizontal = true, flip_vertical = false;
    /// Factors are drawn from [max(0, 1 - jitter), 1 + jitter]; 0 is off.
    float jitter_brightness = 0, jitter_contrast = 0, jitter_saturation = 0;
    bool rotate90 = false;          ///< a rotation by 0, 90, 180 or 270 degrees, each as likely
    int randaugment_ops = 2;        ///< N, up to max_policy_ops
    int randaugment_magnitude = 9;  ///< M, up to last_magnitude_step
    double blur = 0;                ///< every second picture: sigma is drawn from 0.1 to this, in pixels; 0: off
    double noise = 0;               ///< a normal deviation drawn from 0 to this share of the whole range; 0: off
    double erasing = 0;             ///< probability that a rectangle is erased
    bool erasing_noise = false;     ///< fill it with noise, else with erasing_fill
    std::array<uint8_t, 3> letterbox_fill = {114, 114, 114};
    std::array<uint8_t, 3> erasing_fill = {124, 116, 104};  ///< ImageNet's mean: near 0 once normalised
};

/// What was drawn for one picture, in the order in which it is applied.
struct AugmentParameters {
    bool cropped = false;  ///< else the geometry of evaluation
    Box crop;              ///< inside the picture; as drawn, in whole pixels
    uint8_t turns = 0;     ///< by 90 degrees, counter-clockwise
    bool flip_horizontal = false, flip_vertical = false;
    Policy policy;
    float brightness = 1, contrast = 1, saturation = 1;
    std::array<uint8_t, 3> jitter_order = {0, 1, 2};  ///< pixel::Jitter
    double blur = 0;                                  ///< sigma in pixels; 0: none
    int32_t noise = 0;                                ///< deviation in 1/256 of a level; 0: none
    pixel::Area erased{};                             ///< in the net's input
    pixel::Key key{};                                 ///< names the numbers of noise
};

/// Draws for a picture of height x width. The crop is torchvision's RandomResizedCrop: ten tries with the area uniform
/// in the scale and the ratio log-uniform in [3/4, 4/3], else the largest centred crop with such a ratio. The erased
/// area is its RandomErasing's: ten tries with the area from 0.02 to 0.33 and the ratio log-uniform from 0.3 to 3.3,
/// else none. Exact on every system: no libm, only operations that IEEE 754 rounds correctly.
AugmentParameters draw_augment(const PictureOptions& options, int64_t height, int64_t width, uint64_t seed,
                               int64_t epoch, int64_t sample);

/// The part of what was drawn that belongs to single pixels, as a kernel takes it.
pixel::Changes changes_of(const AugmentParameters& drawn, const PictureOptions& options);
/// Whether that part, behind the geometry, is all that these options do: no policy, blur and noise.
bool belongs_to_pixels(const PictureOptions& options);

/// To which size the geometry of evaluation resizes a picture of that one: what letterbox fills up, and center cuts.
PictureSize resized_size(const PictureOptions& options, PictureSize size);

/// A picture that was decoded smaller than it is.
struct Reduced {
    PictureSize full;  ///< its size
    Box where;         ///< all of it in what was decoded
};

/// Makes the net's input from pictures; keeps its buffers. One thread at a time.
class Renderer {
  public:
    /// Fills dst, {image_size, image_size, channels}. `parameters` null: evaluation. `reduced`: how `picture` was
    /// decoded, where nothing is cropped; null: whole. With `apart` only the geometry is made, and what belongs to
    /// pixels is left there for Backend::augment, which gives the same bits; not for options that need more
    /// (belongs_to_pixels()).
    void render(const Picture& picture, const PictureOptions& options, const AugmentParameters* parameters,
                uint8_t* dst, const Reduced* reduced = nullptr, pixel::Changes* apart = nullptr);

  private:
    void place(const Picture& picture, const PictureOptions& options, const AugmentParameters* parameters,
               const Reduced* reduced, uint8_t* dst);

    Resizer resizer_;
    std::vector<uint8_t> rgb_, scratch_;
    std::vector<uint16_t> blurred_;
};

/// The same for a single picture.
void render(const Picture& picture, const PictureOptions& options, const AugmentParameters* parameters, uint8_t* dst);

}  // namespace rn50
