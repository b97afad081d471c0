// rn50 pack and unpack: a data set in another format.
#include <chrono>
#include <cstdio>
#include <filesystem>

#include "base/error.h"
#include "base/files.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/picture_options.h"
#include "cli/progress.h"
#include "cli/training_setup.h"
#include "pipeline/pack.h"
#include "report/table.h"

namespace rn50 {

namespace fs = std::filesystem;

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

/// A line that rewrites itself on a terminal, one every ten seconds elsewhere.
class PackProgressLine {
  public:
    void show(const PackState& state) {
        const double since = seconds_since(shown_);
        if (since < (log::on_terminal() ? 0.1 : 10)) return;
        shown_ = Clock::now();
        const double rate = static_cast<double>(state.done_now) / seconds_since(start_);
        const double left = static_cast<double>(state.total - state.done) / rate;
        const std::string line = cat(state.split, "  ", report::grouped(state.done), "/", report::grouped(state.total),
                                     " pictures  ", report::fixed(rate, 1), " pictures/s  ETA ", clock_time(left));
        if (log::on_terminal())
            log::progress(line);
        else
            log::info(line);
    }
    double seconds() const { return seconds_since(start_); }

  private:
    const Clock::time_point start_ = Clock::now();
    Clock::time_point shown_ = start_;
};

PackOptions pack_options(const Options& options) {
    PackOptions packing;
    packing.format = options.command == "unpack" ? PackFormat::folder : pack_format_from(options.format);
    packing.encode = pack_encode_from(options.encode);
    packing.longest = options.longest;
    packing.shortest = options.shortest;
    packing.quality = static_cast<int>(options.quality);
    packing.restart_markers = options.restart_markers;
    packing.bits = static_cast<int>(options.bits);
    packing.workers = static_cast<int>(options.workers);
    packing.part_bytes = options.shard_mb * 1'000'000;
    packing.max_bad = options.max_bad;
    return packing;
}

/// The defaults of the data set go with it.
void copy_data_file(const std::string& data, const std::string& out) {
    const fs::path from = fs::path(data) / "rn50.toml", to = fs::path(out) / "rn50.toml";
    std::error_code missing;
    if (fs::is_regular_file(from, missing) && !fs::exists(to, missing))
        write_file_atomic(to.string(), read_file(from.string()));
}

void tell(const Options& options, const PackSummary& summary, double seconds) {
    const std::string& out = options.output;
    if (summary.bad > 0)
        log::warn(cat(report::grouped(summary.bad), " bad ", summary.bad == 1 ? "picture is" : "pictures are",
                      " left out, listed in ", (fs::path(out) / "bad.txt").string()));
    if (summary.unmarked > 0)
        log::warn(cat(report::grouped(summary.unmarked), summary.unmarked == 1 ? " JPEG is" : " JPEGs are",
                      " copied without restart markers, because with them the pixels would not be the same"));
    if (summary.made_lossy > 0)
        log::warn(cat(report::grouped(summary.made_lossy), summary.made_lossy == 1 ? " picture" : " pictures",
                      " without loss (PNG, BMP, PNM or TGA) became JPEG of quality ", options.quality,
                      ", which changes the pixels; --encode png would keep them"));
    const bool in_shards =
        options.command == "pack" && (options.format == "webdataset" || options.format == "tfrecord");
    const std::string held =
        cat(out, ": ", report::grouped(summary.pictures), " pictures, ", show_bytes(summary.bytes),
            in_shards ? cat(" in ", report::grouped(summary.shards), summary.shards == 1 ? " shard" : " shards")
                      : std::string());
    if (summary.was_complete)
        std::printf("%s; nothing was left to do\n", held.c_str());
    else
        std::printf("%s, read back and right, in %s\n", held.c_str(), report::duration(seconds).c_str());
}

}  // namespace

int run_pack(const Options& options) {
    catch_interrupts();
    std::vector<std::string> warnings;
    const std::vector<NamedSource> splits = open_splits(options.data, data_options(options), warnings);
    for (const std::string& warning : warnings)
        log::warn(warning);
    PackProgressLine line;
    const PackSummary summary =
        pack(splits, options.output, pack_options(options), [&](const PackState& state) { line.show(state); });
    log::progress_done();
    copy_data_file(options.data, options.output);
    if (summary.stopped) {
        log::info(cat(options.output, ": stopped; ", report::grouped(summary.pictures), " pictures in ",
                      report::grouped(summary.shards), " finished parts are kept, the same command goes on"));
        return exit_code_of_signal(interrupt_requested());
    }
    tell(options, summary, line.seconds());
    return static_cast<int>(Exit::ok);
}

}  // namespace rn50
