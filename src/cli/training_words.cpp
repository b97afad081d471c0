#include "cli/training_words.h"

#include <algorithm>

#include "base/log.h"
#include "base/machine.h"
#include "report/report.h"
#include "report/table.h"

namespace rn50 {

void describe_data(const DataSplits& data) {
    std::string extra;
    for (const auto& [name, source] : data.extra)
        extra += cat(", ", report::grouped(source->size()), " ", name);
    std::string names;
    for (size_t i = 0; i < data.classes.size() && i < 12; ++i)
        names += cat(i == 0 ? " (" : ", ", report::shown(data.classes[i]));
    names += data.classes.size() > 12 ? ", ...)" : ")";
    log::info(cat("data: ", report::grouped(data.train->size()), " train, ", report::grouped(data.val->size()), " val",
                  extra, " pictures; ", data.classes.size(), " classes", names));
    for (const std::string& warning : data.warnings)
        log::warn(warning);
}

void describe_balance(const Options& options, const std::vector<std::string>& classes,
                      const std::vector<int64_t>& counts, const std::vector<float>& weights) {
    const auto [least, most] = std::minmax_element(counts.begin(), counts.end());
    const double ratio = static_cast<double>(*most) / static_cast<double>(std::max<int64_t>(*least, 1));
    const bool balanced = options.sampler == "balanced";
    if (ratio < 1.5 && weights.empty() && !balanced) return;
    const auto named = [&](auto at) {
        return cat(report::grouped(*at), " of ", report::shown(classes[static_cast<size_t>(at - counts.begin())]));
    };
    std::string done;
    if (balanced) done = "each class is drawn equally often";
    if (!weights.empty()) {
        const auto [light, heavy] = std::minmax_element(weights.begin(), weights.end());
        done += cat(done.empty() ? "" : ", and ", "the loss weighs classes from ", report::fixed(*light, 2), " to ",
                    report::fixed(*heavy, 2));
    }
    log::info(cat("classes: ", named(most), " to ", named(least), " (", report::fixed(ratio, 1), " to 1); ",
                  done.empty() ? "nothing is done about it: --class-weights auto or --sampler balanced would" : done));
    if (balanced && !weights.empty())
        log::warn_of_all(
            "--sampler balanced and --class-weights auto both even the classes out: together they favour rare ones");
}

LoadingFacts loading_facts(const EpochSummary& epoch, const Options& options, const Loader& loader, Communicator* comm,
                           int ranks_here) {
    LoadingFacts facts;
    facts.images_per_s = epoch.images_per_s;
    facts.data_wait = epoch.data_wait;
    facts.ranks = comm != nullptr ? comm->size() : 1;
    facts.rank = epoch.slowest_rank;
    const std::vector<double> mine{loader.pictures_per_worker_s(), static_cast<double>(loader.workers()),
                                   static_cast<double>(cores_of_process().usable()), static_cast<double>(ranks_here),
                                   static_cast<double>(memory_of_process().usable())};
    const std::vector<double> all = comm != nullptr ? comm->gather(mine) : mine;
    const double* const of_rank = &all[static_cast<size_t>(facts.rank) * mine.size()];
    facts.images_per_worker_s = of_rank[0];
    facts.workers = static_cast<int>(of_rank[1]);
    facts.cores = static_cast<int>(of_rank[2]);
    facts.ranks_here = static_cast<int>(of_rank[3]);
    facts.usable_memory = static_cast<int64_t>(of_rank[4]);
    facts.cache_bytes = options.cache_mb * 1'000'000;
    facts.seen = loader.seen();
    facts.crops = options.augment != "none" && options.augment != "flip" && options.resize != "letterbox" &&
                  options.decode == "region" && options.cache_mb == 0;
    facts.image_size = options.image_size;
    facts.data = options.data;
    return facts;
}

FitObserver training_observer(Progress& progress, const Options& options, int64_t val_images) {
    FitObserver watch;
    watch.step = [&progress](int64_t epoch, int64_t step, double loss, double lr, double wait) {
        progress.step(epoch, step, loss, lr, wait);
    };
    watch.evaluating = [val_images, ranks = options.ranks](int64_t images) {
        log::progress(cat("val  ", std::min(images * ranks, val_images), "/", val_images, " pictures"));
    };
    watch.epoch = [&progress, &options](const EpochSummary& epoch, bool best) {
        log::progress_done();
        log::info(
            cat("epoch ", epoch.epoch, "/", options.epochs, "  train loss ", report::fixed(epoch.train_loss, 4),
                "  val loss ", report::fixed(epoch.val_loss, 4), "  top-1 ", report::fixed(epoch.top1, 2), "%",
                // An epoch that was only evaluated in this part of the run has no rate.
                epoch.images_per_s > 0
                    ? cat("  ", report::fixed(epoch.images_per_s, epoch.images_per_s < 100 ? 1 : 0), " img/s")
                    : "",
                epoch.data_wait >= 0.05 ? cat(", ", report::fixed(100 * epoch.data_wait, 0), "% waiting for data") : "",
                best ? "  *" : ""));
        progress.resume_clock();
    };
    return watch;
}

}  // namespace rn50
