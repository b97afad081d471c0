// rn50 train: from a folder of pictures to a trained net.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/files.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/machine.h"
#include "base/math.h"
#include "cli/commands.h"
#include "cli/decoding.h"
#include "cli/gpus.h"
#include "cli/launcher.h"
#include "cli/loading_advice.h"
#include "cli/picture_options.h"
#include "cli/progress.h"
#include "cli/ranks.h"
#include "cli/training_parts.h"
#include "cli/training_setup.h"
#include "cli/training_words.h"
#include "comm/comm.h"
#include "comm/store.h"
#include "report/report.h"
#include "report/table.h"
#include "train/fit.h"

namespace rn50 {

namespace fs = std::filesystem;

namespace {

/// Where a resumed run lies.
struct ResumePoint {
    std::string folder, state_file;
};

ResumePoint resume_point(const Options& options) {
    const std::string named = options.resume == "auto" ? options.out : options.resume;
    std::error_code unknown;
    if (fs::is_directory(named, unknown)) return {named, (fs::path(named) / "state.safetensors").string()};
    if (!fs::exists(named, unknown))
        throw Error(Exit::data, cat(named, " does not exist: there is no run to resume"),
                    "name the folder of a run, or its state.safetensors");
    const std::string parent = fs::path(named).parent_path().string();
    return {parent.empty() ? "." : parent, named};
}

report::SplitRow split_row(const std::string& name, const EvalMetrics& metrics) {
    return {name, metrics.images(), metrics.loss(), metrics.top1(), metrics.top5(), metrics.macro_f1()};
}

/// A run from its options to its report.
class Training {
  public:
    explicit Training(const Options& options) : options_(options) {}

    int run() {
        place_ = place_from(process_environment());
        if (place_) take_place(options_, *place_);
        begin_where_nothing_is();
        if (resumed()) {
            point_ = resume_point(options_);
            const Options before = stored_options((fs::path(point_.folder) / "run.toml").string());
            if (!place_ && options_.origin("gpus") == Origin::command_line) {  // other GPUs are other ranks
                options_.ranks = gpu_launch(options_).ranks;
                options_.origins["ranks"] = Origin::command_line;
            }
            options_ = resumed_options(options_, before);
            changes_ = sharing_changes(before, options_);
        } else if (!options_.out.empty() && leads()) {
            RunDir::require_free(options_.out);  // before millions of pictures are looked for
        }
        const GpuLaunch launch = settle_ranks(options_, place_);
        if (launch.ranks == 1) return train();
        // The ranks end by themselves when one of them is lost; whoever cannot is ended soon after.
        if (!place_) return launch_ranks(launch.ranks, launch.environment, options_.peer_timeout);
        try {
            return run_as_rank(*place_, options_, comm_, [this] { return train(); });
        } catch (const Error& error) {
            if (error.remedy() != after_a_loss) throw;
            throw Error(error.code(), error.what(), way_on());
        }
    }

  private:
    bool resumed() const { return !options_.resume.empty(); }
    /// Rank 0 alone writes and speaks.
    bool leads() const { return !place_ || place_->rank == 0; }

    Options here() const { return options_here(options_, core_sharers_); }

    /// --resume auto may stand in the first command already, so that who starts it anew after a loss need not change
    /// it.
    void begin_where_nothing_is() {
        std::error_code unknown;
        if (options_.resume != "auto" || fs::exists(fs::path(options_.out) / "run.toml", unknown)) return;
        if (options_.data.empty())
            throw Error(Exit::data,
                        cat(options_.out, " holds no run to resume, and no pictures are named to begin one"),
                        "name the folder of a run, or DATA for a new one");
        options_.resume.clear();
        begins_ = true;
    }

    /// What stands on the disk after a rank was lost, and what to do.
    std::string way_on() const {
        const std::string again = "mend the cause, and start the same command again";
        if (run_folder_.empty()) return cat("nothing was saved yet: ", again);
        const std::optional<int64_t> step = saved_step((fs::path(run_folder_) / "state.safetensors").string());
        if (!step) return cat(run_folder_, " holds no state yet: ", again, " with --resume auto --out ", run_folder_);
        return cat(run_folder_, " is saved up to step ", *step,
                   ": mend the cause, and go on with the same command and --resume auto --out ", run_folder_);
    }

