#include "camera.h"

#include <algorithm>
#include <cmath>

namespace rn50::defects {

namespace {

/// One lamp at a side and a lens in front.
struct Lamp {
    Point side;      ///< direction from which it shines
    float relief;    ///< how strongly slopes show
    float falloff;   ///< brightness lost from its side to the other
    float vignette;  ///< brightness lost from the centre to a corner
    float hot;       ///< brightness of its reflection
    Point hot_spot;
    float hot_radius;
};

Lamp random_lamp(Random& random, const Look& look) {
    Lamp lamp{};
    lamp.side = direction(random.uniform(0, 1));
    lamp.relief = pick(random, 0.8, 1.2);
    lamp.falloff = pick(random, 0.05, 0.4);
    lamp.vignette = pick(random, 0.04, 0.22);
    lamp.hot = 0.28f * look.gloss * random.uniform();
    lamp.hot_spot = Point{128, 128} + lamp.side * pick(random, 0, 150);
    lamp.hot_radius = pick(random, 45, 110);
    return lamp;
}

/// Light on each pixel of row `y`: the reflectance, its slope towards the lamp, and the lamp's unevenness.
void light_row(const Canvas& canvas, const Lamp& lamp, int y, float* out) {
    const int size = canvas.size;
    const float* above = canvas.relief.row(std::max(y - 1, 0));
    const float* here = canvas.relief.row(y);
    const float* below = canvas.relief.row(std::min(y + 1, size - 1));
    const float* albedo = canvas.albedo.row(y);
    const float per_unit = 0.5f * lamp.relief / canvas.unit;
    const float py = static_cast<float>(y) * canvas.unit - 128.0f;
    const float hot_inverse = 1.0f / (lamp.hot_radius * lamp.hot_radius);
    const float hot_y = py + 128.0f - lamp.hot_spot.y;
    for (int x = 0; x < size; ++x) {
        const float dx = here[std::min(x + 1, size - 1)] - here[std::max(x - 1, 0)];
        const float slope = -per_unit * (dx * lamp.side.x + (below[x] - above[x]) * lamp.side.y);
        const float shade = slope / std::sqrt(1.0f + slope * slope);
        const float px = static_cast<float>(x) * canvas.unit - 128.0f;
        const float even = 1.0f + lamp.falloff * (px * lamp.side.x + py * lamp.side.y) * (0.5f / 128.0f) -
                           lamp.vignette * (px * px + py * py) * (0.5f / (128.0f * 128.0f));
        const float hot_x = px + 128.0f - lamp.hot_spot.x;
        const float shine = lamp.hot / (1.0f + (hot_x * hot_x + hot_y * hot_y) * hot_inverse);
        out[x] = albedo[x] * (1.0f + shade) * (even + shine);
    }
}

/// A lens spreads each point: [w, 1 - 2w, w] along the row.
void blur_row(float* row, int size, float w) {
    float before = row[0];
    for (int x = 0; x < size; ++x) {
        const float here = row[x];
        row[x] = here + w * (before - 2.0f * here + row[std::min(x + 1, size - 1)]);
        before = here;
    }
}

/// Bright parts bend towards white instead of clipping.
float film(float light) {
    constexpr float kKnee = 0.8f;
    if (light <= kKnee) return std::max(light, 0.0f);
    const float over = (light - kKnee) / (1.0f - kKnee);
    return kKnee + (1.0f - kKnee) * over / (1.0f + over);
}

uint8_t byte_of(float value) {
    return static_cast<uint8_t>(std::clamp(value, 0.0f, 255.0f) + 0.5f);
}

}  // namespace

void scatter_dust(Canvas& canvas, Random& random) {
    const int specks = pick_int(random, 0, 5);
    for (int i = 0; i < specks; ++i) {
        const Point at{pick(random, 0, kWidth), pick(random, 0, kWidth)};
        const float radius = pick(random, 0.8, 1.8), tone = pick(random, -0.35, 0.5);
        const auto first = [&](float from) { return std::max(static_cast<int>((from - radius) / canvas.unit), 0); };
        const auto last = [&](float to) {
            return std::min(static_cast<int>((to + radius) / canvas.unit), canvas.size - 1);
        };
        for (int y = first(at.y); y <= last(at.y); ++y) {
            for (int x = first(at.x); x <= last(at.x); ++x) {
                const float dx = static_cast<float>(x) * canvas.unit - at.x,
                            dy = static_cast<float>(y) * canvas.unit - at.y;
                const float cover = 1.0f - (dx * dx + dy * dy) / (radius * radius);
                if (cover > 0.0f) canvas.albedo.row(y)[x] *= 1.0f + tone * cover;
            }
        }
    }
}

void photograph(const Canvas& canvas, Random& random, const Look& look, std::vector<uint8_t>& rgb) {
    const int size = canvas.size;
    const auto width = static_cast<size_t>(size);
    const Lamp lamp = random_lamp(random, look);
    const float softness = pick(random, 0.08, 0.25);
    const float grain = pick(random, 2.0, 6.0);
    const float exposure = 255.0f * pick(random, 0.88, 1.12);
    rgb.resize(3 * width * width);

    // Three lit rows at a time are all that the blur down the columns needs.
    std::vector<float> rows[3];
    for (std::vector<float>& row : rows)
        row.resize(width);
    const auto light = [&](int y) {
        float* row = rows[y % 3].data();
        light_row(canvas, lamp, y, row);
        blur_row(row, size, softness);
        return row;
    };
    const float* above = light(0);
    const float* here = above;
    for (int y = 0; y < size; ++y) {
        const float* below = y + 1 < size ? light(y + 1) : here;
        uint8_t* out = rgb.data() + 3 * width * static_cast<size_t>(y);
        const float* warmth = canvas.warmth.row(y);
        for (int x = 0; x < size; ++x, out += 3) {
            const float level = here[x] + softness * (above[x] - 2.0f * here[x] + below[x]);
            // Four bytes of chance: their sum is nearly normal and common to the colours, their differences are not.
            const uint32_t bits = random.u32();
            const auto part = [&](int i) { return static_cast<float>(bits >> (8 * i) & 255u); };
            const float value = exposure * film(level);
            const float noise = grain * (0.5f + value * (1.0f / 255.0f)) * (1.0f / 148.0f);
            const float common = value + noise * (part(0) + part(1) + part(2) + part(3) - 510.0f);
            const float warm = canvas.coloured ? 0.5f * warmth[x] : 0.0f;
            out[0] = byte_of(common * look.red * (1.0f + warm) + noise * 0.5f * (part(0) - part(1)));
            out[1] = byte_of(common * look.green);
            out[2] = byte_of(common * look.blue * (1.0f - warm) + noise * 0.5f * (part(2) - part(3)));
        }
        above = here;
        here = below;
    }
}

}  // namespace rn50::defects
