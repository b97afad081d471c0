// Operations, policies, blur, noise, erasing and rotations, beside torchvision's own results.
#include <algorithm>
#include <cmath>
#include <sstream>

#include "base/exact.h"
#include "pipeline/augment.h"
#include "pipeline/filters.h"
#include "pipeline_support.h"

using namespace rn50;
using namespace rn50::test;

namespace {

std::vector<std::vector<std::string>> lines_of(const char* file) {
    const std::vector<uint8_t> bytes = read_file(golden_path(cat("../augment/", file)));
    std::istringstream in(std::string(bytes.begin(), bytes.end()));
    std::vector<std::vector<std::string>> lines;
    for (std::string line; std::getline(in, line);) {
        std::istringstream words(line);
        lines.emplace_back();
        for (std::string word; words >> word;)
            lines.back().push_back(word);
    }
    return lines;
}

Op op_named(const std::string& name) {
    static const char* const names[op_count] = {"Identity",  "ShearX",     "ShearY",       "TranslateX", "TranslateY",
                                                "Rotate",    "Brightness", "Color",        "Contrast",   "Sharpness",
                                                "Posterize", "Solarize",   "AutoContrast", "Equalize"};
    for (int op = 0; op < op_count; ++op)
        if (name == names[op]) return static_cast<Op>(op);
    FAIL(name);
    return Op::identity;
}

bool is_enhancement(Op op) {
    return (op >= Op::brightness && op <= Op::sharpness) || op == Op::autocontrast;
}

constexpr uint8_t grey[3] = {114, 114, 114};

PictureOptions flat_options(int64_t size = 20) {
    PictureOptions options;
    options.augment = Augment::flip;
    options.image_size = size;
    return options;
}

std::vector<uint8_t> rendered(const Picture& picture, const PictureOptions& options,
                              const AugmentParameters* drawn = nullptr) {
    std::vector<uint8_t> dst(static_cast<size_t>(options.image_size * options.image_size * options.channels), 3);
    render(picture, options, drawn, dst.data());
    return dst;
}

double quantile(std::vector<double> values, double q) {
    std::sort(values.begin(), values.end());
    return values[static_cast<size_t>(q * static_cast<double>(values.size() - 1))];
}

}  // namespace

TEST_CASE("policy: each operation gives torchvision's pixels") {
    std::vector<uint8_t> scratch;
    int compared = 0, changed = 0;
    for (const auto& line : lines_of("cases.txt")) {
        if (line[1] == "Blur") continue;
        CAPTURE(line[0]);
        const Op op = op_named(line[1]);
        const Picture expected = golden_rgb(cat("../augment/", line[0]));
        const Picture picture = formula_picture(expected.height, expected.width);
        std::vector<uint8_t> pixels = picture.rgb;
        apply_op({op, std::stod(line[2])}, pixels.data(), expected.height, 3, grey, scratch);
        CHECK(difference(pixels, expected.rgb) <= (is_enhancement(op) ? 1 : 0));
        changed += difference(pixels, picture.rgb) > 1;
        ++compared;
    }
    CHECK(compared == 36);
    CHECK(changed == 34);  // all but the mildest posterize and solarize
}

TEST_CASE("policy: magnitudes are torchvision's, step by step") {
    int compared = 0;
    for (const auto& line : lines_of("spaces.txt")) {
        CAPTURE(cat(line[0], " ", line[1], " ", line[2]));
        const Op op = op_named(line[1]);
        const int step = std::stoi(line[2]);
        const bool wide = line[0] == "trivial", is_signed = line[4] == "1";
        const PictureOp plain = wide ? trivial_op(op, step, false) : randaugment_op(op, step, false, 224);
        const PictureOp other = wide ? trivial_op(op, step, true) : randaugment_op(op, step, true, 224);
        CHECK(plain.op == op);
        CHECK(plain.magnitude == doctest::Approx(std::stod(line[3])).epsilon(1e-6));
        CHECK(other.magnitude == (is_signed ? -plain.magnitude : plain.magnitude));
        ++compared;
    }
    CHECK(compared == 2 * op_count * 8);
}