    void open_device() {
        catch_interrupts(leads());
        if (begins_) log::info(cat(options_.out, " holds no run yet: a new one begins there"));
        if (comm_) core_sharers_ = ranks_on_these_cores(*comm_);
        backend_ = open_backend(here(), place_ ? place_->local_rank : 0);
        if (!comm_) {
            const std::string others = backend_->info().kind == "cpu" ? "" : other_gpus(options_);
            if (!others.empty()) log::info(others);
            if (options_.sync_bn) log::warn("--sync-bn changes nothing: one rank sees the whole batch");
            return;
        }
        // run.toml repeats the run on another machine too.
        options_.precision = name_of(resolve_precision(options_.precision, backend_->info()));
        require_same(*comm_, common_device(options_, backend_->info()),
                     "see rn50 doctor where they run; --device and --precision choose what all have");
        comm_->connect(engine_for(*backend_));
        log::info(cat("ranks: ", comm_->size(), " by ", comm_->engine(), gpus_of_ranks(*comm_, *backend_), ", batch ",
                      options_.batch_size, " each, ", options_.pictures_a_step(), " in a step",
                      options_.sync_bn ? ", batch norm over all" : ", batch norm of each"));
    }

    /// Ranks that have their device's memory between them: those of one machine, where that is its processor.
    int64_t sharers() const { return place_ && backend_->info().kind == "cpu" ? place_->local_size : 1; }

    int train() {
        open_device();
        data_ = open_in_turn(options_, comm_.get());
        if (comm_) {
            const char* const remedy = "give all ranks the same pictures in the same folders";
            require_same(*comm_, common_data(data_), remedy);
            require_same(*comm_, common_contents(data_), remedy);
        }
        if (leads()) describe_data(data_);

        TrainerOptions setup = trainer_options(options_, backend_->info(), static_cast<int64_t>(data_.classes.size()));
        const std::vector<int64_t> counts = class_counts(*data_.train);
        if (options_.class_weights == "auto") setup.class_weights = balanced_class_weights(counts);
        describe_balance(options_, data_.classes, counts, setup.class_weights);
        setup.changes = augments_on_device();
        share_among_ranks(setup, options_, comm_.get());
        options_.precision = name_of(setup.net.precision);  // run.toml repeats the run on another machine too
        worker_bytes_ = bytes_of_workers();
        const auto loading = [this](int64_t batch) { return loading_bytes(batch); };
        plan_ = plan_that_fits(*backend_, setup, options_.memory, loading, sharers());
        decoding_ = resolve_decoding(options_, *backend_, comm_.get(), *data_.train,
                                     of_this_rank(training_loading(here()), comm_.get()),
                                     [&] { return net_images_per_s(*backend_, setup); });
        if (decoding_.device_bytes > 0) {
            plan_ = plan_that_fits(*backend_, setup, options_.memory, loading, sharers());
            decoding_.decoders->reserve(decoding_.device_bytes);
        }
        plan_.beside = backend_->memory_taken().beside;
        if (comm_)
            require_same(*comm_,
                         cat("precision = ", options_.precision, "\ndecoding = ", options_.decode,
                             "\naugmentation on the GPU = ", setup.changes ? "yes" : "no", "\n"),
                         "choose by --precision and --decode what all ranks have");
        // Only now is it known that the run can be: loaders, arena and net take their memory once.
        make_cache();
        LoaderOptions train_loading = of_this_rank(training_loading(here()), comm_.get());
        LoaderOptions val_loading = of_this_rank(evaluation_loading(here()), comm_.get());
        train_loading.cache = val_loading.cache = cache_.get();
        train_loading.decoders = decoding_.decoders.get();
        train_loading.changes_apart = setup.changes;
        train_loading.give_way = val_loading.give_way = backend_->info().kind == "cpu";
        Loader train(*data_.train, train_loading, backend_->host_memory());
        Loader val(*data_.val, val_loading, backend_->host_memory());
        describe_plan(setup, train.memory_bytes() + val.memory_bytes());
        Arena arena(backend_->memory(), plan_.peak);
        Trainer trainer(*backend_, arena, setup);
        libraries_ = settle_libraries(*backend_, trainer);
        info_ = checkpoint_info(options_, setup.net, data_.classes);

        FitState state;
        if (resumed() && leads() && holds_state()) {
            state = load_state(point_.state_file, trainer, info_);
            require_same_pictures(state);
        } else {
            trainer.initialize();
            if (!options_.init.empty() && leads())
                import_checkpoint(SafetensorsReader(options_.init), trainer.backend(), trainer.context(), trainer.net(),
                                  data_.classes);
        }
        state.pictures = data_.train->size();
        state.fingerprint = fingerprint_of(*data_.train);
        // One rank reads the state: on another's disk may lie an older one.
        if (comm_) state = state_from(comm_->gather(leads() ? text_of(state) : "")[0]);
        trainer.follow_rank_0();
        if (comm_) tell_ways(*comm_);
        for (const std::string& change : changes_)
            log::info(change);
        RunDir folder = open_folder(state.step);
        run_folder_ = folder.path();
        log::info(cat("run: ", folder.path(), resumed() ? cat(", resumed at step ", state.step) : ""));
        return train_and_report(trainer, train, val, folder, std::move(state));
    }

