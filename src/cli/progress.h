// The progress line of a long run: one line that rewrites itself on a terminal, a plain line every ten seconds
// elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace rn50 {

struct ProgressNumbers {
    int64_t epoch = 0, epochs = 0;  ///< from 1
    int64_t step = 0, steps = 0;    ///< within the epoch, from 1
    double loss = 0, lr = 0;
    double images_per_s = 0;
    double data_wait = 0;      ///< fraction of the time spent waiting for pictures
    double seconds_left = -1;  ///< of the whole run; negative: not known yet
};

/// The line, parts dropped from the least important (lr, data wait, step) until it fits into `width` columns.
std::string progress_line(const ProgressNumbers& numbers, int width);

/// "1:02:03", or "2:03" under an hour.
std::string clock_time(double seconds);

/// Measures speed and shows the line. Made at the start of a run (again after each pause such as an evaluation the rate
/// goes on from what it was).
class Progress {
  public:
    /// total_steps: of the whole run, done_steps: those an earlier part of it has done.
    Progress(int64_t epochs, int64_t steps_per_epoch, int64_t total_steps, int64_t done_steps, int64_t batch_size);

    /// After each step. `step` counts within the epoch, from 1; epoch from 1. `wait_seconds`: of this step, spent
    /// waiting for pictures.
    void step(int64_t epoch, int64_t step, double loss, double lr, double wait_seconds);
    /// Leaves the time since the last step out of the rate: an evaluation or a checkpoint came between.
    void resume_clock() { last_ = Clock::now(); }

    double images_per_s() const { return rate_ > 0 ? static_cast<double>(batch_size_) / rate_ : 0; }
    double data_wait() const { return rate_ > 0 ? wait_ / rate_ : 0; }

  private:
    using Clock = std::chrono::steady_clock;
    void show(const ProgressNumbers& numbers);

    int64_t epochs_, steps_per_epoch_, total_steps_, done_steps_, batch_size_;
    double rate_ = 0;  ///< seconds a step, smoothed
    double wait_ = 0;  ///< of which waiting
    int64_t seen_ = 0;
    Clock::time_point last_ = Clock::now(), shown_{};
};

}  // namespace rn50
