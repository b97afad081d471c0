#include "pipeline/sampler.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "base/random.h"
#include "pipeline/source.h"

namespace rn50 {

namespace {

void shuffle(std::vector<uint32_t>& values, Random random) {
    for (size_t i = values.size(); i > 1; --i)
        std::swap(values[i - 1], values[random.below(i)]);
}

/// floor((x + i) / n): summed over i < n it gives x, so that its steps deal x things to n places evenly.
int64_t dealt(int64_t x, int64_t i, int64_t n) {
    return (x + i) / n;
}

}  // namespace

std::vector<uint32_t> epoch_order(int64_t n, uint64_t seed, int64_t epoch) {
    RN50_REQUIRE(n >= 0 && n < int64_t{std::numeric_limits<uint32_t>::max()}, "an epoch of ", n, " pictures");
    std::vector<uint32_t> order(static_cast<size_t>(n));
    for (size_t i = 0; i < order.size(); ++i)
        order[i] = static_cast<uint32_t>(i);
    shuffle(order, Random(seed, static_cast<uint32_t>(epoch), 0, Purpose::shuffle));
    return order;
}

BalancedSampler::BalancedSampler(const std::vector<int32_t>& labels) : pictures_(static_cast<int64_t>(labels.size())) {
    RN50_REQUIRE(pictures_ < int64_t{std::numeric_limits<uint32_t>::max()}, "an epoch of ", pictures_, " pictures");
    for (size_t i = 0; i < labels.size(); ++i) {
        const auto label = static_cast<size_t>(labels[i]);
        if (label >= classes_.size()) classes_.resize(label + 1);
        classes_[label].push_back(static_cast<uint32_t>(i));
    }
    classes_.erase(std::remove_if(classes_.begin(), classes_.end(), [](const auto& c) { return c.empty(); }),
                   classes_.end());
}

std::vector<Draw> BalancedSampler::epoch(uint64_t seed, int64_t epoch) const {
    const auto classes = static_cast<int64_t>(classes_.size());
    std::vector<Draw> drawn;
    drawn.reserve(static_cast<size_t>(pictures_));
    const int64_t each = classes > 0 ? pictures_ / classes : 0, rest = classes > 0 ? pictures_ % classes : 0;
    std::vector<uint32_t> order;
    for (int64_t c = 0; c < classes; ++c) {
        const std::vector<uint32_t>& pictures = classes_[static_cast<size_t>(c)];
        const auto count = static_cast<int64_t>(pictures.size());
        // The draws of this class are numbered over all epochs; round k of them is a permutation of its own.
        const int64_t first = epoch * each + dealt(epoch * rest, c, classes);
        const int64_t end = (epoch + 1) * each + dealt((epoch + 1) * rest, c, classes);
        std::vector<uint32_t> repeats(static_cast<size_t>(count), 0);
        int64_t round = -1;
        for (int64_t k = first; k < end; ++k) {
            if (k / count != round) {
                round = k / count;
                order = pictures;
                shuffle(order, Random(seed, static_cast<uint32_t>(round), pictures.front(), Purpose::balance));
            }
            const uint32_t picture = order[static_cast<size_t>(k % count)];
            const auto place = std::lower_bound(pictures.begin(), pictures.end(), picture) - pictures.begin();
            drawn.push_back({picture, repeats[static_cast<size_t>(place)]++});
        }
    }
    const std::vector<uint32_t> places = epoch_order(pictures_, seed, epoch);
    std::vector<Draw> shuffled;
    shuffled.reserve(drawn.size());
    for (const uint32_t place : places)
        shuffled.push_back(drawn[place]);
    return shuffled;
}

std::vector<int64_t> class_counts(const Source& source) {
    std::vector<int64_t> counts(source.classes().size());
    for (int64_t i = 0; i < source.size(); ++i)
        ++counts[static_cast<size_t>(source.label(i))];
    return counts;
}

std::vector<float> balanced_class_weights(const std::vector<int64_t>& counts) {
    int64_t pictures = 0, classes = 0;
    for (const int64_t count : counts) {
        pictures += count;
        classes += count > 0;
    }
    std::vector<float> weights;
    for (const int64_t count : counts)
        weights.push_back(count == 0 ? 1.0f
                                     : static_cast<float>(static_cast<double>(pictures) /
                                                          (static_cast<double>(classes) * static_cast<double>(count))));
    return weights;
}

}  // namespace rn50