    /// Whether the device does to pixels what it does as the CPU would, bit for bit, so that the loader need not.
    bool augments_on_device() {
        const PictureOptions pictures = training_pictures(options_);
        const bool can = pictures.augment != Augment::none && belongs_to_pixels(pictures) && !mixing(options_);
        if (backend_->info().kind == "cpu" || !can) return false;
        log::info("augmentation: rotations, flips, colours and erasing on the GPU");
        return true;
    }

    /// An epoch is an order of pictures: with others in their places the run would go on as another.
    void require_same_pictures(const FitState& before) const {
        const int64_t now = data_.train->size();
        std::string difference;
        if (before.pictures != now)
            difference = cat("it trained on ", report::grouped(before.pictures), " pictures, now there are ",
                             report::grouped(now));
        else if (before.fingerprint && *before.fingerprint != fingerprint_of(*data_.train))
            difference = cat("it trained on other pictures: there are ", report::grouped(now),
                             " as before, but not all have the names, labels and places that they had");
        if (!difference.empty())
            throw Error(Exit::data, cat(point_.folder, " cannot be resumed: ", difference),
                        "restore the data, or start a new run from its weights with --init");
    }

    RunDir open_folder(int64_t step) {
        if (!leads()) return RunDir::of_rank_0(comm_->gather("")[0]);
        RunDir folder = resumed() ? RunDir::resume(point_.folder, step) : RunDir::create(options_.out);
        folder.write_text("run.toml", to_toml(options_));
        if (comm_) comm_->gather(folder.path());
        return folder;
    }

    /// A run that was killed within its first epoch has nothing to go on from but its options.
    bool holds_state() const {
        std::error_code unknown;
        if (fs::exists(point_.state_file, unknown)) return true;
        log::warn(cat(point_.folder, " was stopped before anything was saved: it starts from its beginning"));
        return false;
    }

    /// About what the workers of both loaders take while each is at a picture, beside the rings.
    int64_t bytes_of_workers() const {
        const LoaderOptions train = training_loading(here()), val = evaluation_loading(here());
        const bool cached = options_.cache_mb > 0;
        return workers_of(train) * estimated_buffers(*data_.train, train.pictures, cached) +
               workers_of(val) * estimated_buffers(*data_.val, val.pictures, cached);
    }

    /// What loading takes of the device's memory: all of it where that is the processor's.
    int64_t loading_bytes(int64_t batch) const {
        if (backend_->info().kind != "cpu") return decoding_.device_bytes;
        const int64_t bytes = batch_bytes(options_, batch);
        return (ring_slots(bytes) + val_slots) * bytes + worker_bytes_;
    }

    void make_cache() {
        if (options_.cache_mb == 0) return;
        const bool on_cpu = backend_->info().kind == "cpu";
        const int64_t bytes = options_.cache_mb * 1'000'000,
                      usable = memory_of_process().usable() / (place_ ? place_->local_size : 1);
        const int64_t left = std::max<int64_t>(0, usable - (on_cpu ? plan_.peak : 0));
        if (usable > 0 && bytes > left)
            throw Error(Exit::device,
                        cat("--cache-mb ", options_.cache_mb, " is more memory than there is: ", show_bytes(left),
                            on_cpu ? " are left beside the net" : " are free"),
                        cat("give --cache-mb ", left / 2'000'000, " or less"));
        cache_ = std::make_unique<PictureCache>(bytes);
    }

