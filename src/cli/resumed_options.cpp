// With which options a run goes on.
#include <algorithm>

#include "base/error.h"
#include "cli/option_table.h"
#include "cli/options.h"

namespace rn50 {

namespace {

/// A data set's file speaks for new runs; what a run was started with stands above it.
bool insists(const Options& asked, const char* name) {
    return asked.origin(name) > Origin::data_file;
}

std::string sharing(const Options& options) {
    return cat(options.ranks, options.ranks == 1 ? " rank" : " ranks", " of ", options.batch_size,
               options.accumulate > 1 ? cat(" x ", options.accumulate) : "");
}

[[noreturn]] void refuse_sharing(const Options& before, const Options& asked, int64_t ranks, const std::string& hint) {
    throw Error(Exit::usage,
                cat("the run had ", sharing(before), ", ", before.pictures_a_step(),
                    " pictures in a step, and cannot go on with ", ranks == 1 ? "1 rank" : cat(ranks, " ranks"),
                    insists(asked, "batch-size") ? cat(" of ", asked.batch_size) : "",
                    insists(asked, "accumulate") ? cat(", ", asked.accumulate, " batches a step") : ""),
                hint);
}

/// The numbers up to `of` that divide it.
std::string divisors(int64_t of) {
    std::string list;
    for (int64_t i = 1; i <= of; ++i)
        if (of % i == 0) list += cat(list.empty() ? "" : ", ", i);
    return list;
}

/// Shares the pictures of a step out among the ranks that are `asked` for: by another batch of each, or, where that
/// leaves a rest, by more batches a step.
void share_out(Options& resumed, const Options& asked, const Options& before) {
    const int64_t step = before.pictures_a_step();
    for (const auto& [name, member] : {std::pair{"ranks", &Options::ranks},
                                       {"batch-size", &Options::batch_size},
                                       {"accumulate", &Options::accumulate}}) {
        resumed.*member = (insists(asked, name) ? asked : before).*member;
        resumed.origins[name] = insists(asked, name) ? asked.origin(name) : Origin::config_file;
    }
    if (step % resumed.ranks != 0)
        refuse_sharing(before, asked, resumed.ranks, cat("give a number of ranks that divides them: ", divisors(step)));
    const int64_t each = step / resumed.ranks;
    if (insists(asked, "batch-size")) {
        if (!insists(asked, "accumulate")) resumed.accumulate = std::max<int64_t>(1, each / resumed.batch_size);
    } else if (!insists(asked, "accumulate")) {
        while (each % resumed.accumulate != 0)
            resumed.accumulate = resumed.accumulate < each ? resumed.accumulate + 1 : each;
        resumed.batch_size = each / resumed.accumulate;
    } else {
        resumed.batch_size = std::max<int64_t>(1, each / resumed.accumulate);
    }
    if (resumed.pictures_a_step() != step)
        refuse_sharing(
            before, asked, resumed.ranks,
            cat("--ranks times --batch-size times --accumulate must stay ", step, "; leave out the last two"));
}

}  // namespace

Options stored_options(const std::string& run_toml) {
    Options stored;
    apply_file(stored, run_toml, Origin::config_file);
    return stored;
}

Options resumed_options(const Options& asked, const Options& stored) {
    Options resumed = asked;
    for (const OptionRow& row : option_table()) {
        const bool stored_here = row.in_files && stored.is_set(row.name);
        if (!stored_here || (row.may_change && asked.is_set(row.name))) continue;
        const std::string name = row.name;
        if (name == "ranks" || name == "batch-size" || name == "accumulate") continue;
        const std::string then = toml_value(row, stored), now = toml_value(row, asked);
        if (insists(asked, row.name) && then != now)
            throw Error(Exit::usage, cat("the run had ", row.name, " = ", then, " and cannot go on with ", now),
                        cat("leave ", row.name, " out to resume, or start a new run"));
        std::visit([&](auto member) { resumed.*member = stored.*member; }, row.member);
        resumed.origins[row.name] = Origin::config_file;
    }
    share_out(resumed, asked, stored);
    if (resumed.data.empty()) resumed.data = stored.data;
    return resumed;
}

std::vector<std::string> sharing_changes(const Options& before, const Options& now) {
    std::vector<std::string> lines;
    if (sharing(before) == sharing(now)) return lines;
    lines.push_back(cat("resumed by ", sharing(now), ", before by ", sharing(before), ": as before ",
                        now.pictures_a_step(), " pictures in a step, from the same one on"));
    const auto seen = [](const Options& options) { return options.batch_size * (options.sync_bn ? options.ranks : 1); };
    if (seen(before) != seen(now))
        lines.push_back(cat("batch norm sees ", seen(now), " pictures at a time from here on, before ", seen(before)));
    const bool same_batches = before.batch_size == now.batch_size && before.accumulate == now.accumulate;
    if ((now.mixup > 0 || now.cutmix > 0) && !same_batches)
        lines.push_back("mixup and CutMix take other pairs from here on: they mix within a rank's batch");
    return lines;
}

}  // namespace rn50
