#include "comm/straggler.h"

#include <algorithm>
#include <map>
#include <optional>

#include "base/error.h"

namespace rn50 {

namespace {

/// A step may be so much slower than usual.
constexpr double slow_steps = 20;
constexpr int start_up = 6;
/// Ranks that are named one by one.
constexpr size_t most_named = 8;

}  // namespace

struct Stragglers::Overview {
    Duration quiet = Duration::max();  ///< since any rank has come further
    uint64_t foremost = 0;
    Duration prompt{};  ///< what a rank may take that computes
    Duration hang{};    ///< and one that may wait for something
    bool signalled = false, meet = true;
};

void Stragglers::heard(int rank, const Standing& standing, Time now) {
    Seen& seen = seen_[static_cast<size_t>(rank)];
    const Standing& before = seen.standing;
    const bool moved = !seen.there || standing.place != before.place || standing.progress != before.progress ||
                       standing.pace != before.pace;
    seen.standing = standing;
    seen.there = true;
    if (moved) seen.since = now;
}

void Stragglers::gone(int rank) {
    seen_[static_cast<size_t>(rank)].there = false;
}

void Stragglers::forgive(Time now) {
    for (Seen& seen : seen_)
        seen.since = now;
}

std::string Stragglers::other_collectives(const std::function<std::string(int)>& name) const {
    const Seen* hindmost = nullptr;
    for (const Seen& seen : seen_)
        if (seen.there && (hindmost == nullptr || seen.standing.entered() < hindmost->standing.entered()))
            hindmost = &seen;
    if (hindmost == nullptr) return "";
    const Standing& mine = hindmost->standing;
    const auto expected = mine.hash_after(mine.entered());
    for (const Seen& seen : seen_) {
        const auto found = seen.standing.hash_after(mine.entered());
        if (!seen.there || !expected || !found || *found == *expected) continue;
        return cat("the ranks have gone to different collectives: ", name(static_cast<int>(hindmost - seen_.data())),
                   " ", doing(mine), ", ", name(static_cast<int>(&seen - seen_.data())), " ", doing(seen.standing));
    }
    return "";
}

Stragglers::Duration Stragglers::allowed(const Standing& standing, const Overview& all) const {
    switch (standing.pace) {
        case Pace::meeting:
            return patience_.silence;
        case Pace::starting:
            return all.signalled ? Duration(patience_.silence) : Duration(start_up * patience_.hang);
        case Pace::stepping:
            return standing.usual_s > 0 || all.signalled ? all.prompt : all.hang;
        case Pace::saving:
            return all.hang;
        default:
            return all.signalled ? all.prompt : all.hang;
    }
}

std::string Stragglers::standings(const std::function<std::string(int)>& name) const {
    std::map<std::string, std::vector<int>> by_doing;
    for (size_t rank = 0; rank < seen_.size(); ++rank)
        if (seen_[rank].there) by_doing[doing(seen_[rank].standing)].push_back(static_cast<int>(rank));
    std::string text;
    for (const auto& [what, ranks] : by_doing) {
        text += cat(text.empty() ? "" : "; ", ranks.size() > 1 ? "each of " : "");
        for (size_t i = 0; i < std::min(ranks.size(), most_named); ++i)
            text += cat(i == 0 ? "" : ", ", name(ranks[i]));
        if (ranks.size() > most_named) text += cat(" and ", ranks.size() - most_named, " others");
        text += " " + what;
    }
    return text;
}

Stragglers::Overview Stragglers::overview(Time now) const {
    Overview all;
    double usual = 0;
    for (const Seen& seen : seen_) {
        if (!seen.there) continue;
        all.quiet = std::min(all.quiet, now - seen.since);
        all.foremost = std::max(all.foremost, seen.standing.place);
        all.signalled = all.signalled || seen.standing.signal != 0;
        all.meet = all.meet && seen.standing.inside() && seen.standing.pace == Pace::meeting;
        usual = std::max(usual, seen.standing.usual_s);
    }
    const auto slow = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(slow_steps * usual));
    all.prompt = std::max<Duration>(patience_.silence, slow);
    all.hang = std::max<Duration>(patience_.hang, slow);
    return all;
}

std::string Stragglers::verdict(Time now, const std::function<std::string(int)>& name) const {
    std::string mismatch = other_collectives(name);
    if (!mismatch.empty()) return mismatch;
    const Overview all = overview(now);
    if (all.quiet == Duration::max() || all.quiet <= patience_.silence) return "";
    const auto seconds = [](Duration time) { return std::chrono::duration_cast<std::chrono::seconds>(time).count(); };

    Duration together = all.meet ? patience_.silence : all.signalled ? all.prompt : all.hang;
    bool anyone_behind = false;
    for (size_t rank = 0; rank < seen_.size(); ++rank) {
        const Standing& standing = seen_[rank].standing;
        if (!seen_[rank].there || standing.inside()) continue;
        const Duration may = allowed(standing, all);
        together = std::max(together, may);
        if (standing.place == all.foremost) continue;
        anyone_behind = true;
        if (all.quiet > may)
            return cat(name(static_cast<int>(rank)),
                       " was lost: it lives, but has not come to the next collective for ", seconds(may),
                       " s, in which the others wait; it ", doing(standing));
    }
    if (anyone_behind || all.quiet <= together) return "";
    return cat(nobody_moves, seconds(together), " s: ", standings(name));
}

}  // namespace rn50
