#include "train/fit.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <set>

#include "base/error.h"
#include "base/files.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "comm/wire.h"

namespace rn50 {

namespace {

using Clock = std::chrono::steady_clock;

constexpr int32_t skips_that_end_a_run = 50;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Signals that ask to stop. When ranks have caught different ones the last of these counts.
constexpr int stopping_signals[] = {SIGHUP, SIGINT, SIGTERM};

/// How many ranks have caught which signal is a sum: one number for each.
void append_signal(std::vector<double>& numbers, int caught) {
    for (const int signal : stopping_signals)
        numbers.push_back(signal == caught ? 1 : 0);
}

/// What such sums say, which begin at `at`; 0: none was caught.
int signal_in(const std::vector<double>& sums, size_t at) {
    int found = 0;
    for (const int signal : stopping_signals)
        if (sums[at++] > 0) found = signal;
    return found;
}

class Fit {
  public:
    Fit(Trainer& trainer, Loader& train, Loader& val, RunDir& run, const CheckpointInfo& info,
        const FitOptions& options, FitState state, const FitObserver& observer)
        : trainer_(trainer),
          train_(train),
          val_(val),
          run_(run),
          info_(info),
          options_(options),
          observer_(observer),
          batch_size_(trainer.options().net.batch),
          accumulate_(trainer.options().net.accumulate),
          steps_per_epoch_(train.batches_per_epoch() / accumulate_),
          comm_(trainer.options().comm),
          pictures_a_step_(accumulate_ * batch_size_ * (comm_ != nullptr ? comm_->size() : 1)) {
        result_.state = std::move(state);
    }

    FitResult run() {
        try {
            return run_epochs();
        } catch (const ReadError&) {
            tell_news();
            if (!between_steps_) throw;  // within a step of several batches; what was saved before stays
            save_before_end();
            throw;
        } catch (const Error&) {
            tell_news();
            throw;
        }
    }

  private:
    FitResult run_epochs() {
        log_start();
        const int64_t total = options_.epochs * steps_per_epoch_;
        const int64_t last = options_.max_steps > 0 ? std::min(options_.max_steps, total) : total;
        last_ = last;
        if (evaluation_due() && !finish_epoch()) return stopped();
        if (state().step < last) train_.start_epoch(epoch(), state().step % steps_per_epoch_ * accumulate_);
        while (state().step < last) {
            if (!train_epoch(last)) return stopped();
            if (!evaluation_due()) break;                          // --max-steps ended it within the epoch
            if (state().step < last) train_.start_epoch(epoch());  // loads while the evaluation runs
            if (!finish_epoch()) return stopped();
        }
        if (state().step % steps_per_epoch_ != 0) save_position();
        return std::move(result_);
    }

    /// Too many bad pictures are a reason to stop: they are to be found.
    void tell_news() {
        for (BadList* const list : {&bad_train_, &bad_val_})
            for (const BadPicture& bad : take_new(*list))
                tell(bad);
    }

    void save_before_end() {
        log::progress_done();
        log::info(cat("saving step ", state().step, " to ", run_.path()));
        try {
            save_position(training_ ? seconds_since(epoch_start_) : 0);
        } catch (const Error& error) {  // the reason to end comes first
            log::warn(cat(error.what(), "; what was saved before stays"));
        }
        if (unread_by_a_rank_) comm_->barrier();  // whoever leaves first ends the others
    }

    FitState& state() { return result_.state; }
    /// Of the next step, from 0.
    int64_t epoch() { return state().step / steps_per_epoch_; }
    bool evaluation_due() {
        return state().step > 0 && state().step % steps_per_epoch_ == 0 &&
               static_cast<int64_t>(state().history.size()) < epoch();
    }

    void log_start() {
        MetricsLine line;
        line.event = "start";
        line.epoch = epoch() + 1;
        line.step = state().step;
        line.memory_mb = options_.memory_mb;
        run_.log(line);
    }

