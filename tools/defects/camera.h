// Lamp, lens and sensor: from relief and reflectance to the bytes of a photograph.
#pragma once

#include <cstdint>
#include <vector>

#include "canvas.h"
#include "surface.h"

namespace rn50::defects {

/// Dust on every part, sound or not, so that a speck says nothing.
void scatter_dust(Canvas& canvas, Random& random);

/// Lights the relief from a random side, blurs it as a lens does, adds the sensor's noise. `rgb` becomes size x size
/// x 3.
void photograph(const Canvas& canvas, Random& random, const Look& look, std::vector<uint8_t>& rgb);

}  // namespace rn50::defects
