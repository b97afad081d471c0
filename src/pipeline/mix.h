// mixup (Zhang et al., 2018) and CutMix (Yun et al., 2019) of whole batches, with torchvision's v2 meaning: one share a
// batch, and each picture's partner is the one before it, the first one's the last.
#pragma once

#include <cstdint>
#include <vector>

#include "base/random.h"

namespace rn50 {

struct MixOptions {
    double mixup = 0,
           cutmix = 0;  ///< alpha of Beta(alpha, alpha); 0: off. Both on: each batch takes one, evenly chosen
    explicit operator bool() const { return mixup > 0 || cutmix > 0; }
};

/// What is drawn for a batch.
struct Mix {
    /// Of the own picture in its label, in units of 2^-16; the partner's is the rest.
    uint32_t share = whole;
    bool cut = false;                        ///< CutMix: the rectangle comes from the partner
    int64_t y0 = 0, x0 = 0, y1 = 0, x1 = 0;  ///< the rectangle; y1 and x1 are outside
    static constexpr uint32_t whole = 1u << 16;
};

/// A number from Beta(alpha, alpha), 0 < alpha <= 100; the same bits on every system. Up to 1 by Jöhnk's method, above
/// by Ulrich's (Devroye, "Non-Uniform Random Variate Generation", 1986, IX.3 and IX.4.3).
double symmetric_beta(double alpha, Random& random);

/// For global batch `batch` of an epoch, of pictures of `size` pixels a side. All ranks draw the same; each mixes
/// within its own part of the batch.
Mix draw_mix(const MixOptions& options, int64_t size, uint64_t seed, int64_t epoch, int64_t batch);

/// Mixes `images` u8 {count, size, size, channels} in place, rounding, and fills `partners` {count} from `labels`.
/// `scratch` keeps its memory from call to call.
void apply_mix(const Mix& mix, uint8_t* images, int64_t count, int64_t size, int channels, const int32_t* labels,
               int32_t* partners, std::vector<uint8_t>& scratch);

}  // namespace rn50
