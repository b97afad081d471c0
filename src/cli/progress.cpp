#include "cli/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "base/error.h"
#include "base/log.h"

namespace rn50 {

namespace {

constexpr double terminal_interval = 0.1, plain_interval = 10;  // seconds between lines

int terminal_width() {
    winsize size{};
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
    return 80;
}

template <class... Values>
std::string format(const char* pattern, Values... values) {
    char text[96];
    std::snprintf(text, sizeof text, pattern, values...);
    return text;
}

}  // namespace

std::string clock_time(double seconds) {
    const auto whole = static_cast<long long>(std::llround(std::max(seconds, 0.0)));
    const long long hours = whole / 3600, minutes = whole / 60 % 60, rest = whole % 60;
    return hours > 0 ? format("%lld:%02lld:%02lld", hours, minutes, rest) : format("%lld:%02lld", minutes, rest);
}

std::string progress_line(const ProgressNumbers& n, int width) {
    struct Part {
        std::string text;
        int importance;
    };
    std::vector<Part> parts{
        {cat("epoch ", n.epoch, "/", n.epochs), 6},
        {cat("step ", n.step, "/", n.steps), 3},
        {format("loss %.4f", n.loss), 5},
        {format("lr %.2e", n.lr), 1},
        {format(n.images_per_s < 100 ? "%.1f img/s" : "%.0f img/s", n.images_per_s), 4},
        {format("wait %.0f%%", 100 * n.data_wait), 2},
        {cat("ETA ", n.seconds_left < 0 ? "-:--" : clock_time(n.seconds_left)), 5},
    };
    const auto join = [&] {
        std::string line;
        for (const Part& part : parts)
            line += (line.empty() ? "" : "  ") + part.text;
        return line;
    };
    std::string line = join();
    while (static_cast<int>(line.size()) >= width && parts.size() > 1) {
        parts.erase(std::min_element(parts.begin(), parts.end(),
                                     [](const Part& a, const Part& b) { return a.importance < b.importance; }));
        line = join();
    }
    return line;
}

Progress::Progress(int64_t epochs, int64_t steps_per_epoch, int64_t total_steps, int64_t done_steps, int64_t batch_size)
    : epochs_(epochs),
      steps_per_epoch_(steps_per_epoch),
      total_steps_(total_steps),
      done_steps_(done_steps),
      batch_size_(batch_size) {}

void Progress::step(int64_t epoch, int64_t step, double loss, double lr, double wait_seconds) {
    const Clock::time_point now = Clock::now();
    const double seconds = std::chrono::duration<double>(now - last_).count();
    last_ = now;
    // A running mean at first, then exponential over some 20 steps. The first step also fills caches and the loader's
    // ring, so the second one replaces it.
    const double weight = seen_ <= 1 ? 1 : std::max(0.05, 1.0 / static_cast<double>(seen_));
    rate_ += weight * (seconds - rate_);
    wait_ += weight * (wait_seconds - wait_);
    ++seen_;
    ++done_steps_;

    const double since = std::chrono::duration<double>(now - shown_).count();
    const bool last = done_steps_ >= total_steps_;
    if (!last && since < (log::on_terminal() ? terminal_interval : plain_interval)) return;
    shown_ = now;
    ProgressNumbers numbers{epoch, epochs_, step, steps_per_epoch_, loss, lr, images_per_s(), data_wait(), -1};
    if (seen_ > 1) numbers.seconds_left = rate_ * static_cast<double>(std::max<int64_t>(0, total_steps_ - done_steps_));
    show(numbers);
}

void Progress::show(const ProgressNumbers& numbers) {
    if (log::on_terminal()) {
        log::progress(progress_line(numbers, terminal_width()));
    } else {
        log::info(progress_line(numbers, 1000));
    }
}

}  // namespace rn50
