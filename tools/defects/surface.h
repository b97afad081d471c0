// The sound surfaces: metal, textile and cast, each with its own relief, reflectance and colour.
#pragma once

#include "canvas.h"

namespace rn50::defects {

enum class Surface { brushed, honed, turned, milled, plain_weave, twill, cast, blasted };
inline constexpr int kSurfaces = 8;

const char* name_of(Surface surface);

/// What the defect and the camera must know of the surface beneath.
struct Look {
    Point grain;             ///< the direction of rolling, brushing or warp; a random one where the surface has none
    float gloss;             ///< 0 (cloth) .. 1 (polished): how much the lamp shows in it
    float red, green, blue;  ///< its colour, about 1 each
};

/// Draws the surface over the whole canvas, which was just reset.
Look draw_surface(Canvas& canvas, const Noise& noise, Random& random, Surface surface);

}  // namespace rn50::defects
