// What a picture of the demo set is drawn on: a relief, a reflectance and a mask, measured in units of which 256 make
// the width of the picture at any size. No libm beyond sqrt and floor, so that a seed gives the same picture
// everywhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/random.h"

namespace rn50::defects {

/// The width and height of every picture, in units.
inline constexpr float kWidth = 256.0f;

struct Point {
    float x, y;
};

inline Point operator+(Point a, Point b) {
    return {a.x + b.x, a.y + b.y};
}
inline Point operator*(Point a, float k) {
    return {a.x * k, a.y * k};
}
/// A quarter turn to the left.
inline Point normal(Point p) {
    return {-p.y, p.x};
}
/// The unit vector at an angle given in turns.
Point direction(double turns);

inline float clamp01(float x) {
    return x < 0.0f ? 0.0f : x > 1.0f ? 1.0f : x;
}
/// 0 below `low`, 1 above `high`, an S between.
inline float smooth_step(float low, float high, float x) {
    const float t = clamp01((x - low) / (high - low));
    return t * t * (3.0f - 2.0f * t);
}
inline float mix(float a, float b, float t) {
    return a + (b - a) * t;
}

/// Uniform in [low, high), in single precision.
inline float pick(Random& random, double low, double high) {
    return static_cast<float>(random.uniform(low, high));
}
/// Uniform among the whole numbers low..high, both included.
inline int pick_int(Random& random, int low, int high) {
    return low + static_cast<int>(random.below(static_cast<uint64_t>(high - low + 1)));
}
inline bool chance(Random& random, double probability) {
    return random.uniform(0.0, 1.0) < probability;
}

/// A square of floats, row by row.
struct Plane {
    int size = 0;
    std::vector<float> values;

    void reset(int new_size, float value) {
        size = new_size;
        values.assign(static_cast<size_t>(size) * static_cast<size_t>(size), value);
    }
    float* row(int y) { return values.data() + static_cast<size_t>(y) * static_cast<size_t>(size); }
    const float* row(int y) const { return values.data() + static_cast<size_t>(y) * static_cast<size_t>(size); }
};

/// One picture before the camera sees it. Kept by a worker from picture to picture, so that memory is asked for once.
struct Canvas {
    int size = 0;    ///< pixels
    float unit = 1;  ///< units a pixel: 256 / size
    Plane albedo;    ///< reflectance, about 0..1
    Plane relief;    ///< height in units, positive towards the camera
    Plane warmth;    ///< discolouration, -1 (blue) .. 1 (rust); meaningful only when `coloured`
    bool coloured = false;
    std::vector<uint8_t> mask;  ///< 255 where a defect lies, else 0

    void reset(int new_size);
    bool has_defect() const;
};

/// Smooth noise in [-1, 1] with one knot a unit square, repeating every 256.
class Noise {
  public:
    explicit Noise(Random& random);

    float at(float x, float y) const {
        const int ix = floor_of(x), iy = floor_of(y);
        float fx = x - static_cast<float>(ix), fy = y - static_cast<float>(iy);
        fx = fx * fx * (3.0f - 2.0f * fx);
        fy = fy * fy * (3.0f - 2.0f * fy);
        const float* upper = &knots_[static_cast<size_t>(iy & kMask) * kSide];
        const float* lower = &knots_[static_cast<size_t>((iy + 1) & kMask) * kSide];
        const int left = ix & kMask, right = (ix + 1) & kMask;
        return mix(mix(upper[left], upper[right], fx), mix(lower[left], lower[right], fx), fy);
    }
    /// The raw knot: one number in [-1, 1] for a pair of whole numbers.
    float knot(int x, int y) const { return knots_[static_cast<size_t>(y & kMask) * kSide + (x & kMask)]; }

    static int floor_of(float x) {
        const int whole = static_cast<int>(x);
        return whole - (static_cast<float>(whole) > x ? 1 : 0);
    }

  private:
    static constexpr int kSide = 256, kMask = kSide - 1;
    std::vector<float> knots_;
};

/// Adds `gain` times noise, stretched to cells of `along` x `across` units, `along` lying in the direction `axis`.
void add_noise(Plane& plane, const Noise& noise, Random& random, Point axis, float along, float across, float gain);

}  // namespace rn50::defects