    void describe_plan(const TrainerOptions& setup, int64_t rings) {
        log::info(cat("net: ", options_.model, ", ", options_.image_size,
                      options_.channels == 1 ? " px grey, batch " : " px, batch ", options_.batch_size,
                      options_.accumulate > 1 ? cat(", ", options_.accumulate, " batches a step") : "", ", ",
                      name_of(setup.net.precision), ", ", options_.optimizer, setup.net.lean ? ", lean memory" : ""));
        log::info(cat("memory plan: ", show_bytes(plan_.peak), " for the step, ", show_bytes(rings),
                      " for loaded pictures, about ", show_bytes(worker_bytes_), " in the workers that load",
                      decoding_.device_bytes > 0 ? cat(", ", show_bytes(decoding_.device_bytes), " for decoding") : "",
                      cache_ ? cat(", up to ", show_bytes(cache_->capacity_bytes()), " to keep decoded ones") : "",
                      "\n", without_last_line_end(plan_.table())));
    }

    static std::string without_last_line_end(std::string text) {
        if (!text.empty() && text.back() == '\n') text.pop_back();
        return text;
    }

    int train_and_report(Trainer& trainer, Loader& train, Loader& val, RunDir& folder, FitState state) {
        const int64_t steps = train.batches_per_epoch() / options_.accumulate;
        FitOptions how = fit_options(options_, steps, plan_);
        how.late = backend_->asynchronous();
        const int64_t all = how.schedule.total_steps;
        Progress progress(options_.epochs, steps, how.max_steps > 0 ? std::min(how.max_steps, all) : all, state.step,
                          options_.pictures_a_step());
        FitObserver watch = training_observer(progress, options_, data_.val->size());
        watch.step = [&, tell = watch.step](int64_t epoch, int64_t step, double loss, double lr, double wait) {
            tell(epoch, step, loss, lr, wait);
            if (leads()) tell_unused_bits(train.seen(), options_.bits, false);
        };
        watch.epoch = [&, tell = watch.epoch, epochs = 0](const EpochSummary& epoch, bool best) mutable {
            tell(epoch, best);
            tell_declined(train);
            if (leads()) tell_unused_bits(train.seen(), options_.bits, true);
            // The first epoch reads from a cold disk; what waits in the second will wait in all.
            if (++epochs < 2) return;
            LoadingFacts facts = loading_facts(epoch, options_, train, comm_.get(), place_ ? place_->local_size : 1);
            if (!leads() || epoch.data_wait <= data_wait_worth_telling) return;
            facts.net_uses_cores = backend_->info().kind == "cpu";
            facts.pictures = data_.train->size() + data_.val->size();
            facts.device_could_decode = decoding_.device_is_left;
            facts.in_files = data_.train->format() == "folder";
            log::warn_once("loading", loading_advice(facts));
        };
        const std::string command = cat("go on with: rn50 train --resume auto --out ", folder.path());
        FitResult result;
        try {
            result = fit(trainer, train, val, folder, info_, how, std::move(state), watch);
        } catch (const ReadError& error) {
            throw Error(Exit::data, error.what(), cat(error.remedy(), "; then ", command));
        } catch (const Error& error) {
            // A GPU that is lost takes the steps since the last save with it, and nothing more.
            if (error.code() == Exit::device && fs::exists(folder.file("state.safetensors"))) {
                log::progress_done();
                log::info(cat("what was saved last is kept; ", command));
            }
            throw;
        }
        log::progress_done();
        if (result.signal != 0) {
            log::info(cat("saved; ", command));
            return exit_code_of_signal(result.signal);
        }
        train.stop();
        return report(trainer, val, folder, result);
    }

    EvalMetrics evaluate(Trainer& trainer, Loader& loader, const std::string& name, int64_t images) {
        loader.start_epoch(0);
        EvalMetrics metrics = trainer.evaluate(loader, [&](int64_t done) {
            log::progress(cat(name, "  ", done, "/", images, " pictures"));
            return interrupt_requested() == 0;
        });
        log::progress_done();
        return metrics;
    }

