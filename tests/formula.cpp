#include "formula.h"

#include <algorithm>
#include <cmath>

namespace rn50::test {

namespace {

constexpr int64_t samples = 256;

bool ends_with(const std::string& text, const std::string& end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

}  // namespace

uint64_t hash(const std::string& name, uint64_t index) {
    uint64_t seed = 0xCBF29CE484222325u;
    for (const char c : name)
        seed = (seed ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
    uint64_t z = seed + (index + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

std::vector<float> formula_uniform(const std::string& name, int64_t count, double low, double high) {
    std::vector<float> values(static_cast<size_t>(count));
    for (size_t i = 0; i < values.size(); ++i)
        values[i] = static_cast<float>(low + (high - low) * (static_cast<double>(hash(name, i) >> 40) * 0x1p-24));
    return values;
}

std::vector<uint8_t> formula_pictures(const std::string& name, int64_t batch, int64_t size) {
    std::vector<uint8_t> pixels;
    const int64_t patches = (size + 15) / 16;
    for (int64_t n = 0; n < batch; ++n)
        for (int64_t y = 0; y < size; ++y)
            for (int64_t x = 0; x < size; ++x)
                for (int64_t c = 0; c < 3; ++c) {
                    const int64_t patch = ((n * patches + y / 16) * patches + x / 16) * 3 + c;
                    const int64_t noise = ((n * size + y) * size + x) * 3 + c;
                    pixels.push_back(
                        static_cast<uint8_t>((3 * (hash(name + ".patch", static_cast<uint64_t>(patch)) >> 56) +
                                              (hash(name + ".noise", static_cast<uint64_t>(noise)) >> 56)) /
                                             4));
                }
    return pixels;
}

std::vector<int32_t> formula_labels(const std::string& name, int64_t batch, int64_t classes) {
    std::vector<int32_t> labels;
    for (int64_t n = 0; n < batch; ++n)
        labels.push_back(static_cast<int32_t>(hash(name, static_cast<uint64_t>(n)) % static_cast<uint64_t>(classes)));
    return labels;
}

std::vector<int64_t> fixed_elements(const std::string& name, int64_t count) {
    std::vector<int64_t> elements;
    for (int64_t i = 0; i < std::min(count, samples); ++i)
        elements.push_back(count <= samples ? i
                                            : static_cast<int64_t>(hash("sample:" + name, static_cast<uint64_t>(i)) %
                                                                   static_cast<uint64_t>(count)));
    return elements;
}

std::vector<float> formula_parameter(const std::string& name, const std::vector<int64_t>& shape, double last_gamma,
                                     bool basic) {
    int64_t count = 1;
    for (const int64_t dim : shape)
        count *= dim;
    if (shape.size() == 4) {
        const double bound = std::sqrt(6.0 / static_cast<double>(shape[0] * shape[2] * shape[3]));
        return formula_uniform(name, count, -bound, bound);
    }
    if (name.rfind("fc.", 0) == 0) return formula_uniform(name, count, -0.02, 0.02);
    if (ends_with(name, ".bias")) return formula_uniform(name, count, -0.1, 0.1);
    std::vector<float> gamma = formula_uniform(name, count, 0.9, 1.1);
    if (ends_with(name, ".bn3.weight") || (basic && ends_with(name, ".bn2.weight")))
        for (float& v : gamma)
            v = static_cast<float>(static_cast<double>(v) * last_gamma);
    return gamma;
}

}  // namespace rn50::test