    /// To the end of the epoch, or to step `last`. False: a signal asks to stop.
    bool train_epoch(int64_t last) {
        epoch_start_ = Clock::now();
        training_ = true;
        epoch_steps_ = 0;
        waits_.assign(comm_ != nullptr ? static_cast<size_t>(comm_->size()) : 1, 0);
        epoch_wait_ = 0;
        if (comm_ != nullptr && steps_made_) {
            comm_->barrier();  // until rank 0 has saved
            comm_->pace(Pace::stepping);
        }
        while (true) {
            one_step();
            if (comm_ != nullptr) comm_->pace(Pace::stepping);  // not before: the first may wait for a cold disk
            steps_made_ = true;
            if (signal_ != 0 || state().step % steps_per_epoch_ == 0 || state().step >= last) break;
            if (unread_by_a_rank_) throw *unread_by_a_rank_;
            if (save_is_due_) save_within_epoch();
        }
        if (comm_ != nullptr) comm_->pace(Pace::evaluating);
        epoch_seconds_ = seconds_since(epoch_start_);
        state().elapsed_s += epoch_seconds_;
        training_ = false;
        return signal_ == 0;
    }

    /// Brings the next batch of the epoch to the device.
    void stage_next() {
        trainer_.uploaded();  // the batch before goes back to the ring
        const Batch* batch = nullptr;
        {
            const bool waits = !train_.ready() && steps_made_;  // the first step is start-up
            const PaceFor loading(waits ? comm_ : nullptr, Pace::loading);
            batch = train_.next();
        }
        RN50_REQUIRE(batch != nullptr && batch->count == batch_size_, "a training batch is not whole");
        trainer_.stage(
            {batch->images.data, batch->labels.data, batch->partners.data, batch->share, batch->changes.data});
        staged_ = true;
    }

    /// Leaves to the device a batch, and beside it the next one, if that is loaded. One that is not is waited for when
    /// the device has nothing else to do: that, and no more, counts as waiting for pictures.
    void train_on_batch(int64_t part, double lr, bool last_of_epoch) {
        if (!staged_) {
            if (part > 0 && !train_.ready()) trainer_.backend().synchronize(trainer_.context());
            stage_next();
        }
        between_steps_ = false;
        trainer_.step(state().step, lr, part);
        staged_ = false;
        if (!last_of_epoch && train_.ready()) stage_next();
    }

    void one_step() {
        const Clock::time_point start = Clock::now();
        const double waited = train_.wait_seconds();
        const int64_t epoch_now = epoch();
        const double lr = options_.schedule.at(state().step);
        const bool goes_on = (state().step + 1) % steps_per_epoch_ != 0 && state().step + 1 < last_;
        for (int64_t part = 0; part < accumulate_; ++part)
            train_on_batch(part, lr, !goes_on && part + 1 == accumulate_);
        StepResult found = trainer_.result();
        ++state().step;
        ++epoch_steps_;
        between_steps_ = true;
        const double wait = agree(found, waited);
        if (comm_ != nullptr) comm_->step_took(seconds_since(start) - (train_.wait_seconds() - waited));
        epoch_wait_ += wait;
        const double seconds = seconds_since(start);

        MetricsLine line;
        line.event = "step";
        line.epoch = epoch_now + 1;
        line.step = state().step;
        line.loss = found.loss;
        line.lr = lr;
        line.images_per_s = static_cast<double>(pictures_a_step_) / seconds;
        line.data_wait = wait / seconds;
        line.loss_scale = static_cast<double>(found.state.loss_scale);
        line.grad_norm = static_cast<double>(found.state.grad_norm);
        line.memory_mb = options_.memory_mb;
        run_.log(line);
        check(found, epoch_now);
        state().add_loss(found.loss);
        observer_.step(epoch_now + 1, (state().step - 1) % steps_per_epoch_ + 1, found.loss, lr, wait);
    }

