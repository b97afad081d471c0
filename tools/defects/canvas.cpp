#include "canvas.h"

#include <algorithm>
#include <cmath>

namespace rn50::defects {

namespace {

/// sin(2 pi t): Taylor's series to the 11th power on a quarter turn, exact to 1e-7.
double sine(double turns) {
    double t = turns - std::floor(turns + 0.5);
    if (t > 0.25) t = 0.5 - t;
    if (t < -0.25) t = -0.5 - t;
    const double x = t * 6.283185307179586, x2 = x * x;
    return x * (1 - x2 / 6 * (1 - x2 / 20 * (1 - x2 / 42 * (1 - x2 / 72 * (1 - x2 / 110)))));
}

}  // namespace

Point direction(double turns) {
    return {static_cast<float>(sine(turns + 0.25)), static_cast<float>(sine(turns))};
}

void Canvas::reset(int new_size) {
    size = new_size;
    unit = kWidth / static_cast<float>(size);
    albedo.reset(size, 0.5f);
    relief.reset(size, 0.0f);
    warmth.reset(size, 0.0f);
    coloured = false;
    mask.assign(albedo.values.size(), 0);
}

bool Canvas::has_defect() const {
    return std::any_of(mask.begin(), mask.end(), [](uint8_t value) { return value != 0; });
}

Noise::Noise(Random& random) : knots_(static_cast<size_t>(kSide) * kSide) {
    for (float& knot : knots_)
        knot = 2.0f * random.uniform() - 1.0f;
}

void add_noise(Plane& plane, const Noise& noise, Random& random, Point axis, float along, float across, float gain) {
    const float unit = kWidth / static_cast<float>(plane.size);
    const Point offset{256.0f * random.uniform(), 256.0f * random.uniform()};
    const Point step{unit * axis.x / along, unit * -axis.y / across};
    // Cells of many pixels are drawn at every eighth pixel and joined by straight lines: the eye sees no difference.
    const int stride = std::min(along, across) >= 32.0f * unit ? 8 : 1;
    const int knots = (plane.size - 1) / stride + 2;
    std::vector<float> above(static_cast<size_t>(knots)), below(above);
    const auto draw_row = [&](int y, std::vector<float>& row) {
        const float py = static_cast<float>(y) * unit;
        const Point start{offset.x + py * axis.y / along, offset.y + py * axis.x / across};
        for (int k = 0; k < knots; ++k) {
            const auto x = static_cast<float>(k * stride);
            row[static_cast<size_t>(k)] = gain * noise.at(start.x + x * step.x, start.y + x * step.y);
        }
    };
    if (stride == 1) {
        for (int y = 0; y < plane.size; ++y) {
            draw_row(y, above);
            float* row = plane.row(y);
            for (int x = 0; x < plane.size; ++x)
                row[x] += above[static_cast<size_t>(x)];
        }
        return;
    }
    draw_row(0, below);
    for (int y = 0; y < plane.size; ++y) {
        if (y % stride == 0) {
            above.swap(below);
            draw_row(y + stride, below);
        }
        const float fy = static_cast<float>(y % stride) / static_cast<float>(stride);
        float* row = plane.row(y);
        for (int x0 = 0, k = 0; x0 < plane.size; x0 += stride, ++k) {
            const auto left = static_cast<size_t>(k);
            const float from = mix(above[left], below[left], fy), to = mix(above[left + 1], below[left + 1], fy);
            const float slope = (to - from) / static_cast<float>(stride);
            const int end = std::min(stride, plane.size - x0);
            for (int x = 0; x < end; ++x)
                row[x0 + x] += from + slope * static_cast<float>(x);
        }
    }
}

}  // namespace rn50::defects