TEST_CASE("policy: every operation is drawn as often, with its sign, and is a function of the sample") {
    PictureOptions options = flat_options(64);
    options.augment = Augment::randaugment;
    options.randaugment_ops = 3;
    const auto draw = [&](int64_t sample) { return draw_augment(options, 100, 100, 5, 6, sample).policy; };
    double counts[op_count] = {}, negative = 0, with_sign = 0;
    const int n = 20000;
    for (int i = 0; i < n; ++i) {
        const Policy policy = draw(i);
        REQUIRE(policy.count == 3);
        for (int k = 0; k < 3; ++k) {
            const PictureOp& op = policy.ops[static_cast<size_t>(k)];
            ++counts[static_cast<int>(op.op)];
            if (op.op < Op::shear_x || op.op > Op::sharpness) continue;
            ++with_sign;
            negative += op.magnitude < 0;
        }
    }
    for (const double count : counts)
        CHECK(count / (3.0 * n) == doctest::Approx(1.0 / op_count).epsilon(0.05));
    CHECK(negative / with_sign == doctest::Approx(0.5).epsilon(0.02));
    const Policy once = draw(7), again = draw(7);
    for (size_t k = 0; k < 3; ++k)
        CHECK((once.ops[k].op == again.ops[k].op && once.ops[k].magnitude == again.ops[k].magnitude));

    options.augment = Augment::trivial;
    double steps = 0, bright = 0;
    for (int i = 0; i < n; ++i) {
        const Policy policy = draw(i);
        REQUIRE(policy.count == 1);
        if (policy.ops[0].op != Op::brightness) continue;
        steps += std::abs(policy.ops[0].magnitude) / 0.99 * 30;
        ++bright;
    }
    CHECK(steps / bright == doctest::Approx(15).epsilon(0.05));
    CHECK(draw_augment(options, 100, 100, 5, 6, 1).cropped);
}

TEST_CASE("policy: operations on one channel are those on three equal ones") {
    Picture picture = formula_picture(20, 20);
    std::vector<uint8_t> gray, scratch;
    for (size_t i = 0; i < picture.rgb.size(); i += 3) {
        gray.push_back(picture.rgb[i]);
        picture.rgb[i + 1] = picture.rgb[i + 2] = picture.rgb[i];
    }
    for (int op = 0; op < op_count; ++op) {
        CAPTURE(op);
        const PictureOp drawn = trivial_op(static_cast<Op>(op), 17, true);
        std::vector<uint8_t> one = gray, three = picture.rgb;
        apply_op(drawn, one.data(), 20, 1, grey, scratch);
        apply_op(drawn, three.data(), 20, 3, grey, scratch);
        bool equal = true;
        for (size_t i = 0; i < three.size(); ++i)
            equal = equal && three[i] == one[i / 3];
        CHECK(equal);
    }
}

TEST_CASE("policy: the rarest pictures survive every operation") {
    std::vector<uint8_t> scratch;
    std::vector<uint16_t> blurred;
    for (const uint8_t value : {0, 77, 255})
        for (int op = 0; op < op_count; ++op)
            for (const int64_t size : {1, 2, 16}) {
                std::vector<uint8_t> flat(static_cast<size_t>(size * size * 3), value);
                const std::vector<uint8_t> before = flat;
                apply_op(randaugment_op(static_cast<Op>(op), 30, false, size), flat.data(), size, 3, grey, scratch);
                if (op == static_cast<int>(Op::autocontrast) || op == static_cast<int>(Op::equalize) ||
                    op == static_cast<int>(Op::sharpness))
                    CHECK(flat == before);
                gaussian_blur(5, flat.data(), size, 3, blurred);
            }
}

TEST_CASE("filters: blur is within 1 of torchvision's, and a flat picture stays flat") {
    const Picture picture = formula_picture(20, 20);
    std::vector<uint16_t> scratch;
    int compared = 0;
    for (const auto& line : lines_of("cases.txt")) {
        if (line[1] != "Blur") continue;
        CAPTURE(line[0]);
        std::vector<uint8_t> pixels = picture.rgb;
        gaussian_blur(std::stod(line[2]), pixels.data(), 20, 3, scratch);
        CHECK(difference(pixels, golden_rgb(cat("../augment/", line[0])).rgb) <= 1);
        ++compared;
    }
    CHECK(compared == 4);
    for (const uint8_t value : {0, 1, 128, 254, 255}) {
        std::vector<uint8_t> flat(40 * 40, value);
        gaussian_blur(3.3, flat.data(), 40, 1, scratch);
        CHECK(std::count(flat.begin(), flat.end(), value) == 1600);
    }
}

