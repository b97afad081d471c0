#include "surface.h"

#include <cmath>

namespace rn50::defects {

namespace {

/// Mostly along the edges of the picture, as parts lie under a line camera, never quite straight.
Point grain_direction(Random& random) {
    const double side = chance(random, 0.5) ? 0.25 : 0.0;
    return direction(side + random.uniform(-0.03, 0.03));
}

void brushed(Canvas& canvas, const Noise& noise, Random& random, Point grain) {
    const float depth = pick(random, 0.5, 1.0);
    add_noise(canvas.albedo, noise, random, grain, 150, 1.4f, 0.11f * depth);
    add_noise(canvas.albedo, noise, random, grain, 50, 0.9f, 0.10f * depth);
    add_noise(canvas.albedo, noise, random, grain, 260, 8, 0.06f * depth);
}

void honed(Canvas& canvas, const Noise& noise, Random& random, Point grain) {
    const float depth = pick(random, 0.5, 1.0);
    const float slope = pick(random, 0.35, 0.6);
    for (const float side : {-1.0f, 1.0f}) {
        const Point raw = grain + normal(grain) * (side * slope);
        const Point axis = raw * (1.0f / std::sqrt(1.0f + slope * slope));
        add_noise(canvas.albedo, noise, random, axis, 110, 1.7f, 0.10f * depth);
        add_noise(canvas.albedo, noise, random, axis, 60, 1.0f, 0.07f * depth);
    }
}

/// Tool marks: brightness as a function of one number for each pixel, the way of the tool across it. `field(x, y)` in
/// units; a mark each `pitch` units; `scallop` is how much of a mark is its rounded valley rather than chance.
template <class Field>
void tool_marks(Canvas& canvas, const Noise& noise, Random& random, float pitch, float scallop, float gain,
                const Field& field) {
    constexpr int kSteps = 8192;  // the profile repeats after 8192 / 8 = 1024 units, farther than any field reaches
    constexpr float kPerUnit = 8;
    std::vector<float> profile(kSteps + 1);
    const float row = 256.0f * random.uniform();
    for (int i = 0; i <= kSteps; ++i) {
        const float at = static_cast<float>(i) / kPerUnit;
        const float mark = at / pitch + 0.35f * noise.at(at / (3.0f * pitch), row);
        const float within = mark - std::floor(mark);
        const float valley =
            4.0f * within * (1.0f - within) * (1.0f + 0.5f * noise.knot(Noise::floor_of(mark), 7)) - 0.7f;
        const float chatter =
            0.7f * noise.at(at / 0.9f, row + 9.5f) + 0.5f * noise.at(at / (1.7f * pitch), row + 20.5f);
        profile[static_cast<size_t>(i)] = gain * mix(chatter, valley, scallop);
    }
    for (int y = 0; y < canvas.size; ++y) {
        float* albedo = canvas.albedo.row(y);
        for (int x = 0; x < canvas.size; ++x) {
            const float at = field(static_cast<float>(x) * canvas.unit, static_cast<float>(y) * canvas.unit) * kPerUnit;
            const int step = Noise::floor_of(at);
            const float* knot = &profile[static_cast<size_t>(step & (kSteps - 1))];
            albedo[x] += mix(knot[0], knot[1], at - static_cast<float>(step));
        }
    }
}

void turned(Canvas& canvas, const Noise& noise, Random& random, Point grain) {
    const Point centre = Point{128, 128} + direction(random.uniform(0, 1)) * pick(random, 20, 330);
    const float depth = pick(random, 0.5, 1.0);
    tool_marks(canvas, noise, random, pick(random, 2.2, 5.0), 0.5f, 0.2f * depth, [centre](float x, float y) {
        const float dx = x - centre.x, dy = y - centre.y;
        return std::sqrt(dx * dx + dy * dy);
    });
    // Concentric grooves throw the lamp back in two opposite fans.
    const float sheen = pick(random, 0.1, 0.28);
    for (int y = 0; y < canvas.size; ++y) {
        float* albedo = canvas.albedo.row(y);
        for (int x = 0; x < canvas.size; ++x) {
            const float dx = static_cast<float>(x) * canvas.unit - centre.x;
            const float dy = static_cast<float>(y) * canvas.unit - centre.y;
            const float along = dx * grain.x + dy * grain.y;
            albedo[x] *= 1.0f + sheen * (2.0f * along * along / (dx * dx + dy * dy + 30.0f) - 1.0f);
        }
    }
    add_noise(canvas.albedo, noise, random, grain, 1.6f, 1.6f, 0.04f);
}

void milled(Canvas& canvas, const Noise& noise, Random& random, Point grain) {
    const float radius = pick(random, 190, 420);
    const float axis = pick(random, -40, 40);
    const float depth = pick(random, 0.5, 1.0);
    tool_marks(canvas, noise, random, pick(random, 8, 15), 0.6f, 0.19f * depth, [=](float x, float y) {
        const float u = (x - 128) * grain.x + (y - 128) * grain.y, v = (y - 128) * grain.x - (x - 128) * grain.y - axis;
        return u + std::sqrt(std::max(radius * radius - v * v, 100.0f)) + 400.0f;
    });
    add_noise(canvas.albedo, noise, random, grain, 2.0f, 2.0f, 0.05f);
}

/// Threads crossing at right angles. In a plain weave every second crossing shows the warp; in a twill two of four,
/// moved by one from row to row, which makes its diagonal ribs.
void woven(Canvas& canvas, const Noise& noise, Random& random, Point grain, bool twill) {
    const float pitch = pick(random, 5.0, 9.0) * (twill ? 0.85f : 1.0f);
    const float uneven = pick(random, 0.05, 0.13), contrast = pick(random, 0.14, 0.3);
    const float warp_shade = pick(random, -0.12, 0.12);
    const float wander = pick(random, 0.1, 0.4);
    const float scale = canvas.unit / pitch;
    for (int y = 0; y < canvas.size; ++y) {
        float* albedo = canvas.albedo.row(y);
        float* relief = canvas.relief.row(y);
        for (int x = 0; x < canvas.size; ++x) {
            const auto px = static_cast<float>(x) * scale, py = static_cast<float>(y) * scale;
            float u = px * grain.x + py * grain.y + 300.0f, v = py * grain.x - px * grain.y + 300.0f;
            u += wander * noise.at(v * 0.13f, 77.5f);
            v += wander * noise.at(u * 0.13f, 11.5f);
            const int iu = static_cast<int>(u), iv = static_cast<int>(v);
            const float pu = u - static_cast<float>(iu), pv = v - static_cast<float>(iv);
            const int phase = twill ? (iu + iv) & 3 : ((iu + iv) & 1) * 2;
            const bool warp = phase < 2;
            const float across = 2.0f * (warp ? pu : pv) - 1.0f, on = warp ? pv : pu;
            // Where a thread shows it is a float, one or two crossings long, that dives under the others at both ends.
            const float along = twill ? on + static_cast<float>(phase & 1) - 1.0f : 2.0f * on - 1.0f;
            const float round = 1.0f - across * across, bulge = 1.0f - 0.75f * along * along * along * along;
            const float thread = warp ? noise.knot(iu, 3) + warp_shade * 6.0f : noise.knot(5, iv);
            const float fibre = warp ? noise.at(u * 7.0f + v, v * 1.3f) : noise.at(u * 1.3f, v * 7.0f + u);
            albedo[x] += contrast * (round * bulge - 0.55f) + uneven * thread + 0.09f * fibre;
            relief[x] += 0.16f * pitch * round * bulge;
        }
    }
}

void cast_skin(Canvas& canvas, const Noise& noise, Random& random, Point grain) {
    const float depth = pick(random, 0.5, 1.0), coarse = pick(random, 0.8, 1.3);
    add_noise(canvas.relief, noise, random, grain, 10 * coarse, 10 * coarse, 1.9f * depth);
    add_noise(canvas.relief, noise, random, direction(0.1), 4.3f * coarse, 4.3f * coarse, 0.75f * depth);
    add_noise(canvas.relief, noise, random, direction(0.2), 1.8f, 1.8f, 0.3f * depth);
    add_noise(canvas.albedo, noise, random, grain, 2.2f, 2.2f, 0.05f);
}

void blasted(Canvas& canvas, const Noise& noise, Random& random, Point grain) {
    const float depth = pick(random, 0.5, 1.0);
    add_noise(canvas.relief, noise, random, grain, 2.4f, 2.4f, 0.55f * depth);
    add_noise(canvas.relief, noise, random, direction(0.1), 1.3f, 1.3f, 0.22f * depth);
    add_noise(canvas.albedo, noise, random, direction(0.07), 1.5f, 1.5f, 0.08f * depth);
}

Look look_of(Random& random, Surface surface, Point grain) {
    Look look{grain, 0, 1, 1, 1};
    if (surface == Surface::plain_weave || surface == Surface::twill) {
        look.gloss = 0;
        look.red = pick(random, 0.86, 1.06);
        look.green = pick(random, 0.92, 1.02);
        look.blue = pick(random, 0.84, 1.1);
    } else {
        const bool polished = surface != Surface::cast && surface != Surface::blasted;
        look.gloss = polished ? pick(random, 0.3, 1.0) : pick(random, 0.0, 0.3);
        const float cast = pick(random, -0.05, 0.05);  // the lamp's colour, and the alloy's
        look.red = 1.0f + cast;
        look.blue = 1.0f - cast;
    }
    return look;
}

}  // namespace

const char* name_of(Surface surface) {
    constexpr const char* kNames[kSurfaces] = {"brushed",     "honed", "turned", "milled",
                                               "plain_weave", "twill", "cast",   "blasted"};
    return kNames[static_cast<int>(surface)];
}

Look draw_surface(Canvas& canvas, const Noise& noise, Random& random, Surface surface) {
    const Point grain = grain_direction(random);
    const float level = pick(random, 0.4, 0.6);
    for (float& value : canvas.albedo.values)
        value = level;
    switch (surface) {
        case Surface::brushed:
            brushed(canvas, noise, random, grain);
            break;
        case Surface::honed:
            honed(canvas, noise, random, grain);
            break;
        case Surface::turned:
            turned(canvas, noise, random, grain);
            break;
        case Surface::milled:
            milled(canvas, noise, random, grain);
            break;
        case Surface::plain_weave:
            woven(canvas, noise, random, grain, false);
            break;
        case Surface::twill:
            woven(canvas, noise, random, grain, true);
            break;
        case Surface::cast:
            cast_skin(canvas, noise, random, grain);
            break;
        case Surface::blasted:
            blasted(canvas, noise, random, grain);
            break;
    }
    // No surface is even over its whole width.
    add_noise(canvas.albedo, noise, random, grain, 90, 60, pick(random, 0.02, 0.06));
    return look_of(random, surface, grain);
}

}  // namespace rn50::defects
