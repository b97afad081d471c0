#include "pipeline/filters.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/exact.h"

namespace rn50 {

namespace {

constexpr int weight_bits = 15;  ///< the weights of a blur add up to 1 << weight_bits

/// Weights at distances -radius to radius, rounded by their running sum so that they add up exactly.
std::vector<uint32_t> gaussian_weights(double sigma, int64_t radius) {
    std::vector<double> exact;
    double sum = 0;
    for (int64_t i = -radius; i <= radius; ++i) {
        const double distance = static_cast<double>(i) / sigma;
        exact.push_back(exact_exp(-0.5 * distance * distance));
        sum += exact.back();
    }
    std::vector<uint32_t> weights;
    double running = 0;
    uint32_t rounded = 0;
    for (const double weight : exact) {
        running += weight / sum;
        const auto next = static_cast<uint32_t>(running * (1 << weight_bits) + 0.5);
        weights.push_back(next - rounded);
        rounded = next;
    }
    return weights;
}

int64_t mirrored(int64_t i, int64_t size) {
    return i < 0 ? -i : i >= size ? 2 * size - 2 - i : i;
}

/// Normal numbers of deviation 1 in units of 2^-12, at 4096 evenly spread probabilities.
const std::array<int16_t, 4096>& normal_table() {
    static const std::array<int16_t, 4096> table = [] {
        std::array<int16_t, 4096> made{};
        for (size_t i = 0; i < made.size() / 2; ++i) {
            const double value = normal_quantile((static_cast<double>(i) + 0.5) / 4096) * 4096;  // below 0
            made[i] = static_cast<int16_t>(value - 0.5);
            made[made.size() - 1 - i] = static_cast<int16_t>(-made[i]);
        }
        return made;
    }();
    return table;
}

}  // namespace

void gaussian_blur(double sigma, uint8_t* pixels, int64_t size, int channels, std::vector<uint16_t>& scratch) {
    RN50_REQUIRE(sigma > 0, "a blur of ", sigma);
    auto radius = static_cast<int64_t>(3 * sigma);
    if (static_cast<double>(radius) < 3 * sigma) ++radius;
    radius = std::min(radius, size - 1);
    const std::vector<uint32_t> weights = gaussian_weights(sigma, radius);
    const int64_t row = size * channels;
    const auto taps = static_cast<int64_t>(weights.size());
    scratch.resize(static_cast<size_t>(size * row));
    std::vector<uint8_t> line(static_cast<size_t>((size + 2 * radius) * channels));
    for (int64_t y = 0; y < size; ++y) {
        const uint8_t* src = pixels + y * row;
        for (int64_t x = -radius; x < size + radius; ++x)
            std::copy_n(src + mirrored(x, size) * channels, channels,
                        &line[static_cast<size_t>((x + radius) * channels)]);
        for (int64_t i = 0; i < row; ++i) {
            uint32_t sum = 0;
            for (int64_t t = 0; t < taps; ++t)
                sum += weights[static_cast<size_t>(t)] * line[static_cast<size_t>(i + t * channels)];
            scratch[static_cast<size_t>(y * row + i)] = static_cast<uint16_t>(sum >> (weight_bits - 8));
        }
    }
    std::vector<uint32_t> sums(static_cast<size_t>(row));
    for (int64_t y = 0; y < size; ++y) {
        std::fill(sums.begin(), sums.end(), uint32_t{1} << (weight_bits + 7));
        for (int64_t t = 0; t < taps; ++t) {
            const uint16_t* from = &scratch[static_cast<size_t>(mirrored(y + t - radius, size) * row)];
            const uint32_t weight = weights[static_cast<size_t>(t)];
            for (int64_t i = 0; i < row; ++i)
                sums[static_cast<size_t>(i)] += weight * from[i];
        }
        for (int64_t i = 0; i < row; ++i)
            pixels[y * row + i] = static_cast<uint8_t>(sums[static_cast<size_t>(i)] >> (weight_bits + 8));
    }
}

void add_noise(int32_t deviation, const pixel::Key& key, uint8_t* pixels, int64_t bytes) {
    const std::array<int16_t, 4096>& normal = normal_table();
    for (int64_t begin = 0; begin < bytes;
         begin += 8) {  // a block holds eight numbers of 16 bits, of which 12 are used
        const auto words = pixel::block_of(key, Purpose::noise, first_noise_block + static_cast<uint32_t>(begin / 8));
        for (int64_t i = 0; i < 8 && begin + i < bytes; ++i) {
            const uint32_t place = words[static_cast<size_t>(i / 2)] >> (i % 2 * 16 + 4) & 4095;
            const int32_t delta = (normal[place] * deviation + (1 << 19)) >> 20;
            pixels[begin + i] = pixel::clip(pixels[begin + i] + delta);
        }
    }
}

}  // namespace rn50
