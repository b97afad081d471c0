// The seven defects. Each changes relief and reflectance the way the real one does, and marks the mask.
#pragma once

#include "canvas.h"
#include "surface.h"

namespace rn50::defects {

enum class Defect { none, scratch, pit, crack, inclusion, stain, dent, rolled_in_scale };
inline constexpr int kDefects = 8;  ///< with `none`

const char* name_of(Defect defect);

/// How a defect is to look. `any` leaves a trait to chance.
struct Style {
    static constexpr int any = -1;
    int size = any;       ///< 0 small, 1 large
    int number = any;     ///< 0 one (pits: few; scale: one patch), 1 several
    int character = any;  ///< 0 or 1, see character_of()
    float strength = 1;   ///< contrast: 1 is plain to see, 0.2 is hard to find
};
/// Traits of two values each, so this many styles of one defect.
inline constexpr int kStyles = 8;

/// What `Style::character` 0 and 1 mean for this defect, in words.
const char* character_of(Defect defect, int character);

/// Draws the defect upon a finished surface.
void draw_defect(Canvas& canvas, const Noise& noise, Random& random, const Look& look, Defect defect,
                 const Style& style);

}  // namespace rn50::defects
