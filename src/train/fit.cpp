#include "train/fit.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <deque>

#include "base/error.h"
#include "base/files.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "train/agreement.h"
#include "train/bad_list.h"

namespace rn50 {

namespace {

using Clock = std::chrono::steady_clock;

constexpr int32_t skips_that_end_a_run = 50;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
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
          pictures_a_step_(accumulate_ * batch_size_ * (comm_ != nullptr ? comm_->size() : 1)),
          late_(options.late && (comm_ == nullptr || accumulate_ == 1)) {
        result_.state = std::move(state);
        begun_ = read_ = result_.state.step;
    }

    FitResult run() {
        try {
            return run_epochs();
        } catch (const ReadError&) {
            tell_news();
            if (state().step != begun_) throw;  // within a step of several batches; what was saved before stays
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
        bad_train_.tell_new();
        bad_val_.tell_new();
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
    ///
    /// Where the device computes beside the host, a step is launched before the result of the one before it is read: so
    /// the device has something to do while the host reads, writes, hears of the other ranks and launches. What is
    /// decided by a result therefore finds one step more under way, of which nothing is decided before it is read, too.
    /// Ranks have to launch alike, and none may lack the pictures when the others have begun. So what lets them run
    /// ahead is agreed on before: see Agreement, which also has the line of a step written when the result of the next
    /// one is there.
    bool train_epoch(int64_t last) {
        epoch_start_ = Clock::now();
        training_ = true;
        epoch_steps_ = 0;
        waits_.assign(comm_ != nullptr ? static_cast<size_t>(comm_->size()) : 1, 0);
        epoch_wait_ = 0;
        all_are_ready_ = save_is_due_ = false;
        if (comm_ != nullptr && steps_made_) {
            comm_->barrier();  // until rank 0 has saved
            comm_->pace(Pace::stepping);
        }
        while (true) {
            if (nothing_under_way()) {
                start_clock();
                begin_step();
            }
            rest_of_step();
            const bool ahead = may_begin_next();
            if (ahead) {
                if (comm_ != nullptr) tell();
                begin_step();
            }
            read_result();
            if (ahead && comm_ != nullptr) hear();
            while (!unwritten_.empty() && (comm_ == nullptr || nothing_under_way())) {
                tell();
                hear();
            }
            if (comm_ != nullptr) comm_->pace(Pace::stepping);  // not before: the first may wait for a cold disk
            steps_made_ = true;
            if (!nothing_under_way()) continue;
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

    double rate(int64_t step) const { return options_.schedule.at(step); }
    bool nothing_under_way() const { return begun_ == read_; }
    /// Of the epoch and the run, after the steps begun so far.
    bool another_step() const { return begun_ % steps_per_epoch_ != 0 && begun_ < last_; }

    /// Whether a step is to be launched beside the one whose result is read next. The one that may end the run for its
    /// gradients is waited for: they are looked through, and must not be another step's.
    bool may_begin_next() {
        if (!late_ || !another_step() || signal_ != 0 || save_is_due_) return false;
        if (skipped_in_row_ + 1 >= skips_that_end_a_run) return false;
        if (comm_ == nullptr) return staged_;
        if (!all_are_ready_) return false;
        RN50_REQUIRE(staged_, "a batch that was there when the ranks agreed is gone");
        return true;
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
    void train_on_batch(int64_t step, int64_t part) {
        if (!staged_) {
            if (part > 0 && !train_.ready()) trainer_.backend().synchronize(trainer_.context());
            stage_next();
        }
        begun_ = step + 1;
        trainer_.step(step, rate(step), part);
        staged_ = false;
        const bool last_of_epoch = part + 1 == accumulate_ && !another_step();
        if (!last_of_epoch && train_.ready()) stage_next();
    }

    /// With its first batch.
    void begin_step() { train_on_batch(begun_, 0); }
    void rest_of_step() {
        for (int64_t part = 1; part < accumulate_; ++part)
            train_on_batch(begun_ - 1, part);
    }

    /// A step's result, while its line is still to be written.
    struct Unwritten {
        StepResult found;
        double seconds = 0;  ///< from the result before it to its own
        double wait = 0;     ///< of them for pictures, of this rank
    };

    void read_result() {
        Unwritten step;
        step.found = trainer_.result();
        ++read_;
        skipped_in_row_ = step.found.state.skipped_in_row;
        take_time(step);
        unwritten_.push_back(std::move(step));
    }

    void start_clock() {
        clock_ = Clock::now();
        waited_ = train_.wait_seconds();
    }
    /// All the time since the clock was started, or time was taken, belongs to this step.
    void take_time(Unwritten& step) {
        step.seconds += seconds_since(clock_);
        step.wait += train_.wait_seconds() - waited_;
        start_clock();
    }

    /// Tells the other ranks of the step whose line is to be written next, if there is one, and what this rank has met:
    /// a signal, bad pictures, the time to save, whether it has its next batches.
    void tell() {
        Notice mine;
        told_bad_ = bad_train_.take_new();
        mine.bad_pictures = static_cast<int64_t>(told_bad_.size());
        mine.signal = interrupt_requested();
        mine.save_is_due = leads() && options_.save_seconds > 0 && seconds_since(saved_) >= options_.save_seconds;
        if (comm_ != nullptr && unwritten_.size() == 1 && nothing_under_way()) mine.unread = !wait_for_next();
        mine.unready = !late_ || !staged_ || !train_.ready();
        told_of_step_ = !unwritten_.empty();
        if (told_of_step_) {
            Unwritten& step = unwritten_.front();
            if (nothing_under_way()) take_time(step);
            mine.loss = step.found.loss;
            mine.wait = step.wait;
        }
        agreement_.tell(mine);
    }

    /// A rank that lacks its next batch says so between two steps: within one the others could not save any more. The
    /// wait costs nothing, because the batch would be waited for right after. False: it cannot be read.
    bool wait_for_next() {
        if (!another_step() || staged_) return true;
        const PaceFor loading(train_.ready() ? nullptr : comm_, Pace::loading);
        unread_ = train_.wait_for_next();
        if (late_ && unread_.empty()) stage_next();
        return unread_.empty();
    }

    /// Takes notice of what any rank has met, and writes the line of the step that was told of.
    void hear() {
        const Notices all = agreement_.hear();
        if (told_of_step_ && nothing_under_way()) take_time(unwritten_.front());
        if (all.signal != 0) signal_ = all.signal;
        save_is_due_ = save_is_due_ || all.save_is_due;  // by rank 0's clock
        all_are_ready_ = !all.unready;
        for (size_t rank = 0; rank < waits_.size(); ++rank)
            waits_[rank] += all.waits[rank];
        if (all.bad_pictures > 0) bad_train_.add(told_bad_);
        if (all.unread) {
            const std::vector<std::string> reasons = comm_->gather(unread_);
            const auto first =
                std::find_if(reasons.begin(), reasons.end(), [](const std::string& one) { return !one.empty(); });
            unread_by_a_rank_.emplace(cat("rank ", first - reasons.begin(), ": ", *first), EIO);
        }
        if (told_of_step_) write_line(all.loss, all.longest_wait());
    }

    /// `loss`: of all ranks; `wait`: of the rank that waited longest, which is what the step has lost.
    void write_line(double loss, double wait) {
        const Unwritten step = std::move(unwritten_.front());
        unwritten_.pop_front();
        const int64_t epoch_now = epoch();
        const double lr = rate(state().step);
        ++state().step;
        ++epoch_steps_;
        epoch_wait_ += wait;
        if (comm_ != nullptr) comm_->step_took(step.seconds - step.wait);

        const StepResult& found = step.found;
        MetricsLine line;
        line.event = "step";
        line.epoch = epoch_now + 1;
        line.step = state().step;
        line.loss = loss;
        line.lr = lr;
        line.images_per_s = static_cast<double>(pictures_a_step_) / step.seconds;
        line.data_wait = wait / step.seconds;
        line.loss_scale = static_cast<double>(found.state.loss_scale);
        line.grad_norm = static_cast<double>(found.state.grad_norm);
        line.memory_mb = options_.memory_mb;
        run_.log(line);
        check(found, loss, epoch_now);
        state().add_loss(loss);
        observer_.step(epoch_now + 1, (state().step - 1) % steps_per_epoch_ + 1, loss, lr, wait);
    }

    void check(const StepResult& found, double loss, int64_t epoch_now) {
        const bool scaled = trainer_.options().net.precision == Precision::fp16;
        const bool lost = !std::isfinite(loss) && !scaled;
        if (!lost && found.state.skipped_in_row < skips_that_end_a_run) {
            if (found.state.skip != 0 && !scaled)
                log::warn_once("skip",
                               cat("step ", state().step, ": the gradients are not finite, the step is left out"));
            return;
        }
        const std::string what =
            lost ? cat("the loss is ", std::isnan(loss) ? "not a number" : "infinite")
                 : cat("gradients were not finite for ", found.state.skipped_in_row, " steps in a row");
        const bool saved = !state().history.empty();
        // The device may hold the next step's numbers already: then all that is known came with the result.
        const std::string where =
            !found.not_finite.empty() || state().step != begun_ ? found.not_finite : trainer_.first_non_finite();
        trainer_.backend().synchronize(trainer_.context());
        throw Error(
            Exit::diverged,
            cat("diverged: ", what, " at step ", state().step, " (epoch ", epoch_now + 1, ")",
                where.empty() ? "" : "; not finite first: " + where),
            cat("lower --lr, lengthen --warmup-epochs, or set --clip-norm 1",
                saved ? cat("; ", run_.file("best.safetensors"), " keeps the weights of epoch ", state().best()->epoch)
                      : ""));
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
        bad_val_.add(bad_val_.take_new());
        signal_ = agreed_signal(comm_);
        if (signal_ != 0) return false;
        state().elapsed_s += seconds_since(start);

        EpochSummary summary;
        summary.epoch = epoch();
        summary.lr = rate(state().step - 1);
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
        save_is_due_ = false;
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
    const int64_t pictures_a_step_;    ///< of all ranks
    const bool late_;                  ///< a step may be launched before the result of the one before is read
    int64_t begun_ = 0, read_ = 0;     ///< steps of the run launched, and their results; state().step: written
    std::deque<Unwritten> unwritten_;  ///< at most two
    int32_t skipped_in_row_ = skips_that_end_a_run;  ///< at the last result; until there is one, nobody knows
    bool steps_made_ = false;                        ///< in this part of the run
    bool staged_ = false;                            ///< the next batch is on its way to the device
    bool training_ = false;                          ///< within train_epoch()
    int64_t last_ = 0;                               ///< the step that ends the run
    Agreement agreement_{comm_};
    bool told_of_step_ = false;                  ///< the agreement is about the first of unwritten_
    std::vector<BadPicture> told_bad_;           ///< and about these
    bool all_are_ready_ = false;                 ///< all ranks have the batch after the next one, as they have agreed
    std::string unread_;                         ///< what keeps this rank from its next batch
    std::optional<ReadError> unread_by_a_rank_;  ///< what keeps a rank from it, agreed
    int signal_ = 0;                             ///< that all ranks have agreed to stop for
    bool save_is_due_ = false;                   ///< within the epoch, as all ranks have agreed
    Clock::time_point saved_ = Clock::now();
    FitResult result_;
    Clock::time_point epoch_start_{};
    int64_t epoch_steps_ = 0;                    ///< of the epoch, in this part of the run
    double epoch_seconds_ = 0, epoch_wait_ = 0;  ///< the wait: of the rank that waited longest in each step
    Clock::time_point clock_{};                  ///< from which on time belongs to the step that is read next
    double waited_ = 0;                          ///< by train_ until then
    std::vector<double> waits_;                  ///< seconds of the epoch that each rank waited for pictures
    BadList bad_train_{train_, run_, comm_}, bad_val_{val_, run_, comm_};
};

}  // namespace

FitResult fit(Trainer& trainer, Loader& train, Loader& val, RunDir& run, const CheckpointInfo& info,
              const FitOptions& options, FitState state, const FitObserver& observer) {
    return Fit(trainer, train, val, run, info, options, std::move(state), observer).run();
}

}  // namespace rn50
