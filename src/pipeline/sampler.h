// Which pictures an epoch takes, and in which order.
#pragma once

#include <cstdint>
#include <vector>

namespace rn50 {

class Source;

/// The order of an epoch: a permutation of [0, n) by Fisher-Yates, a function of (seed, epoch).
std::vector<uint32_t> epoch_order(int64_t n, uint64_t seed, int64_t epoch);

/// One draw of a picture. `repeat` counts how often it was drawn before within the epoch: another draw is augmented
/// otherwise.
struct Draw {
    uint32_t picture, repeat;
};
inline bool operator==(const Draw& a, const Draw& b) {
    return a.picture == b.picture && a.repeat == b.repeat;
}

/// Draws pictures so that every class comes equally often.
class BalancedSampler {
  public:
    /// `labels`: of pictures 0, 1, ...; at most 2^32 - 2. Classes without pictures are left out.
    explicit BalancedSampler(const std::vector<int32_t>& labels);

    /// As many draws as there are pictures, each class equally often to within one, shuffled: a function of (seed,
    /// epoch). Over the epochs, each class goes through its pictures in permutations: none is drawn again before all of
    /// its class were. Which classes come once more than others changes from epoch to epoch.
    std::vector<Draw> epoch(uint64_t seed, int64_t epoch) const;

  private:
    int64_t pictures_;
    std::vector<std::vector<uint32_t>> classes_;  ///< the pictures of each class that has any
};

/// Pictures of each class: {classes}.
std::vector<int64_t> class_counts(const Source& source);
/// scikit-learn's "balanced" weights, n / (classes * count), with the classes that have pictures; 1 for the others.
std::vector<float> balanced_class_weights(const std::vector<int64_t>& counts);

}  // namespace rn50
