#include "model/parameters.h"

#include <algorithm>

#include "base/math.h"
#include "base/random.h"
#include "base/exact.h"

namespace rn50 {

namespace {

constexpr int64_t row_alignment = 64;  // elements: 256 bytes

/// FNV-1a, 64 bits: a name's key for Random.
uint64_t hash(const std::string& name) {
    uint64_t value = 0xcbf29ce484222325ull;
    for (const char c : name)
        value = (value ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
    return value;
}

void fill(const Parameter& parameter, uint64_t seed, float* values) {
    const int64_t n = parameter.count();
    Random random(seed, 0, hash(parameter.name), Purpose::init);
    switch (parameter.init) {
        case Init::zero:
            std::fill_n(values, n, 0.0f);
            return;
        case Init::one:
            std::fill_n(values, n, 1.0f);
            return;
        case Init::kaiming_fan_out: {
            const double deviation = std::sqrt(2.0 / static_cast<double>(parameter.fan));
            for (int64_t i = 0; i < n; ++i)
                values[i] = static_cast<float>(deviation * normal_quantile((random.u32() + 0.5) * 0x1p-32));
            return;
        }
        case Init::uniform_fan_in: {
            const double bound = 1 / std::sqrt(static_cast<double>(parameter.fan));
            for (int64_t i = 0; i < n; ++i)
                values[i] = static_cast<float>(random.uniform(-bound, bound));
            return;
        }
    }
}

/// Walks a {K, kh, kw, C} parameter: visit(index in device order, index in torchvision's order).
template <class Visit>
void walk(const Parameter& parameter, Visit visit) {
    const Shape& s = parameter.shape;
    const int64_t pixels = s.rank() == 4 ? s[1] * s[2] : 1, channels = s.rank() == 4 ? s[3] : 1;
    const int64_t outer = parameter.count() / (pixels * channels);
    for (int64_t k = 0; k < outer; ++k)
        for (int64_t p = 0; p < pixels; ++p)
            for (int64_t c = 0; c < channels; ++c)
                visit((k * pixels + p) * channels + c, (k * channels + c) * pixels + p);
}

}  // namespace

std::vector<int64_t> Parameter::torch_dims() const {
    if (shape.rank() == 4) return {shape[0], shape[3], shape[1], shape[2]};
    std::vector<int64_t> dims;
    for (int axis = 0; axis < shape.rank(); ++axis)
        dims.push_back(shape[axis]);
    return dims;
}

int ParameterTable::add(const std::string& name, const Shape& shape, Init init, int64_t fan, bool decay) {
    parameters_.push_back({name, shape, init, fan, decay, parameter_elements_});
    parameter_elements_ += align_up(shape.count(), row_alignment);
    return static_cast<int>(parameters_.size()) - 1;
}

int ParameterTable::add_running(const std::string& name, int64_t channels) {
    running_.push_back({name, channels, running_elements_});
    running_elements_ += align_up(2 * channels, row_alignment);
    return static_cast<int>(running_.size()) - 1;
}

int64_t ParameterTable::trained_count() const {
    int64_t count = 0;
    for (const Parameter& parameter : parameters_)
        count += parameter.count();
    return count;
}

std::vector<ParameterRange> ParameterTable::ranges() const {
    std::vector<ParameterRange> ranges;
    for (const Parameter& parameter : parameters_) {
        const int64_t end = parameter.offset + parameter.count();
        // The gap between two joined rows holds zeros, which every optimizer leaves zero.
        if (!ranges.empty() && ranges.back().decay == parameter.decay)
            ranges.back().end = end;
        else
            ranges.push_back({parameter.offset, end, parameter.decay});
    }
    return ranges;
}

std::vector<float> ParameterTable::initial_values(uint64_t seed) const {
    std::vector<float> values(static_cast<size_t>(parameter_elements_));
    for (const Parameter& parameter : parameters_)
        fill(parameter, seed, values.data() + parameter.offset);
    return values;
}

std::vector<float> ParameterTable::initial_running() const {
    std::vector<float> values(static_cast<size_t>(running_elements_));
    for (const RunningStatistics& row : running_)
        std::fill_n(values.data() + row.offset + row.channels, row.channels, 1.0f);
    return values;
}

void to_torch_layout(const Parameter& parameter, const float* device, float* torch) {
    walk(parameter, [&](int64_t ours, int64_t theirs) { torch[theirs] = device[ours]; });
}

void from_torch_layout(const Parameter& parameter, const float* torch, float* device) {
    walk(parameter, [&](int64_t ours, int64_t theirs) { device[ours] = torch[theirs]; });
}

}  // namespace rn50
