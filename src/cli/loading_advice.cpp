#include "cli/loading_advice.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/log.h"
#include "cli/training_setup.h"
#include "report/table.h"

namespace rn50 {

namespace {

using report::fixed;
using report::grouped;

int64_t rounded(double x) {
    return std::llround(x);
}

double mean(double sum, const LoadingFacts& facts) {
    return facts.seen.pictures > 0 ? sum / static_cast<double>(facts.seen.pictures) : 0;
}

/// All pictures as RGB, which is what a cache holds.
int64_t decoded_bytes(const LoadingFacts& facts) {
    return rounded(3 * mean(facts.seen.pixels, facts) * static_cast<double>(facts.pictures));
}

/// Of the memory a cache may have, for a rank: the rest is for whatever else the machine does.
int64_t room_for_cache(const LoadingFacts& facts) {
    return facts.cache_bytes + facts.usable_memory / facts.ranks_here * 8 / 10;
}

/// The shorter side that pictures would be packed to.
int64_t packed_side(const LoadingFacts& facts) {
    return facts.image_size * 256 / 224;
}

/// What makes a worker faster here; each with its reason.
std::vector<std::string> remedies(const LoadingFacts& facts) {
    std::vector<std::string> found;
    const double side = mean(facts.seen.shorter_side, facts);
    const int64_t decoded = decoded_bytes(facts);
    const std::string each = facts.ranks > 1 ? " a rank" : "";
    if (decoded > facts.cache_bytes && decoded <= room_for_cache(facts))
        found.push_back(cat("keep them decoded: --cache-mb ", decoded / 1'000'000 + 1, " (", grouped(facts.pictures),
                            " of ", show_bytes(decoded / std::max<int64_t>(facts.pictures, 1)), " are ",
                            show_bytes(decoded), each, ", and ", show_bytes(facts.usable_memory), " are free)"));
    if (facts.device_could_decode) found.emplace_back("let the GPU decode: --decode gpu");
    const auto target = static_cast<double>(packed_side(facts));
    if (side >= 1.5 * target)
        found.push_back(cat("pack them smaller once: rn50 pack ", facts.data, " PACKED --format webdataset --shortest ",
                            packed_side(facts), ", then train on PACKED (", rounded(side), " px now, ",
                            fixed(side * side / (target * target), side < 3 * target ? 1 : 0), " times the pixels)"));
    const bool unmarked_jpegs = 2 * facts.seen.jpegs > facts.seen.pictures && 2 * facts.seen.marked < facts.seen.jpegs;
    if (facts.crops && unmarked_jpegs && side >= 2 * static_cast<double>(facts.image_size))
        found.push_back(cat("where every pixel counts, rn50 pack ", facts.data,
                            " PACKED --restart-markers: a worker makes about 1.2 times as many crops"));
    return found;
}

std::string joined(const std::vector<std::string>& parts) {
    std::string text;
    for (const std::string& part : parts)
        text += cat(text.empty() ? "" : "; or ", part);
    return text;
}

/// Why there is no remedy.
std::string nothing_helps(const LoadingFacts& facts) {
    if (facts.seen.pictures == 0) return "Only more cores would help: all pictures come from the cache already";
    const int64_t decoded = decoded_bytes(facts);
    return cat("Only more cores or less --augment would help: the pictures are small already (",
               rounded(mean(facts.seen.shorter_side, facts)), " px), and decoded they take ", show_bytes(decoded),
               decoded <= facts.cache_bytes
                   ? ", which the cache holds"
                   : cat(", more than the ", show_bytes(facts.usable_memory), " that are free",
                         facts.ranks_here > 1 ? cat(" for ", facts.ranks_here, " ranks") : ""));
}

}  // namespace

std::string loading_advice(const LoadingFacts& facts) {
    const bool several = facts.ranks > 1;
    const double needed = facts.images_per_s / facts.ranks / (1 - std::min(facts.data_wait, 0.99));
    const auto enough = static_cast<int64_t>(std::ceil(needed / std::max(facts.images_per_worker_s, 1e-3)));
    const std::string read = facts.seen.pictures == 0
                                 ? ""
                                 : cat(" of pictures of ", rounded(mean(facts.seen.bytes, facts) / 1000), " KB and ",
                                       fixed(mean(facts.seen.pixels, facts) / 1e6, 2), " megapixels");
    std::string text = cat(
        "the net waited for pictures ", fixed(100 * facts.data_wait, 0), "% of the time",
        several ? cat(", longest in rank ", facts.rank, ": each rank could take ") : ": it could take ",
        fixed(needed, 0), " images/s, and ", facts.workers, facts.workers == 1 ? " worker makes " : " workers make ",
        fixed(facts.images_per_worker_s, 0), " images/s each", read, ". ");
    const std::vector<std::string> cures = remedies(facts);
    if (enough <= facts.workers) {
        text +=
            "That would do if they came evenly: the storage is slow or uneven, or other programs take the cores. "
            "Move the pictures to a local disk";
        if (facts.in_files) text += cat(", or into large files: rn50 pack ", facts.data, " PACKED --format webdataset");
        return text + (cures.empty() ? "" : cat("; or ", joined(cures)));
    }
    const int64_t spare = facts.net_uses_cores ? 0 : facts.cores / facts.ranks_here;
    if (enough <= spare) return text + cat("It takes ", enough, several ? " in each rank" : "", ": --workers ", enough);
    text += cat("It would take ", enough, several ? " in each rank" : "", " on ", facts.cores,
                facts.cores == 1 ? " core" : " cores",
                facts.ranks_here > 1 ? cat(", which ", facts.ranks_here, " ranks share") : "",
                facts.net_uses_cores ? ", on which the net computes too" : "", ". ");
    const bool part = spare > facts.workers;
    if (part)
        text += cat("--workers ", spare, " would make about ",
                    grouped(rounded(facts.images_per_worker_s * static_cast<double>(spare))), " images/s",
                    several ? " in each rank" : "", ". ");
    return text + (cures.empty() ? nothing_helps(facts) : cat(part ? "Beyond that, " : "Instead, ", joined(cures)));
}

std::string unused_bits(const PicturesSeen& seen, int64_t bits, bool all) {
    constexpr int64_t enough_pictures = 64;
    constexpr int range = 65536;
    if (bits != 0 || seen.deep == 0 || seen.highest >= range / 8 || (seen.deep < enough_pictures && !all)) return "";
    int used = 8;
    while (seen.highest >= 1 << used)
        ++used;
    return cat("the ", grouped(seen.deep), " pictures of 16 bits seen so far stay at or below ", grouped(seen.highest),
               " of 65,535, so no more than ", (seen.highest + 128) / 257 + 1, " grey levels are left of them: --bits ",
               used, "? (12 for a camera's Mono12)");
}

void tell_unused_bits(const PicturesSeen& seen, int64_t bits, bool all) {
    const std::string told = unused_bits(seen, bits, all);
    if (!told.empty()) log::warn_once("unused bits", told);
}

}  // namespace rn50
