#include "defect.h"

#include <algorithm>
#include <cmath>

namespace rn50::defects {

namespace {

/// The traits of one picture, once chance has settled what the style left open.
struct Traits {
    bool large, several, second;
    float strength;
    /// A length from the small or the large range.
    float length(Random& random, double small_low, double small_high, double large_low, double large_high) const {
        return large ? pick(random, large_low, large_high) : pick(random, small_low, small_high);
    }
};

Traits settle(Random& random, const Style& style) {
    const auto settle_one = [&](int trait) { return trait == Style::any ? chance(random, 0.5) : trait == 1; };
    const bool large = settle_one(style.size), several = settle_one(style.number), second = settle_one(style.character);
    return {large, several, second, style.strength};
}

/// A place from which a crop of half the picture rarely cuts everything off.
Point place(Random& random, double margin = 60) {
    return {pick(random, margin, kWidth - margin), pick(random, margin, kWidth - margin)};
}

/// Calls `paint(pixel index, x, y)` for each pixel within `reach` units of the box between two points.
template <class Paint>
void for_box(const Canvas& canvas, Point a, Point b, float reach, const Paint& paint) {
    const auto pixel = [&](float at) { return std::clamp(static_cast<int>(at / canvas.unit), 0, canvas.size - 1); };
    const int left = pixel(std::min(a.x, b.x) - reach), right = pixel(std::max(a.x, b.x) + reach);
    const int top = pixel(std::min(a.y, b.y) - reach), bottom = pixel(std::max(a.y, b.y) + reach);
    for (int y = top; y <= bottom; ++y) {
        for (int x = left; x <= right; ++x) {
            paint(static_cast<size_t>(y) * static_cast<size_t>(canvas.size) + static_cast<size_t>(x),
                  static_cast<float>(x) * canvas.unit, static_cast<float>(y) * canvas.unit);
        }
    }
}

/// A point of a stroke and its half width there, in units.
struct Knot {
    Point at;
    float half;
};

/// Raises `cover` to the stroke's cross-section, 1 on its middle line and 0 at its edge, joined over all strokes by the
/// highest.
void stroke(Canvas& canvas, std::vector<float>& cover, const std::vector<Knot>& knots) {
    for (size_t i = 0; i + 1 < knots.size(); ++i) {
        const Knot &a = knots[i], &b = knots[i + 1];
        const Point way{b.at.x - a.at.x, b.at.y - a.at.y};
        const float inverse = 1.0f / std::max(way.x * way.x + way.y * way.y, 1e-6f);
        for_box(canvas, a.at, b.at, std::max(a.half, b.half), [&](size_t pixel, float x, float y) {
            const float t = clamp01(((x - a.at.x) * way.x + (y - a.at.y) * way.y) * inverse);
            const float dx = x - a.at.x - t * way.x, dy = y - a.at.y - t * way.y;
            const float half = mix(a.half, b.half, t);
            const float d2 = (dx * dx + dy * dy) / std::max(half * half, 1e-6f);
            if (d2 < 1.0f) cover[pixel] = std::max(cover[pixel], 1.0f - d2);
        });
    }
}

/// What a covered pixel becomes; `plateau` is the cover at which the change is complete.
struct Effect {
    float tone;    ///< reflectance is multiplied by 1 + tone
    float height;  ///< added to the relief, in units
    float plateau = 0.5f;
};

void apply(Canvas& canvas, const std::vector<float>& cover, const Effect& effect) {
    const float inverse = 1.0f / effect.plateau;
    for (size_t i = 0; i < cover.size(); ++i) {
        if (cover[i] <= 0.0f) continue;
        canvas.albedo.values[i] *= 1.0f + effect.tone * clamp01(cover[i] * inverse);
        canvas.relief.values[i] += effect.height * cover[i];
        if (cover[i] > 0.15f) canvas.mask[i] = 255;
    }
}

std::vector<float> no_cover(const Canvas& canvas) {
    return std::vector<float>(canvas.albedo.values.size(), 0.0f);
}

/// Ridges along the way of the tool, so that no furrow is smooth, nor its edge a line.
void fray(const Canvas& canvas, const Noise& noise, std::vector<float>& cover, Point way) {
    for_box(canvas, {0, 0}, {kWidth, kWidth}, 0, [&](size_t pixel, float x, float y) {
        if (cover[pixel] <= 0.0f) return;
        const float along = x * way.x + y * way.y, across = y * way.x - x * way.y;
        const float ridge = noise.at(along / 17.0f, across / 0.8f) + 0.5f * noise.at(along / 3.0f, across / 0.5f);
        cover[pixel] = std::max(cover[pixel] * (0.9f + 0.4f * ridge), 0.0f);
    });
}

/// Something hard was dragged over the surface: long, straight or slightly bent, bright where the metal lies bare.
void scratch(Canvas& canvas, const Noise& noise, Random& random, const Look& look, const Traits& traits) {
    std::vector<float> furrow = no_cover(canvas), hairs = no_cover(canvas);
    const int number = traits.several ? pick_int(random, 2, 4) : 1;
    const double lean = random.uniform(-0.12, 0.12);
    const float half = traits.length(random, 2.4, 2.9, 3.0, 3.8);
    for (int i = 0; i < number; ++i) {
        const Point turn = direction((traits.second ? 0.25 : 0.0) + lean + random.uniform(-0.03, 0.03));
        const Point way = look.grain * turn.x + normal(look.grain) * turn.y;
        const float length = traits.length(random, 100, 130, 140, 215);
        const float bend = pick(random, -0.07, 0.07) * length;
        const Point middle = place(random, 75);
        std::vector<Knot> knots;
        constexpr int kSegments = 16;
        for (int k = 0; k <= kSegments; ++k) {
            const float t = static_cast<float>(k) / kSegments, off = 4.0f * t * (1.0f - t) - 0.5f;
            const float taper = std::min({1.0f, 0.25f + 6.0f * t, 0.25f + 4.0f * (1.0f - t)});
            knots.push_back({middle + way * ((t - 0.5f) * length) + normal(way) * (off * bend), half * taper});
        }
        stroke(canvas, furrow, knots);
        // What scratches has more than one edge: hair lines run beside the furrow for a part of its way.
        for (int hair = pick_int(random, 0, 3); hair > 0; --hair) {
            const size_t first = random.below(kSegments / 2), last = first + 3 + random.below(kSegments / 2 - 2);
            const float aside = pick(random, -3.0, 3.0) * half;
            std::vector<Knot> line;
            for (size_t k = first; k <= last; ++k) {
                const float end = k == first || k == last ? 0.1f : 0.35f;
                line.push_back({knots[k].at + normal(way) * aside, end * half});
            }
            stroke(canvas, hairs, line);
        }
    }
    const Point turn = direction((traits.second ? 0.25 : 0.0) + lean);
    fray(canvas, noise, furrow, look.grain * turn.x + normal(look.grain) * turn.y);
    const float tone = pick(random, 0.75, 1.0) * traits.strength;
    apply(canvas, furrow, {tone, -0.5f * half * traits.strength});
    apply(canvas, hairs, {0.8f * tone, -0.15f * half * traits.strength});
}

/// Corrosion or gas bubbles: small round dark holes with a bright burr around them, scattered or in a nest.
void pit(Canvas& canvas, const Noise& noise, Random& random, const Traits& traits) {
    std::vector<float> hole = no_cover(canvas), burr = no_cover(canvas);
    const int number = traits.several ? pick_int(random, 8, 12) : pick_int(random, 3, 5);
    const float typical = traits.length(random, 6.5, 8.0, 9.0, 12.0);
    constexpr float kBurr = 1.6f;  // its reach, in radii of the hole
    const Point nest = place(random, 80);
    for (int i = 0; i < number; ++i) {
        const float radius = typical * pick(random, 0.75, 1.25);
        Point at = place(random, 40);
        if (!traits.second) at = nest + direction(random.uniform(0, 1)) * pick(random, 0, 34.0 + 3.5 * number);
        const float squash = pick(random, 0.8, 1.0);
        for_box(canvas, at, at, radius * kBurr * 1.2f, [&](size_t pixel, float x, float y) {
            const float dx = (x - at.x) / radius, dy = (y - at.y) / (radius * squash);
            const float ragged = 1.0f + 0.25f * noise.at(x * 0.45f, y * 0.45f);
            const float far = std::sqrt((dx * dx + dy * dy) * ragged);
            hole[pixel] = std::max(hole[pixel], 1.0f - far * far);
            burr[pixel] = std::max(burr[pixel], 1.0f - std::abs(far - 1.25f) / (kBurr - 1.25f));
        });
    }
    for (size_t i = 0; i < hole.size(); ++i) {
        if (hole[i] > 0.0f) burr[i] = 0.0f;
    }
    apply(canvas, burr, {pick(random, 0.25, 0.5) * traits.strength, 0.0f});
    apply(canvas, hole, {-pick(random, 0.65, 0.85) * traits.strength, -0.55f * typical * traits.strength});
}

/// One arm of a crack: a walk that keeps its heading but never goes straight, thins out, and may fork.
void crack_arm(Canvas& canvas, std::vector<float>& cover, Random& random, Point at, double heading, float length,
               float half, int forks) {
    std::vector<Knot> knots{{at, half}};
    double drift = heading;
    float walked = 0;
    while (walked < length) {
        const float step = pick(random, 4, 9);
        walked += step;
        drift += random.uniform(-0.03, 0.03);
        at = at + direction(drift + random.uniform(-0.13, 0.13)) * step;
        const float left = clamp01(1.0f - walked / length);
        knots.push_back({at, half * (0.4f + 0.6f * left) * pick(random, 0.75, 1.2)});
        if (forks > 0 && walked > 0.2f * length && chance(random, 0.3)) {
            --forks;
            const double turn = random.uniform(0.09, 0.17) * (chance(random, 0.5) ? 1 : -1);
            crack_arm(canvas, cover, random, at, drift + turn, pick(random, 0.3, 0.55) * length, 0.75f * half,
                      forks / 2);
        }
    }
    stroke(canvas, cover, knots);
}

/// The material gave way: a dark, jagged, forking line.
void crack(Canvas& canvas, Random& random, const Look& look, const Traits& traits) {
    std::vector<float> cover = no_cover(canvas);
    const int number = traits.several ? 2 : 1;
    for (int i = 0; i < number; ++i) {
        const float length = traits.length(random, 105, 125, 135, 190) * (traits.several ? 0.8f : 1.0f);
        const float half = traits.length(random, 2.7, 3.2, 3.4, 4.2);
        const double along_x = look.grain.x * look.grain.x > 0.5f ? 0.0 : 0.25;
        const double heading = along_x + (traits.second ? 0.25 : 0.0) + random.uniform(-0.1, 0.1);
        const Point middle = place(random, 85);
        for (const double back : {0.0, 0.5}) {  // it grew both ways from where it opened
            const float arm = length * pick(random, 0.5, 0.65);
            crack_arm(canvas, cover, random, middle, heading + back, arm, half, pick_int(random, 1, 2));
        }
    }
    apply(canvas, cover, {-pick(random, 0.65, 0.85) * traits.strength, -1.2f * traits.strength, 0.35f});
}

/// The outline shared by inclusions and stains: an ellipse whose edge wanders. Below 0 inside, in parts of the radius.
struct Blob {
    Point centre, axis;
    float radius, squash, ragged, fine;
    float seed;

