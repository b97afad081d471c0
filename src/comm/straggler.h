// Finds out that the ranks do not come further though all of them live, and who is to blame.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "comm/standing.h"

namespace rn50 {

/// How long ranks wait for each other.
struct Patience {
    using Milliseconds = std::chrono::milliseconds;
    Patience(Milliseconds for_silence, Milliseconds for_hang = std::chrono::minutes(10))
        : silence(for_silence), hang(for_hang) {}

    Milliseconds silence;  ///< for a sign of life, and for a rank that has nothing to wait for
    Milliseconds hang;     ///< for a rank that may wait for a disk, and for all together
};

/// The rule. "Usual" is what a slow one of the latest steps took, the longest of all ranks'.
///
/// 1. The hindmost rank has come to its place by other collectives than another rank came there, or went through there:
///    they will never meet, and it is told at once.
/// 2. Nobody has come further, and a rank outside the collectives is behind the foremost one: it is hung after
///        stepping              silence, or 20 times the usual (hang, while no step is known)
///        loading, evaluating   hang, or 20 times the usual; as stepping when a signal asks any rank to stop
///        saving                hang, or 20 times the usual
///        starting              6 times hang: pictures are looked for, kernels compiled; silence after a signal
///    The foremost one need not be in a collective: with NCCL those are begun without waiting, and then the wait is for
///    the GPU.
/// 3. Nobody has come further, and nobody is to be waited for: all are in collectives, or at one place with their GPUs.
///    Then the ways between them are broken, after
///        the first collective  silence
///        any other             as loading, or what a rank outside may take where that is more
class Stragglers {
  public:
    using Time = std::chrono::steady_clock::time_point;

    Stragglers(int ranks, const Patience& patience) : patience_(patience), seen_(static_cast<size_t>(ranks)) {}

    void heard(int rank, const Standing& standing, Time now);
    /// The rank has ended, and nobody waits for it.
    void gone(int rank);
    /// What was not heard until now means nothing: this process itself has slept.
    void forgive(Time now);
    /// Why the run has to end, in words; "" while it need not. `name` names a rank: "rank 1 on node7".
    std::string verdict(Time now, const std::function<std::string(int)>& name) const;

  private:
    using Duration = std::chrono::steady_clock::duration;
    struct Seen {
        Standing standing;
        bool there = false;
        Time since{};
    };
    struct Overview;

    std::string other_collectives(const std::function<std::string(int)>& name) const;
    Duration allowed(const Standing& standing, const Overview& all) const;
    Overview overview(Time now) const;
    std::string standings(const std::function<std::string(int)>& name) const;

    Patience patience_;
    std::vector<Seen> seen_;
};

/// How the verdict begins when no single rank is to blame: the ways between them are.
constexpr const char* nobody_moves = "no rank has come further for ";

}  // namespace rn50