    void check(const StepResult& found, int64_t epoch_now) {
        const bool scaled = trainer_.options().net.precision == Precision::fp16;
        const bool lost = !std::isfinite(found.loss) && !scaled;
        if (!lost && found.state.skipped_in_row < skips_that_end_a_run) {
            if (found.state.skip != 0 && !scaled)
                log::warn_once("skip",
                               cat("step ", state().step, ": the gradients are not finite, the step is left out"));
            return;
        }
        const std::string what =
            lost ? cat("the loss is ", std::isnan(found.loss) ? "not a number" : "infinite")
                 : cat("gradients were not finite for ", found.state.skipped_in_row, " steps in a row");
        const bool saved = !state().history.empty();
        const std::string where = trainer_.first_non_finite();
        throw Error(
            Exit::diverged,
            cat("diverged: ", what, " at step ", state().step, " (epoch ", epoch_now + 1, ")",
                where.empty() ? "" : "; not finite first: " + where),
            cat("lower --lr, lengthen --warmup-epochs, or set --clip-norm 1",
                saved ? cat("; ", run_.file("best.safetensors"), " keeps the weights of epoch ", state().best()->epoch)
                      : ""));
    }

    /// Makes this rank's loss the global batch's, and returns the longest wait for pictures of any rank, which is what
    /// the step has lost: `waited` is what this one had waited before it. Takes notice of what any rank has met: a
    /// signal, bad pictures, the time to save.
    double agree(StepResult& found, double waited) {
        const std::vector<BadPicture> bad = take_new(bad_train_);
        const bool due = leads() && options_.save_seconds > 0 && seconds_since(saved_) >= options_.save_seconds;
        if (comm_ == nullptr) {
            signal_ = interrupt_requested();
            save_is_due_ = due;
            list_of_ranks(bad_train_, bad);
            const double wait = train_.wait_seconds() - waited;
            waits_[0] += wait;
            return wait;
        }
        // A rank that lacks its next batch says so now: in the middle of a step the others could not save any more. The
        // wait costs nothing, because the batch would be waited for right after.
        const bool another = state().step % steps_per_epoch_ != 0 && state().step < last_;
        std::string unread;
        if (another && !staged_) {
            const PaceFor loading(train_.ready() ? nullptr : comm_, Pace::loading);
            unread = train_.wait_for_next();
        }
        // Sums, which many ranks have sooner than what each of them says; the waits by rank.
        std::vector<double> mine{found.loss, static_cast<double>(bad.size()), due ? 1.0 : 0.0,
                                 unread.empty() ? 0.0 : 1.0};
        append_signal(mine, interrupt_requested());
        const size_t first_wait = mine.size();
        mine.resize(first_wait + waits_.size(), 0.0);
        mine[first_wait + static_cast<size_t>(comm_->rank())] = train_.wait_seconds() - waited;
        const std::vector<double> all = comm_->sum(mine);
        found.loss = all[0] / comm_->size();
        save_is_due_ = all[2] != 0;  // by rank 0's clock
        signal_ = signal_in(all, 4);
        double longest = 0;
        for (size_t rank = 0; rank < waits_.size(); ++rank) {
            waits_[rank] += all[first_wait + rank];
            longest = std::max(longest, all[first_wait + rank]);
        }
        if (all[1] > 0) list_of_ranks(bad_train_, bad);
        if (all[3] == 0) return longest;
        const std::vector<std::string> reasons = comm_->gather(unread);
        const auto first =
            std::find_if(reasons.begin(), reasons.end(), [](const std::string& one) { return !one.empty(); });
        unread_by_a_rank_.emplace(cat("rank ", first - reasons.begin(), ": ", *first), EIO);
        return longest;
    }

    /// The bad pictures of a loader and of those of the other ranks.
    struct BadList {
        const Loader& loader;
        size_t taken = 0;              ///< of the loader's own
        std::set<int64_t> known = {};  ///< by index
        std::vector<BadPicture> of_ranks = {};
    };

