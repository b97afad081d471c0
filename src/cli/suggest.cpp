#include "cli/suggest.h"

#include <algorithm>

namespace rn50 {

int edit_distance(const std::string& a, const std::string& b) {
    const size_t n = b.size();
    std::vector<int> before(n + 1), last(n + 1), row(n + 1);
    for (size_t j = 0; j <= n; ++j)
        last[j] = static_cast<int>(j);
    for (size_t i = 1; i <= a.size(); ++i) {
        row[0] = static_cast<int>(i);
        for (size_t j = 1; j <= n; ++j) {
            const int substitution = a[i - 1] == b[j - 1] ? 0 : 1;
            row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + substitution});
            const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
        }
        before.swap(last);
        last.swap(row);
    }
    return last[n];
}

std::string nearest(const std::string& word, const std::vector<std::string>& candidates) {
    std::string best;
    const int limit = std::max(1, static_cast<int>(word.size()) / 3);
    int best_distance = limit + 1;
    for (const std::string& candidate : candidates) {
        const bool begins = word.size() >= 3 && candidate.compare(0, word.size(), word) == 0;
        const int distance = begins ? 1 : edit_distance(word, candidate);
        if (distance < best_distance) {
            best = candidate;
            best_distance = distance;
        }
    }
    return best;
}

}  // namespace rn50
