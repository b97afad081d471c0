// A whole training run: epochs, evaluations, checkpoints, and the way back into a run that was stopped.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "pipeline/loader.h"
#include "train/agreement.h"
#include "train/checkpoint.h"
#include "train/metrics.h"
#include "train/run_dir.h"
#include "train/schedule.h"
#include "train/trainer.h"

namespace rn50 {

/// One finished epoch.
struct EpochSummary {
    int64_t epoch = 0;  ///< from 1
    double lr = 0;      ///< of its last step
    double train_loss = 0, val_loss = 0;
    double top1 = 0, top5 = 0, macro_f1 = 0;              ///< percent, on val
    double images_per_s = 0, data_wait = 0, seconds = 0;  ///< data_wait: of the rank that waited longest in each step
    int slowest_rank = 0;  ///< which waited longest for pictures; not kept when the run is resumed
};

/// Where a run stands. Together with the weights, the optimizer and the StepState this is all that the rest of the run
/// depends on.
struct FitState {
    int64_t pictures = 0;  ///< to train on: what an epoch is
    /// fingerprint_of() them; absent in the state of an earlier version.
    std::optional<uint32_t> fingerprint = std::nullopt;
    int64_t step = 0;                   ///< optimizer steps done, skipped ones included
    double loss_sum = 0;                ///< over the steps of the epoch in progress
    int64_t loss_steps = 0;             ///< those that it holds
    double elapsed_s = 0;               ///< of training, in all parts of the run
    std::vector<EpochSummary> history;  ///< the epochs that were evaluated

    /// Into the epoch's mean. A step that fp16 left out may have a loss that is no number: it would make all of the
    /// epoch's mean none, and has no part in it.
    void add_loss(double loss);
    /// NaN when no step of the epoch has a part in it.
    double mean_loss() const;

    /// Highest val top-1, then lowest val loss, then the earliest; null without a history.
    const EpochSummary* best() const;
};

/// Writes everything that resume_state() needs into one file: parameters, running statistics, optimizer, `state`.
void save_state(const std::string& path, Trainer& trainer, const CheckpointInfo& info, const FitState& state);
/// The same state as text, and from it. state_from() throws std::exception for what text_of() has not written.
std::string text_of(const FitState& state);
FitState state_from(const std::string& text);
/// The step after which the state in this file was saved; absent where there is none that can be read.
std::optional<int64_t> saved_step(const std::string& path);

/// Fills the trainer and returns where the run stood. Throws Error(Exit::data) for a file of another run.
FitState load_state(const std::string& path, Trainer& trainer, const CheckpointInfo& info);

struct FitOptions {
    int64_t epochs = 1;
    int64_t max_steps = 0;    ///< 0: no limit
    double save_seconds = 0;  ///< between saves within an epoch; 0: none
    /// Where work of the device goes on beside the host's (Backend::asynchronous()): a step is launched before the
    /// result of the one before it is read, wherever its pictures are there. The numbers are the same.
    bool late = false;
    Schedule schedule;
    double memory_mb = 0;  ///< for metrics.jsonl
};

/// What somebody who watches is told.
struct FitObserver {
    /// After each step; `step` within the epoch, both from 1.
    std::function<void(int64_t epoch, int64_t step, double loss, double lr, double wait_seconds)> step;
    /// During an evaluation.
    std::function<void(int64_t images)> evaluating;
    /// After each epoch's evaluation; `best`: no epoch before was as good.
    std::function<void(const EpochSummary&, bool best)> epoch;
};

struct FitResult {
    int signal = 0;  ///< that stopped the run; 0: it came to its end
    FitState state;
    std::optional<EvalMetrics> best_val;  ///< of best.safetensors, when it was written in this part of the run
};

/// Trains from where `state` stands to the last epoch. After each epoch: evaluation on `val`, then best, last and state
/// are saved; a signal, --max-steps and `save_seconds` save last and state within an epoch. Throws
/// Error(Exit::diverged) naming the step when the loss stops being a number, or 50 steps in a row are skipped. Throws
/// ReadError, after saving last and state where the run stands between two steps, when the pictures cannot be read.
FitResult fit(Trainer& trainer, Loader& train, Loader& val, RunDir& run, const CheckpointInfo& info,
              const FitOptions& options, FitState state, const FitObserver& observer);

}  // namespace rn50
