// RandAugment (Cubuk et al., 2020) and TrivialAugment (Mueller and Hutter, 2021): torchvision's operations, magnitudes
// and meaning, on pictures of the net's size.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "base/random.h"

namespace rn50 {

/// In torchvision's order, which is that of the draw.
enum class Op : uint8_t {
    identity,
    shear_x,
    shear_y,
    translate_x,
    translate_y,
    rotate,
    brightness,
    color,
    contrast,
    sharpness,
    posterize,
    solarize,
    autocontrast,
    equalize,
};
constexpr int op_count = 14;
/// Magnitudes come in steps 0 to 30 (torchvision's num_magnitude_bins is 31).
constexpr int last_magnitude_step = 30;
constexpr int max_policy_ops = 8;

/// One operation with torchvision's magnitude: the shear's tangent, whole pixels to move by, degrees, 1 - the factor of
/// an enhancement, bits to keep, the threshold of solarize; 0 for those that have none.
struct PictureOp {
    Op op = Op::identity;
    double magnitude = 0;
};

/// What RandAugment and TrivialAugment make of one of the steps 0 to 30, on a picture of size x size. `negative` turns
/// the sign of those that have one.
PictureOp randaugment_op(Op op, int step, bool negative, int64_t size);
PictureOp trivial_op(Op op, int step, bool negative);

/// Which operations a picture takes, in order.
struct Policy {
    std::array<PictureOp, max_policy_ops> ops;
    int count = 0;
};
Policy draw_randaugment(int ops, int step, int64_t size, Random random);
Policy draw_trivial(Random random);

/// Changes `pixels`, {size, size, channels}, channels 1 or 3. Equal to torchvision's _apply_op on a Pillow picture with
/// nearest interpolation and the same fill: exactly for the affine operations, posterize, solarize and equalize, within
/// 1 for the others. Color does nothing to one channel. `scratch` keeps its memory from call to call.
void apply_op(const PictureOp& op, uint8_t* pixels, int64_t size, int channels, const uint8_t* fill,
              std::vector<uint8_t>& scratch);

}  // namespace rn50