    float at(const Noise& noise, float x, float y) const {
        const float u = ((x - centre.x) * axis.x + (y - centre.y) * axis.y) / radius;
        const float v = ((y - centre.y) * axis.x - (x - centre.x) * axis.y) / (radius * squash);
        const float far = std::sqrt(u * u + v * v);
        if (far > 1.6f) return 1.0f;
        return far - 1.0f + ragged * noise.at(u * 1.7f + seed, v * 1.7f) + fine * noise.at(u * 5.0f, v * 5.0f + seed);
    }
};

Blob random_blob(Random& random, Point centre, float radius, float ragged, float fine) {
    return {centre, direction(random.uniform(0, 1)), radius, pick(random, 0.6, 1.0), ragged,
            fine,   256.0f * random.uniform()};
}

/// Foreign matter pressed in: a compact piece with a hard edge and a grain of its own, brighter or darker.
void inclusion(Canvas& canvas, const Noise& noise, Random& random, const Traits& traits) {
    const int number = traits.several ? pick_int(random, 2, 3) : 1;
    const float tone = traits.second ? pick(random, 0.88, 1.05) : pick(random, 0.08, 0.16);
    const float rise = pick(random, 0.8, 2.0);
    for (int i = 0; i < number; ++i) {
        const float radius = traits.length(random, 18, 22, 25, 36);
        const Point centre = place(random, 65);
        const Blob blob = random_blob(random, centre, radius, 0.35f, 0.16f);
        for_box(canvas, centre, centre, radius * 1.6f, [&](size_t pixel, float x, float y) {
            const float cover = clamp01(-blob.at(noise, x, y) * radius / 1.6f);
            if (cover <= 0.0f) return;
            float& albedo = canvas.albedo.values[pixel];
            const float own = tone + 0.12f * noise.at(x * 0.4f, y * 0.4f) + 0.08f * noise.at(x * 1.1f, y * 1.1f);
            albedo = mix(albedo, own, cover * traits.strength * 0.95f);
            float& relief = canvas.relief.values[pixel];  // it lies over the threads and grooves
            relief = mix(relief, 0.35f * relief + rise, cover * traits.strength);
            if (cover > 0.5f) canvas.mask[pixel] = 255;
        });
    }
}

/// Oil, water or heat: a large soft discolouration through which the surface still shows, often with a dried rim.
void stain(Canvas& canvas, const Noise& noise, Random& random, const Traits& traits) {
    const int number = traits.several ? pick_int(random, 2, 3) : 1;
    const float tone = -pick(random, 0.36, 0.52) * traits.strength;
    const float warm = (traits.second ? -0.7f : 1.0f) * pick(random, 0.1, 0.35) * traits.strength;
    const float rim = pick(random, 0.0, 0.3) * tone;
    const float softness = pick(random, 0.25, 0.6);
    canvas.coloured = true;
    for (int i = 0; i < number; ++i) {
        const float radius = traits.length(random, 40, 48, 54, 80) * (traits.several ? 0.85f : 1.0f);
        const Point centre = place(random, 75);
        const Blob blob = random_blob(random, centre, radius, 0.4f, 0.08f);
        for_box(canvas, centre, centre, radius * 1.6f, [&](size_t pixel, float x, float y) {
            const float depth = -blob.at(noise, x, y);
            const float cover = smooth_step(-0.4f * softness, softness, depth);
            if (cover <= 0.0f) return;
            const float dried =
                smooth_step(0.0f, 0.5f * softness, depth) * (1.0f - smooth_step(0.5f * softness, softness, depth));
            canvas.albedo.values[pixel] *= 1.0f + tone * cover + rim * dried;
            float& warmth = canvas.warmth.values[pixel];
            warmth += (warm - warmth) * cover;
            if (cover > 0.4f) canvas.mask[pixel] = 255;
        });
    }
}

/// A blow: a smooth hollow, seen only because one flank turns towards the lamp and the other away.
void dent(Canvas& canvas, Random& random, const Look& look, const Traits& traits) {
    const int number = traits.several ? pick_int(random, 2, 3) : 1;
    for (int i = 0; i < number; ++i) {
        const float radius = traits.length(random, 28, 33, 37, 54);
        const float squash = traits.second ? pick(random, 0.5, 0.65) : pick(random, 0.85, 1.0);
        const Point centre = place(random, 65);
        const Point axis = chance(random, 0.5) ? look.grain : normal(look.grain);
        const float depth = pick(random, 0.44, 0.6) * radius * squash * traits.strength;
        for_box(canvas, centre, centre, radius, [&](size_t pixel, float x, float y) {
            const float u = ((x - centre.x) * axis.x + (y - centre.y) * axis.y) / radius;
            const float v = ((y - centre.y) * axis.x - (x - centre.x) * axis.y) / (radius * squash);
            const float hollow = 1.0f - (u * u + v * v);
            if (hollow <= 0.0f) return;
            canvas.relief.values[pixel] -= depth * hollow * hollow;
            if (hollow > 0.1f) canvas.mask[pixel] = 255;
        });
    }
}

/// Oxide rolled into hot strip: patches under a dull film, full of short dark flakes in the direction of rolling.
void rolled_in_scale(Canvas& canvas, const Noise& noise, Random& random, const Look& look, const Traits& traits) {
    std::vector<float> flake = no_cover(canvas);
    const int number = traits.several ? pick_int(random, 2, 3) : 1;
    const Point rolling = traits.second ? normal(look.grain) : look.grain;
    const float film = -pick(random, 0.15, 0.3) * traits.strength, rust = pick(random, 0.05, 0.15) * traits.strength;
    canvas.coloured = true;
    for (int i = 0; i < number; ++i) {
        const float reach = traits.length(random, 36, 46, 52, 76) * (traits.several ? 0.85f : 1.0f);
        const float squash = pick(random, 0.4, 0.65);
        const Point centre = place(random, 80);
        const Blob patch{centre, rolling, reach, squash, 0.3f, 0.2f, 256.0f * random.uniform()};
        for_box(canvas, centre, centre, reach * 1.6f, [&](size_t pixel, float x, float y) {
            const float cover = smooth_step(-0.15f, 0.2f, -patch.at(noise, x, y));
            canvas.albedo.values[pixel] *= 1.0f + film * cover;
            canvas.warmth.values[pixel] += (rust - canvas.warmth.values[pixel]) * cover;
            if (cover > 0.5f) canvas.mask[pixel] = 255;
        });
        const int flakes = static_cast<int>(reach * reach * squash / pick(random, 26, 36)) + 6;
        for (int k = 0; k < flakes; ++k) {
            const Point spot = direction(random.uniform(0, 1)) * std::sqrt(random.uniform());
            const Point at = centre + rolling * (spot.x * reach) + normal(rolling) * (spot.y * reach * squash);
            const Point tilt = direction(random.uniform(-0.02, 0.02));
            const Point way = rolling * tilt.x + normal(rolling) * tilt.y;
            const float length = pick(random, 4, 11), half = pick(random, 1.4, 2.6);
            stroke(canvas, flake, {{at + way * -length, 0.4f * half}, {at, half}, {at + way * length, 0.3f * half}});
        }
    }
    apply(canvas, flake, {-pick(random, 0.55, 0.75) * traits.strength, -0.6f * traits.strength});
}

}  // namespace

const char* name_of(Defect defect) {
    constexpr const char* kNames[kDefects] = {"none",      "scratch", "pit",  "crack",
                                              "inclusion", "stain",   "dent", "rolled_in_scale"};
    return kNames[static_cast<int>(defect)];
}

const char* character_of(Defect defect, int character) {
    constexpr const char* kWords[kDefects][2] = {{"", ""},
                                                 {"along the grain", "across the grain"},
                                                 {"in a nest", "scattered"},
                                                 {"along the grain", "across the grain"},
                                                 {"dark", "bright"},
                                                 {"warm", "cold"},
                                                 {"round", "long"},
                                                 {"along the grain", "across the grain"}};
    return kWords[static_cast<int>(defect)][character];
}

void draw_defect(Canvas& canvas, const Noise& noise, Random& random, const Look& look, Defect defect,
                 const Style& style) {
    const Traits traits = settle(random, style);
    switch (defect) {
        case Defect::none:
            break;
        case Defect::scratch:
            scratch(canvas, noise, random, look, traits);
            break;
        case Defect::pit:
            pit(canvas, noise, random, traits);
            break;
        case Defect::crack:
            crack(canvas, random, look, traits);
            break;
        case Defect::inclusion:
            inclusion(canvas, noise, random, traits);
            break;
        case Defect::stain:
            stain(canvas, noise, random, traits);
            break;
        case Defect::dent:
            dent(canvas, random, look, traits);
            break;
        case Defect::rolled_in_scale:
            rolled_in_scale(canvas, noise, random, look, traits);
            break;
    }
}

}  // namespace rn50::defects
