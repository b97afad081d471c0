#include "golden.h"

#include <doctest/doctest.h>

#include <cmath>
#include <fstream>

#include "base/error.h"
#include "environment.h"
#include "formula.h"

namespace rn50::test {

nlohmann::json read_golden(const std::string& name) {
    const std::string path = cat(tests_folder(), "/golden/", name, ".json");
    std::ifstream file(path);
    REQUIRE_MESSAGE(file.good(), path);
    return nlohmann::json::parse(file);
}

namespace {

/// Calls visit(our index, PyTorch's index) for each element of convolution weights {K, kh, kw, C}.
template <class Visit>
void for_each_weight(const Shape& shape, Visit visit) {
    const int64_t taps = shape[1] * shape[2], channels = shape[3];
    for (int64_t k = 0; k < shape[0]; ++k)
        for (int64_t tap = 0; tap < taps; ++tap)
            for (int64_t c = 0; c < channels; ++c)
                visit(static_cast<size_t>((k * taps + tap) * channels + c),
                      static_cast<size_t>((k * channels + c) * taps + tap));
}

}  // namespace

std::vector<float> to_torch_order(const std::vector<float>& values, const Shape& shape) {
    if (shape.rank() != 4) return values;
    std::vector<float> result(values.size());
    for_each_weight(shape, [&](size_t ours, size_t theirs) { result[theirs] = values[ours]; });
    return result;
}

std::vector<float> from_torch_order(const std::vector<float>& values, const Shape& shape) {
    if (shape.rank() != 4) return values;
    std::vector<float> result(values.size());
    for_each_weight(shape, [&](size_t ours, size_t theirs) { result[ours] = values[theirs]; });
    return result;
}

std::vector<int64_t> torch_shape(const Shape& shape) {
    if (shape.rank() == 4) return {shape[0], shape[3], shape[1], shape[2]};
    std::vector<int64_t> dims;
    for (int axis = 0; axis < shape.rank(); ++axis)
        dims.push_back(shape[axis]);
    return dims;
}

Likeness compare(const nlohmann::json& summary, const std::string& name, const std::vector<float>& values) {
    REQUIRE(summary.at("count").get<size_t>() == values.size());
    const std::vector<double> theirs = summary.at("values");
    const std::vector<int64_t> elements = fixed_elements(name, static_cast<int64_t>(values.size()));
    REQUIRE(elements.size() == theirs.size());
    double norm = 0, product = 0, ours_squared = 0, theirs_squared = 0, difference = 0;
    for (const float v : values)
        norm += static_cast<double>(v) * static_cast<double>(v);
    for (size_t i = 0; i < theirs.size(); ++i) {
        const auto ours = static_cast<double>(values[static_cast<size_t>(elements[i])]);
        product += ours * theirs[i];
        ours_squared += ours * ours;
        theirs_squared += theirs[i] * theirs[i];
        difference += (ours - theirs[i]) * (ours - theirs[i]);
    }
    return {product / std::sqrt(ours_squared * theirs_squared),
            std::abs(std::sqrt(norm) / summary.at("norm").get<double>() - 1), std::sqrt(difference / theirs_squared)};
}

double distance(const std::vector<float>& a, const nlohmann::json& b) {
    const std::vector<double> theirs = b;
    REQUIRE(a.size() == theirs.size());
    double difference = 0, size = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        difference += (static_cast<double>(a[i]) - theirs[i]) * (static_cast<double>(a[i]) - theirs[i]);
        size += theirs[i] * theirs[i];
    }
    return std::sqrt(difference / size);
}

}  // namespace rn50::test
