// Finds the rank that lives, but keeps all others waiting.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

namespace rn50 {

class Stragglers {
  public:
    using Time = std::chrono::steady_clock::time_point;

    Stragglers(int ranks, std::chrono::milliseconds patience)
        : patience_(patience), seen_(static_cast<size_t>(ranks)) {}

    /// What a heartbeat tells: where `rank` is among the collectives, which all ranks count alike (an odd number is
    /// inside one of them), and whether it is expected to come to the next one soon.
    void heard(int rank, uint64_t place, bool expected, Time now);
    /// What was not heard until now means nothing: this process itself has slept.
    void forgive(Time now);
    /// The first rank that is expected, behind the foremost one and in no collective itself, when no rank has moved for
    /// longer than limit(); else -1. The foremost one need not be in a collective: with NCCL those are begun without
    /// waiting, and then the wait is for the GPU.
    int hung(Time now) const;
    /// The patience, and 20 times the longest that a rank has stayed where it was so far: a step may be slow.
    std::chrono::steady_clock::duration limit() const;

  private:
    struct Seen {
        uint64_t place = 0;
        bool expected = false;
        Time since{};
    };
    std::chrono::milliseconds patience_;
    std::chrono::steady_clock::duration longest_{};
    std::vector<Seen> seen_;
};

}  // namespace rn50
