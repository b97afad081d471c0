#include "cli/loading_advice.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "report/table.h"

namespace rn50 {

std::string loading_advice(const LoadingFacts& facts) {
    const double needed = facts.images_per_s / (1 - std::min(facts.data_wait, 0.99));
    const auto enough = static_cast<int64_t>(std::ceil(needed / std::max(facts.images_per_worker_s, 1e-3)));
    std::string text = cat("the net waited for pictures ", report::fixed(100 * facts.data_wait, 0),
                           "% of the time: it could take ", report::fixed(needed, 0), " images/s, and ", facts.workers,
                           facts.workers == 1 ? " worker makes " : " workers make ",
                           report::fixed(facts.images_per_worker_s, 0), " images/s each. ");
    const std::string pack =
        cat("pack them smaller once: rn50 pack ", facts.data, " PACKED --format webdataset --shortest ",
            facts.image_size * 256 / 224, ", then train on PACKED",
            facts.cached ? "" : "; or --cache-mb, where the decoded pictures fit into memory");
    if (enough <= facts.workers)
        return text +
               "That would do if they came evenly: the storage is slow or uneven. Move the pictures to a local "
               "disk, or " +
               pack;
    const int64_t spare = facts.net_uses_cores ? 0 : facts.cores;
    if (enough <= spare) return text + cat("It takes ", enough, ": --workers ", enough);
    return text + cat("It would take ", enough, " on ", facts.cores, facts.cores == 1 ? " core" : " cores",
                      facts.net_uses_cores ? ", on which the net computes too" : "", ". Instead, ", pack);
}

}  // namespace rn50