    /// Judges the best weights on val and on the splits beside it, and tells. Returns the exit code.
    int report(Trainer& trainer, Loader& val, RunDir& folder, const FitResult& result) {
        const PaceFor finishing(comm_.get(), Pace::saving);
        const bool again = !result.best_val;
        const std::string best_file = folder.file("best.safetensors");
        if (again || !data_.extra.empty()) {
            if (leads())
                load_checkpoint(SafetensorsReader(best_file), trainer.backend(), trainer.context(), trainer.net());
            trainer.follow_rank_0();
        }
        const EvalMetrics on_val = again ? evaluate(trainer, val, "val", data_.val->size()) : *result.best_val;

        report::RunReport report;
        report.splits.push_back(split_row("val", on_val));
        for (const auto& [name, source] : data_.extra) {
            Loader loader(*source, of_this_rank(evaluation_loading(here()), comm_.get()), backend_->host_memory());
            report.splits.push_back(split_row(name, evaluate(trainer, loader, name, source->size())));
        }
        const int signal = agreed_signal(comm_.get());
        if (signal != 0) {
            log::info(
                cat("the weights are saved, the report is not written; that does: rn50 train --resume auto --out ",
                    folder.path()));
            return exit_code_of_signal(signal);
        }
        if (!leads()) return static_cast<int>(Exit::ok);
        fill(report, on_val, folder, result);
        folder.write_text("report.html", report::html(report));
        MetricsLine line;
        line.event = "end";
        line.epoch = result.state.history.empty() ? 0 : result.state.best()->epoch;
        line.step = result.state.step;
        line.loss = on_val.loss();
        line.top1 = on_val.top1();
        line.top5 = on_val.top5();
        line.macro_f1 = on_val.macro_f1();
        line.memory_mb = static_cast<double>(plan_.total()) / 1e6;
        folder.log(line);
        std::fputs(report::text_summary(report).c_str(), stdout);
        std::fflush(stdout);  // before the lines below, where both go to one file
        const EpochSummary* const best = result.state.best();
        log::info(cat("best weights: ", best_file, best != nullptr ? cat(" (epoch ", best->epoch, ")") : "", ", after ",
                      clock_time(result.state.elapsed_s), " of training\nreport:       ", folder.file("report.html"),
                      "\nuse them:     rn50 predict ", folder.path(), " PICTURE..."));
        return static_cast<int>(Exit::ok);
    }

    void fill(report::RunReport& report, const EvalMetrics& on_val, const RunDir& folder, const FitResult& result) {
        const DeviceInfo device = backend_->info();
        report.title = cat(options_.model, " on ", options_.data);
        report.classes = data_.classes;
        const EpochSummary* const best = result.state.best();
        report.facts = {{"run", folder.path()},
                        {"model", cat(options_.model, ", ", data_.classes.size(), " classes, ", options_.image_size,
                                      " px, batch ", options_.batch_size, ", ", options_.precision)},
                        {"device", cat(device.name, ", ", device.library)},
                        {"pictures", cat(report::grouped(data_.train->size()), " train, ",
                                         report::grouped(data_.val->size()), " val")},
                        {"memory", show_bytes(plan_.total())}};
        if (best != nullptr)
            report.facts.emplace_back("best",
                                      cat("epoch ", best->epoch, ", top-1 ", report::fixed(best->top1, 2), "%"));
        for (const EpochSummary& e : result.state.history)
            report.history.push_back({e.epoch, e.lr, e.train_loss, e.val_loss, e.top1, e.top5, e.macro_f1,
                                      e.images_per_s, e.data_wait, e.seconds});
        for (int64_t label = 0; label < on_val.confusion().classes(); ++label) {
            const ClassScore score = on_val.confusion().score(label);
            report.scores.push_back({score.support, score.precision, score.recall, score.f1});
        }
        report.confusion = on_val.confusion().rows();
        report.options = to_toml(options_);
        report.memory_plan = plan_.table() + (libraries_.bytes > 0 ? table_row(libraries_) : "");
        report.bad_pictures = folder.bad_pictures();
        report.elapsed_s = result.state.elapsed_s;
    }

    Options options_;
    ResumePoint point_;
    std::vector<std::string> changes_;    ///< of a resumed run, to be said
    std::optional<Place> place_;          ///< absent: alone, or the launcher of the others
    int64_t core_sharers_ = 1;            ///< ranks that have these cores between them
    bool begins_ = false;                 ///< with --resume auto, where there is nothing to resume
    std::string run_folder_;              ///< once it is there
    std::unique_ptr<Communicator> comm_;  ///< absent: alone
    std::unique_ptr<Backend> backend_;
    DataSplits data_;
    std::unique_ptr<PictureCache> cache_;
    Decoding decoding_;
    int64_t worker_bytes_ = 0;
    MemoryPlan plan_;
    NamedBytes libraries_;  ///< what the device's libraries have
    CheckpointInfo info_;
};

}  // namespace

int run_train(const Options& options) {
    return Training(options).run();
}

}  // namespace rn50