    static std::vector<BadPicture> take_new(BadList& list) {
        const std::vector<BadPicture>& bad = list.loader.bad();
        std::vector<BadPicture> news(bad.begin() + static_cast<ptrdiff_t>(list.taken), bad.end());
        list.taken = bad.size();
        return news;
    }

    /// Lists what this rank and the others have found; throws on all of them when it has become too much.
    void list_of_ranks(BadList& list, const std::vector<BadPicture>& mine) {
        std::string text;
        for (const BadPicture& bad : mine)
            for (const std::string& part : {std::to_string(bad.index), bad.name, bad.reason})
                wire::put_text(text, part);
        for (const std::string& of_rank : comm_ != nullptr ? comm_->gather(text) : std::vector<std::string>{text}) {
            std::string index, name, reason;
            for (size_t at = 0; wire::take_text(of_rank, at, index) && wire::take_text(of_rank, at, name) &&
                                wire::take_text(of_rank, at, reason);) {
                const BadPicture bad{std::stoll(index), name, reason};
                if (!list.known.insert(bad.index).second) continue;
                list.of_ranks.push_back(bad);
                tell(bad);
            }
        }
        list.loader.require_few(list.of_ranks);
    }

    void tell(const BadPicture& bad) {
        run_.log_bad_picture(bad.name, bad.reason);
        if (leads())
            log::warn_once("bad pictures", cat("skipped ", bad.name, ": ", bad.reason, "; such pictures are listed in ",
                                               run_.file("bad_pictures.txt")));
    }

    /// Rank 0 alone writes and speaks.
    bool leads() const { return comm_ == nullptr || comm_->rank() == 0; }

    /// Evaluates and saves. False: a signal asks to stop, and the evaluation is left to the resumed run.
    bool finish_epoch() {
        const Clock::time_point start = Clock::now();
        val_.start_epoch(0);
        const EvalMetrics metrics = trainer_.evaluate(val_, [&](int64_t images) {
            observer_.evaluating(images);
            return interrupt_requested() == 0;
        });
        list_of_ranks(bad_val_, take_new(bad_val_));
        signal_ = agreed_signal(comm_);
        if (signal_ != 0) return false;
        state().elapsed_s += seconds_since(start);

        EpochSummary summary;
        summary.epoch = epoch();
        summary.lr = options_.schedule.at(state().step - 1);
        summary.train_loss = state().mean_loss();
        summary.val_loss = metrics.loss();
        summary.top1 = metrics.top1();
        summary.top5 = metrics.top5();
        summary.macro_f1 = metrics.macro_f1();
        summary.seconds = epoch_seconds_;
        if (epoch_seconds_ > 0) {
            summary.images_per_s = static_cast<double>(epoch_steps_ * pictures_a_step_) / epoch_seconds_;
            summary.data_wait = epoch_wait_ / epoch_seconds_;
            summary.slowest_rank = static_cast<int>(std::max_element(waits_.begin(), waits_.end()) - waits_.begin());
        }
        state().history.push_back(summary);
        state().loss_sum = 0;
        state().loss_steps = 0;
        const bool best = state().best()->epoch == summary.epoch;
        if (best) result_.best_val = metrics;
        log_evaluation(summary);
        const PaceFor saving(comm_, Pace::saving);
        if (leads()) {
            save_last();
            if (best) keep_as_best();
            save_state(run_.file("state.safetensors"), trainer_, info_, state());
            saved_ = Clock::now();
        }
        observer_.epoch(summary, best);
        return true;
    }

    void log_evaluation(const EpochSummary& summary) {
        MetricsLine line;
        line.event = "eval";
        line.epoch = summary.epoch;
        line.step = state().step;
        line.loss = summary.val_loss;
        line.top1 = summary.top1;
        line.top5 = summary.top5;
        line.macro_f1 = summary.macro_f1;
        line.images_per_s = summary.images_per_s;
        line.data_wait = summary.data_wait;
        line.memory_mb = options_.memory_mb;
        run_.log(line);
    }

    void save_last() {
        save_checkpoint(run_.file("last.safetensors"), trainer_.backend(), trainer_.context(), trainer_.net(), info_,
                        state().step);
    }

