#include "pipeline/policy.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/exact.h"
#include "base/pixel_ops.h"

namespace rn50 {

namespace {

bool has_sign(Op op) {
    return op >= Op::shear_x && op <= Op::sharpness;
}

/// The largest magnitudes: those of the sign-less ones are made otherwise.
struct Space {
    double shear, translate, degrees, factor;
    int bits;  ///< that posterize drops at most
};

PictureOp op_of(Op op, int step, bool negative, const Space& space) {
    RN50_REQUIRE(step >= 0 && step <= last_magnitude_step, "magnitude ", step);
    const double share = static_cast<double>(step) / last_magnitude_step;
    double magnitude = 0;
    switch (op) {
        case Op::shear_x:
        case Op::shear_y:
            magnitude = space.shear * share;
            break;
        case Op::translate_x:
        case Op::translate_y:
            // torchvision cuts to whole pixels when it applies the operation; a little more, as its f32 steps have.
            magnitude = static_cast<double>(static_cast<int64_t>(space.translate * share + 1e-6));
            break;
        case Op::rotate:
            magnitude = space.degrees * share;
            break;
        case Op::brightness:
        case Op::color:
        case Op::contrast:
        case Op::sharpness:
            magnitude = space.factor * share;
            break;
        case Op::posterize:
            return {op,
                    static_cast<double>(8 - (2 * step * space.bits + last_magnitude_step) / (2 * last_magnitude_step))};
        case Op::solarize:
            return {op, 255 - 8.5 * step};
        case Op::identity:
        case Op::autocontrast:
        case Op::equalize:
            return {op, 0};
    }
    return {op, negative && has_sign(op) ? -magnitude : magnitude};
}

// --- geometry

/// Source coordinates a x + b y + c and d x + e y + f of the middle of output pixel (x, y).
struct Affine {
    double a, b, c, d, e, f;
};

/// 16.16 fixed point, rounded, as Pillow does nearest interpolation.
int64_t fixed(double value) {
    const double scaled = value * 65536 + 0.5;
    const auto whole = static_cast<int64_t>(scaled);
    return static_cast<double>(whole) > scaled ? whole - 1 : whole;
}

void transform(const Affine& m, uint8_t* pixels, int64_t size, int channels, const uint8_t* fill,
               std::vector<uint8_t>& scratch) {
    scratch.assign(pixels, pixels + size * size * channels);
    const int64_t a = fixed(m.a), b = fixed(m.b), d = fixed(m.d), e = fixed(m.e);
    int64_t row_x = fixed(m.c + m.a * 0.5 + m.b * 0.5), row_y = fixed(m.f + m.d * 0.5 + m.e * 0.5);
    uint8_t* dst = pixels;
    for (int64_t y = 0; y < size; ++y, row_x += b, row_y += e) {
        int64_t at_x = row_x, at_y = row_y;
        for (int64_t x = 0; x < size; ++x, at_x += a, at_y += d, dst += channels) {
            const int64_t from_x = at_x >> 16, from_y = at_y >> 16;
            const bool there = from_x >= 0 && from_x < size && from_y >= 0 && from_y < size;
            std::memcpy(dst, there ? &scratch[static_cast<size_t>((from_y * size + from_x) * channels)] : fill,
                        static_cast<size_t>(channels));
        }
    }
}

/// Pillow's Image.rotate about the middle: counter-clockwise for positive degrees.
Affine rotation(double degrees, int64_t size) {
    const SineCosine turn = exact_sine_cosine(-degrees);
    const double middle = static_cast<double>(size) / 2, s = turn.sine, c = turn.cosine;
    return {c, s, middle - c * middle - s * middle, -s, c, middle + s * middle - c * middle};
}

// --- tables by value

struct Table {
    uint8_t values[256];
};

template <class Make>
Table table_of(Make make) {
    Table table;
    for (int32_t i = 0; i < 256; ++i)
        table.values[i] = make(i);
    return table;
}

void look_up(const Table& table, uint8_t* pixels, int64_t count, int channel, int step) {
    for (uint8_t* p = pixels + channel; p < pixels + count * step; p += step)
        *p = table.values[*p];
}

struct Histogram {
    int64_t counts[256] = {};
    int lowest = 0, highest = 0;
    Histogram(const uint8_t* pixels, int64_t count, int channel, int step) {
        for (const uint8_t* p = pixels + channel; p < pixels + count * step; p += step)
            ++counts[*p];
        while (counts[lowest] == 0)
            ++lowest;
        highest = 255;
        while (counts[highest] == 0)
            --highest;
    }
};

/// ImageOps.autocontrast: the range that occurs becomes 0 to 255.
void autocontrast(uint8_t* pixels, int64_t count, int channels) {
    for (int c = 0; c < channels; ++c) {
        const Histogram found(pixels, count, c, channels);
        const int32_t lowest = found.lowest, range = found.highest - lowest;
        if (range == 0) continue;
        look_up(table_of([&](int32_t i) { return pixel::clip((i - lowest) * 255 / range); }), pixels, count, c,
                channels);
    }
}

/// ImageOps.equalize.
void equalize(uint8_t* pixels, int64_t count, int channels) {
    for (int c = 0; c < channels; ++c) {
        const Histogram found(pixels, count, c, channels);
        const int64_t step = (count - found.counts[found.highest]) / 255;
        if (step == 0) continue;
        int64_t below = step / 2;
        look_up(table_of([&](int32_t i) {
                    const int64_t value = below / step;
                    below += found.counts[i];
                    return pixel::clip(static_cast<int32_t>(value));
                }),
                pixels, count, c, channels);
    }
}

// --- enhancements

/// ImageEnhance.Sharpness: a blend with the picture smoothed by (1 1 1, 1 5 1, 1 1 1) / 13, whose edge pixels stay.
void sharpen(int32_t factor, uint8_t* pixels, int64_t size, int channels, std::vector<uint8_t>& scratch) {
    scratch.assign(pixels, pixels + size * size * channels);
    const int64_t row = size * channels;
    for (int64_t y = 1; y + 1 < size; ++y)
        for (int64_t i = channels; i < row - channels; ++i) {
            const uint8_t* p = &scratch[static_cast<size_t>(y * row + i)];
            int32_t sum = 4 * p[0];
            for (const int64_t line : {-row, int64_t{0}, row})
                sum += p[line - channels] + p[line] + p[line + channels];
            pixels[y * row + i] = pixel::blend((2 * sum + 13) / 26, p[0], factor);
        }
}

}  // namespace

PictureOp randaugment_op(Op op, int step, bool negative, int64_t size) {
    return op_of(op, step, negative, {0.3, 150.0 / 331.0 * static_cast<double>(size), 30, 0.9, 4});
}

PictureOp trivial_op(Op op, int step, bool negative) {
    return op_of(op, step, negative, {0.99, 32, 135, 0.99, 6});
}

Policy draw_randaugment(int ops, int step, int64_t size, Random random) {
    RN50_REQUIRE(ops >= 0 && ops <= max_policy_ops, ops, " operations");
    Policy policy;
    policy.count = ops;
    for (int i = 0; i < ops; ++i) {
        const auto op = static_cast<Op>(random.below(op_count));
        policy.ops[static_cast<size_t>(i)] = randaugment_op(op, step, random.below(2) == 1, size);
    }
    return policy;
}

Policy draw_trivial(Random random) {
    Policy policy;
    policy.count = 1;
    const auto op = static_cast<Op>(random.below(op_count));
    const auto step = static_cast<int>(random.below(last_magnitude_step + 1));
    policy.ops[0] = trivial_op(op, step, random.below(2) == 1);
    return policy;
}

void apply_op(const PictureOp& op, uint8_t* pixels, int64_t size, int channels, const uint8_t* fill,
              std::vector<uint8_t>& scratch) {
    const double m = op.magnitude;
    const int64_t count = size * size;
    const auto moved = [&](const Affine& affine) { transform(affine, pixels, size, channels, fill, scratch); };
    const int32_t factor = pixel::fixed_factor(static_cast<float>(1 + m));
    switch (op.op) {
        case Op::identity:
            break;
        case Op::shear_x:
            moved({1, m, 0, 0, 1, 0});
            break;
        case Op::shear_y:
            moved({1, 0, 0, m, 1, 0});
            break;
        case Op::translate_x:
            moved({1, 0, -m, 0, 1, 0});
            break;
        case Op::translate_y:
            moved({1, 0, 0, 0, 1, -m});
            break;
        case Op::rotate:
            moved(rotation(m, size));
            break;
        case Op::brightness:
            pixel::jitter(pixel::brightness, factor, pixels, count, channels);
            break;
        case Op::color:
            pixel::jitter(pixel::saturation, factor, pixels, count, channels);
            break;
        case Op::contrast:
            pixel::jitter(pixel::contrast, factor, pixels, count, channels);
            break;
        case Op::sharpness:
            sharpen(factor, pixels, size, channels, scratch);
            break;
        case Op::posterize: {
            const auto mask = static_cast<uint8_t>(0xFF << (8 - static_cast<int>(m)));
            for (int64_t i = 0; i < count * channels; ++i)
                pixels[i] &= mask;
            break;
        }
        case Op::solarize:
            for (int64_t i = 0; i < count * channels; ++i)
                if (static_cast<double>(pixels[i]) >= m) pixels[i] = static_cast<uint8_t>(255 - pixels[i]);
            break;
        case Op::autocontrast:
            autocontrast(pixels, count, channels);
            break;
        case Op::equalize:
            equalize(pixels, count, channels);
            break;
    }
}

}  // namespace rn50
