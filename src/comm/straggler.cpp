#include "comm/straggler.h"

#include <algorithm>

namespace rn50 {

void Stragglers::heard(int rank, uint64_t place, bool expected, Time now) {
    Seen& seen = seen_[static_cast<size_t>(rank)];
    if (seen.place == place && seen.expected == expected) return;
    if (seen.expected && expected) longest_ = std::max(longest_, now - seen.since);
    seen = {place, expected, now};
}

void Stragglers::forgive(Time now) {
    for (Seen& seen : seen_)
        seen.since = now;
}

int Stragglers::hung(Time now) const {
    uint64_t foremost = 0;
    for (const Seen& seen : seen_) {
        if (now - seen.since <= limit()) return -1;
        foremost = std::max(foremost, seen.place);
    }
    for (size_t rank = 0; rank < seen_.size(); ++rank) {
        const Seen& seen = seen_[rank];
        if (seen.expected && seen.place < foremost && seen.place % 2 == 0) return static_cast<int>(rank);
    }
    return -1;
}

std::chrono::steady_clock::duration Stragglers::limit() const {
    return std::max<std::chrono::steady_clock::duration>(patience_, 20 * longest_);
}

}  // namespace rn50
