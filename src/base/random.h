// Randomness as a function: every number is f(seed, epoch, sample, purpose), so that neither threads nor ranks nor a
// resumed run can change it. Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
#pragma once

#include <array>
#include <cstdint>

namespace rn50 {

/// What a random number is for; part of its key, so that two uses never share a number. Values are part of the
/// reproducibility contract: append, never renumber.
enum class Purpose : uint32_t {
    shuffle = 1,
    crop = 2,
    flip = 3,
    color = 4,
    dropout = 5,
    init = 6,
    split = 7,
    demo = 8,
    turn = 9,  ///< rotations by 90 degrees
    blur = 10,
    noise = 11,
    erasing = 12,
    policy = 13,   ///< RandAugment and TrivialAugment
    mix = 14,      ///< mixup and CutMix; the sample is the batch
    balance = 15,  ///< the balanced sampler; the sample is the class
};

/// One block of Philox4x32-10: four 32-bit words from a 128-bit counter and a 64-bit key. (constexpr: GPU code calls it
/// too.)
constexpr std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
    for (int round = 0; round < 10; ++round) {
        const uint64_t a = uint64_t{0xD2511F53u} * counter[0];
        const uint64_t b = uint64_t{0xCD9E8D57u} * counter[2];
        counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
                   static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    return counter;
}

/// The numbers of one (seed, epoch, sample, purpose), in order. Holds no shared state; cheap to make.
class Random {
  public:
    Random(uint64_t seed, uint32_t epoch, uint64_t sample, Purpose purpose)
        : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
          counter_{0, epoch, static_cast<uint32_t>(sample),
                   static_cast<uint32_t>(sample >> 32) ^ (static_cast<uint32_t>(purpose) << 24)} {}

    uint32_t u32() {
        if (used_ == 4) {
            block_ = philox(counter_, key_);
            ++counter_[0];
            used_ = 0;
        }
        return block_[used_++];
    }
    uint64_t u64() {
        const uint64_t high = u32();
        return high << 32 | u32();
    }
    /// Uniform in [0, 1), a multiple of 2^-24.
    float uniform() { return static_cast<float>(u32() >> 8) * 0x1p-24f; }
    /// Uniform in [low, high).
    double uniform(double low, double high) {
        return low + (high - low) * (static_cast<double>(u64() >> 11) * 0x1p-53);
    }
    /// Uniform in [0, n), n > 0; biased by less than n / 2^64.
    uint64_t below(uint64_t n) { return static_cast<uint64_t>((static_cast<unsigned __int128>(u64()) * n) >> 64); }

  private:
    std::array<uint32_t, 2> key_;
    std::array<uint32_t, 4> counter_;
    std::array<uint32_t, 4> block_{};
    int used_ = 4;
};

}  // namespace rn50