TEST_CASE("filters: noise is normal, with the deviation asked for") {
    const int64_t n = 200000;
    for (const int32_t deviation : {2 * 256, 12 * 256 + 128}) {
        std::vector<uint8_t> pixels(static_cast<size_t>(n), 128);
        add_noise(deviation, {1, 2, 3}, pixels.data(), n);
        double sum = 0, squares = 0, beyond = 0;
        const double expected = deviation / 256.0;
        for (const uint8_t p : pixels) {
            const double delta = p - 128.0;
            sum += delta;
            squares += delta * delta;
            beyond += std::abs(delta) > 2 * expected;
        }
        CHECK(std::abs(sum / static_cast<double>(n)) < 0.02 * expected + 0.01);
        // Rounding to whole levels adds 1/12.
        CHECK(squares / static_cast<double>(n) == doctest::Approx(expected * expected + 1 / 12.0).epsilon(0.02));
        if (deviation > 1000) CHECK(beyond / static_cast<double>(n) == doctest::Approx(0.0455).epsilon(0.06));
    }
    std::vector<uint8_t> dark(1000, 0), again(1000, 0), other(1000, 0);
    add_noise(9999, {1, 2, 3}, dark.data(), 1000);
    add_noise(9999, {1, 2, 3}, again.data(), 1000);
    add_noise(9999, {1, 3, 3}, other.data(), 1000);
    CHECK(dark == again);
    CHECK(dark != other);
    CHECK(std::count(dark.begin(), dark.end(), 0) > 450);
}

TEST_CASE("augment: erased areas are distributed as torchvision's") {
    // 100,000 draws of torchvision 0.29 after torch.manual_seed(0):
    //   RandomErasing.get_params(torch.empty(3, 96, 96), (0.02, 0.33), (0.3, 3.3), [0.0])
    // the area's share and its quantiles, height / width and its quantiles, the deviation of the centre's y.
    const double areas[5] = {0.0358, 0.0977, 0.1749, 0.2520, 0.3132}, ratios[5] = {0.34, 0.549, 1.0, 1.8056, 2.9167};
    const double levels[5] = {0.05, 0.25, 0.5, 0.75, 0.95};
    PictureOptions options = flat_options(96);
    options.erasing = 0.25;
    std::vector<double> area, ratio;
    double center = 0, squares = 0;
    const int n = 80000;
    for (int i = 0; i < n; ++i) {
        const pixel::Area erased = draw_augment(options, 50, 50, 3, 4, i).erased;
        if (erased.height == 0) continue;
        REQUIRE((erased.y >= 0 && erased.x >= 0 && erased.y + erased.height <= 96 && erased.x + erased.width <= 96));
        area.push_back(erased.height * erased.width / 9216.0);
        ratio.push_back(static_cast<double>(erased.height) / erased.width);
        const double y = (erased.y + erased.height / 2.0) / 96;
        center += y;
        squares += y * y;
    }
    const auto found = static_cast<double>(area.size());
    CHECK(found / n == doctest::Approx(0.25).epsilon(0.02));
    for (int q = 0; q < 5; ++q) {
        CHECK(quantile(area, levels[q]) == doctest::Approx(areas[q]).epsilon(0.04));
        CHECK(quantile(ratio, levels[q]) == doctest::Approx(ratios[q]).epsilon(0.04));
    }
    center /= found;
    CHECK(center == doctest::Approx(0.5).epsilon(0.01));
    CHECK(std::sqrt(squares / found - center * center) == doctest::Approx(0.1783).epsilon(0.02));
    options.erasing = 1;  // one of the ten tries fits, as in all of torchvision's draws
    for (int i = 0; i < n; ++i)
        REQUIRE(draw_augment(options, 50, 50, 3, 4, i).erased.height > 0);
}

TEST_CASE("augment: an erased area is filled, and nothing else is touched") {
    const Picture picture = formula_picture(20, 20);
    PictureOptions options = flat_options();
    const std::vector<uint8_t> before = rendered(picture, options);
    AugmentParameters drawn;
    drawn.erased = {3, 5, 7, 9};
    drawn.key = {1, 2, 3};
    for (const bool noise : {false, true}) {
        options.erasing_noise = noise;
        const std::vector<uint8_t> after = rendered(picture, options, &drawn);
        double sum = 0;
        for (size_t i = 0; i < after.size(); ++i) {
            const auto y = static_cast<int64_t>(i / 60), x = static_cast<int64_t>(i / 3 % 20);
            const bool inside = y >= 3 && y < 10 && x >= 5 && x < 14;
            if (!inside) REQUIRE(after[i] == before[i]);
            if (inside && !noise) REQUIRE(after[i] == options.erasing_fill[i % 3]);
            if (inside) sum += after[i];
        }
        if (noise) CHECK(sum / (7 * 9 * 3) == doctest::Approx(127.5).epsilon(0.15));
    }
}