    /// best is last by another name, until last is replaced: a second name costs no writing. Where the file system has
    /// no hard links it is written once more.
    void keep_as_best() {
        const std::string last = run_.file("last.safetensors"), best = run_.file("best.safetensors");
        const std::string link_name = temporary_name(best);
        unlink(link_name.c_str());
        if (link(last.c_str(), link_name.c_str()) == 0) {
            if (rename(link_name.c_str(), best.c_str()) == 0) {
                unlink(link_name.c_str());  // it is still there when both were one file already
                return;
            }
            unlink(link_name.c_str());
        }
        save_checkpoint(best, trainer_.backend(), trainer_.context(), trainer_.net(), info_, state().step);
    }

    /// `running_s`: of the epoch in progress, which the state does not count yet.
    void save_position(double running_s = 0) {
        if (!leads()) return;
        const PaceFor saving(comm_, Pace::saving);
        save_last();
        // Without an evaluation nothing is best; yet a run leaves weights to look at under that name too.
        if (state().history.empty()) keep_as_best();
        FitState now = state();
        now.elapsed_s += running_s;
        save_state(run_.file("state.safetensors"), trainer_, info_, now);
    }

    /// What a power cut, a killed process or a lost GPU then costs is minutes, not an epoch. A disk that is full for a
    /// while costs no more: what was saved before stays, and the next time comes.
    void save_within_epoch() {
        try {
            save_position(seconds_since(epoch_start_));
        } catch (const Error& error) {
            if (error.code() != Exit::data) throw;
            log::progress_done();
            log::warn(cat(error.what(), "; the run goes on and will try again"));
        }
        saved_ = Clock::now();
        if (comm_ != nullptr) comm_->barrier();
    }

    FitResult stopped() {
        result_.signal = signal_;
        log::progress_done();
        log::info(cat("stopping: saving step ", state().step, " to ", run_.path()));
        save_position();
        return std::move(result_);
    }

    Trainer& trainer_;
    Loader& train_;
    Loader& val_;
    RunDir& run_;
    const CheckpointInfo& info_;
    const FitOptions& options_;
    const FitObserver& observer_;
    const int64_t batch_size_, accumulate_, steps_per_epoch_;
    Communicator* const comm_;
    const int64_t pictures_a_step_;              ///< of all ranks
    bool steps_made_ = false;                    ///< in this part of the run
    bool staged_ = false;                        ///< the next batch is on its way to the device
    bool between_steps_ = true;                  ///< the weights are those after state().step steps
    bool training_ = false;                      ///< within train_epoch()
    int64_t last_ = 0;                           ///< the step that ends the run
    std::optional<ReadError> unread_by_a_rank_;  ///< what keeps a rank from its next batch, agreed
    int signal_ = 0;                             ///< that all ranks have agreed to stop for
    bool save_is_due_ = false;                   ///< within the epoch, as all ranks have agreed
    Clock::time_point saved_ = Clock::now();
    FitResult result_;
    Clock::time_point epoch_start_{};
    int64_t epoch_steps_ = 0;                    ///< of the epoch, in this part of the run
    double epoch_seconds_ = 0, epoch_wait_ = 0;  ///< the wait: of the rank that waited longest in each step
    std::vector<double> waits_;                  ///< seconds of the epoch that each rank waited for pictures
    BadList bad_train_{train_}, bad_val_{val_};
};

}  // namespace

int agreed_signal(Communicator* comm) {
    if (comm == nullptr) return interrupt_requested();
    std::vector<double> mine;
    append_signal(mine, interrupt_requested());
    return signal_in(comm->sum(mine), 0);
}

FitResult fit(Trainer& trainer, Loader& train, Loader& val, RunDir& run, const CheckpointInfo& info,
              const FitOptions& options, FitState state, const FitObserver& observer) {
    return Fit(trainer, train, val, run, info, options, std::move(state), observer).run();
}

}  // namespace rn50
