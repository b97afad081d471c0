// What a rank's heartbeats tell of its training thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace rn50 {

/// What a rank does between two collectives. It decides how long the others wait for it: see Stragglers.
enum class Pace : char {
    starting = 'b',    ///< looks for pictures, compiles kernels, makes its first step
    meeting = 'm',     ///< the first collective of all, which shows whether the ways between the ranks work
    stepping = 's',    ///< computes, and comes to the next collective soon
    loading = 'l',     ///< waits for its own pictures
    evaluating = 'e',  ///< comes further with each batch, without collectives
    saving = 'w'       ///< writes, or waits for the rank that does
};

/// A collective as the ranks compare them.
struct CollectiveKind {
    const char* name;  ///< "an average"; lives for ever
    int64_t bytes;
};

struct Standing {
    uint64_t place = 0;     ///< collectives entered and left so far, which all ranks count alike; odd: inside one
    uint64_t progress = 0;  ///< what else it has done, in its own units
    Pace pace = Pace::starting;
    double usual_s = 0;      ///< a slow one of its latest steps; 0: not known yet
    int signal = 0;          ///< that asks it to stop
    std::string collective;  ///< the one that it is in, or was in last, in words: "an average of 4194304 bytes"
    /// After each of the latest collectives, up to most_recent, a hash of all kinds so far: the same on all ranks.
    std::vector<uint32_t> recent;
    static constexpr size_t most_recent = 32;

    bool inside() const { return place % 2 != 0; }
    /// Collectives entered so far.
    uint64_t entered() const { return (place + 1) / 2; }
    /// The hash after so many collectives; nothing when that is too long ago, or still to come.
    std::optional<uint32_t> hash_after(uint64_t count) const;
    /// Enters a collective of this kind.
    void enter(const CollectiveKind& kind);
};

/// All but the collective's words, as a heartbeat carries it.
std::string numbers_of(const Standing& standing);
/// The reverse; false: these are none.
bool numbers_from(const std::string& text, Standing& standing);

/// "an average of 4194304 bytes".
std::string words_for(const CollectiveKind& kind);

/// What a rank does, in words: "waits in an average of 4194304 bytes", or "computes".
std::string doing(const Standing& standing);

}  // namespace rn50