TEST_CASE("augment: quarter turns go counter-clockwise, before the flips") {
    const int64_t size = 5;
    const Picture picture = formula_picture(size, size);
    const PictureOptions options = flat_options(size);
    const auto at = [&](const std::vector<uint8_t>& pixels, int64_t y, int64_t x) {
        return &pixels[static_cast<size_t>((y * size + x) * 3)];
    };
    std::vector<uint8_t> turned = picture.rgb;
    for (uint8_t turns = 0; turns < 4; ++turns) {
        for (const int flips : {0, 1, 2, 3}) {
            AugmentParameters drawn;
            drawn.turns = turns;
            drawn.flip_horizontal = flips & 1;
            drawn.flip_vertical = flips & 2;
            const std::vector<uint8_t> got = rendered(picture, options, &drawn);
            bool equal = true;
            for (int64_t y = 0; y < size; ++y)
                for (int64_t x = 0; x < size; ++x)
                    equal = equal && std::memcmp(at(got, y, x),
                                                 at(turned, flips & 2 ? 4 - y : y, flips & 1 ? 4 - x : x), 3) == 0;
            CHECK(equal);
        }
        const std::vector<uint8_t> last = turned;  // as numpy.rot90: what was the right column becomes the top row
        for (int64_t y = 0; y < size; ++y)
            for (int64_t x = 0; x < size; ++x)
                std::memcpy(&turned[static_cast<size_t>((y * size + x) * 3)], at(last, x, size - 1 - y), 3);
    }
}

TEST_CASE("augment: what is new is off unless asked for, and drawn by itself") {
    PictureOptions options = flat_options();
    const auto plain = draw_augment(options, 30, 30, 1, 2, 3);
    CHECK((plain.turns == 0 && plain.policy.count == 0 && plain.blur == 0 && plain.noise == 0 &&
           plain.erased.height == 0));
    options.rotate90 = true;
    options.blur = 2;
    options.noise = 0.1;
    options.erasing = 1;
    double turns[4] = {}, blurred = 0, least = 9, most = 0, loudest = 0;
    const int n = 4000;
    for (int i = 0; i < n; ++i) {
        const AugmentParameters drawn = draw_augment(options, 30, 30, 1, 2, i);
        REQUIRE(drawn.flip_horizontal == draw_augment(flat_options(), 30, 30, 1, 2, i).flip_horizontal);
        ++turns[drawn.turns];
        loudest = std::max(loudest, drawn.noise / 256.0 / 255);
        if (drawn.blur == 0) continue;
        ++blurred;
        least = std::min(least, drawn.blur);
        most = std::max(most, drawn.blur);
    }
    for (const double count : turns)
        CHECK(count / n == doctest::Approx(0.25).epsilon(0.1));
    CHECK(blurred / n == doctest::Approx(0.5).epsilon(0.05));
    CHECK((least >= 0.1 && least < 0.12 && most < 2 && most > 1.98));
    CHECK((loudest < 0.1 && loudest > 0.099));
}

TEST_CASE("exact: logarithm, exponential, sine and cosine are libm's to a few last bits") {
    for (double x = -700; x <= 700; x += 0.731)
        CHECK(exact_exp(x) == doctest::Approx(std::exp(x)).epsilon(1e-12));
    for (double x = 1e-300; x < 1e300; x *= 7.3)
        CHECK(exact_log(x) == doctest::Approx(std::log(x)).epsilon(1e-14));
    for (double degrees = -360; degrees <= 360; degrees += 0.37) {
        const SineCosine got = exact_sine_cosine(degrees);
        const double radians = degrees / 180 * std::acos(-1.0);
        CHECK(std::abs(got.sine - std::sin(radians)) < 2e-15);
        CHECK(std::abs(got.cosine - std::cos(radians)) < 2e-15);
    }
    CHECK(exact_sine_cosine(90).cosine == 0);
    CHECK(exact_sine_cosine(-180).sine == 0);
}

TEST_CASE("pipeline: one channel is the luma of colour and a grey picture's own values") {
    PictureOptions options = flat_options();
    options.channels = 1;
    const Picture picture = formula_picture(20, 20);
    const std::vector<uint8_t> got = rendered(picture, options);
    REQUIRE(got.size() == 400);
    for (size_t i = 0; i < got.size(); ++i) {
        const uint8_t* p = &picture.rgb[i * 3];
        CHECK(std::abs(got[i] - (0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2])) <= 0.501);
    }
    Picture gray;
    gray.height = 16;
    gray.width = 16;
    for (int value = 0; value < 256; ++value)
        gray.rgb.insert(gray.rgb.end(), 3, static_cast<uint8_t>(value));
    options.image_size = 16;
    const std::vector<uint8_t> same = rendered(gray, options);
    for (size_t i = 0; i < 256; ++i)
        CHECK(same[i] == i);
}
