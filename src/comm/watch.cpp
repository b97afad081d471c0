#include "comm/watch.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"

namespace rn50 {

namespace {

constexpr std::chrono::milliseconds longest_pause{1000};
/// What an aborted collective may take to return.
constexpr std::chrono::milliseconds grace{3000};
/// Steps among which the slow ones are looked for, and their share that is left out: one stall is no habit.
constexpr size_t remembered_steps = 64;
constexpr double slower_ones = 0.1;

}  // namespace

Watch::Watch(const Place& place, std::chrono::milliseconds silence, Lost lost, std::chrono::milliseconds last)
    : place_(place), silence_(silence), last_(last), lost_(std::move(lost)) {
    client_ = std::make_unique<StoreClient>(place, silence);
    client_->beat();
    thread_ = std::thread([this] { run(); });
}

Watch::~Watch() {
    leave("");
}

void Watch::leave(const std::string& reason) {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!leaving_) farewell_ = reason;
        leaving_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
}

void Watch::run() {
    const auto pause = std::min(longest_pause, silence_ / 4);
    while (true) {
        std::string loss;
        try {
            std::unique_lock<std::mutex> lock(mutex_);
            changed_.wait_for(lock, pause, [this] { return leaving_; });
            if (leaving_) {
                lock.unlock();
                client_->farewell(farewell_);
                return;
            }
            lock.unlock();
            loss = client_->beat(standing());
        } catch (const Error& error) {
            const std::lock_guard<std::mutex> lock(mutex_);
            if (leaving_) return;
            loss = cat("rank 0 at ", place_.address, " was lost: ", error.what());
        }
        if (loss.empty()) continue;
        report(loss);
        return;
    }
}

void Watch::report(const std::string& loss) {
    const std::string remedy = lost_(loss);
    std::unique_lock<std::mutex> lock(mutex_);
    loss_ = loss;
    remedy_ = remedy;
    changed_.notify_all();
    const auto end = std::chrono::steady_clock::now() + last_;
    while (!leaving_) {
        const Standing before = standing();
        changed_.wait_for(lock, std::min(grace, last_), [this] { return leaving_; });
        const bool stuck = before.inside() && standing().place == before.place;
        if (leaving_ || (!stuck && std::chrono::steady_clock::now() < end)) continue;
        log::error(cat(loss_, "\n       ", remedy_));
        _exit(static_cast<int>(Exit::peer_lost));
    }
}

Standing Watch::standing() const {
    const std::lock_guard<std::mutex> lock(standing_mutex_);
    Standing now = standing_;
    now.signal = interrupt_requested();
    if (now.place > 0) now.collective = words_for(kind_);
    std::vector<double> steps = steps_s_;
    if (!steps.empty()) {
        const auto left_out = static_cast<size_t>(slower_ones * static_cast<double>(steps.size()));
        const auto at = steps.begin() + static_cast<ptrdiff_t>(steps.size() - 1 - left_out);
        std::nth_element(steps.begin(), at, steps.end());
        now.usual_s = *at;
    }
    return now;
}

void Watch::enter(const CollectiveKind& kind) {
    const std::lock_guard<std::mutex> lock(standing_mutex_);
    standing_.enter(kind);
    kind_ = kind;
}

void Watch::exit() {
    const std::lock_guard<std::mutex> lock(standing_mutex_);
    ++standing_.place;
}

Pace Watch::pace(Pace pace) {
    const std::lock_guard<std::mutex> lock(standing_mutex_);
    return std::exchange(standing_.pace, pace);
}

void Watch::progress() {
    const std::lock_guard<std::mutex> lock(standing_mutex_);
    ++standing_.progress;
}

void Watch::step_took(double seconds) {
    const std::lock_guard<std::mutex> lock(standing_mutex_);
    if (steps_++ == 0) return;  // a cold disk, kernels that are chosen
    const size_t at = (steps_ - 2) % remembered_steps;
    if (at == steps_s_.size())
        steps_s_.push_back(seconds);
    else
        steps_s_[at] = seconds;
}

std::string Watch::remedy() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return remedy_;
}

std::string Watch::loss() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return loss_;
}

std::string Watch::wait_for_loss(std::chrono::milliseconds patience) const {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, patience, [this] { return !loss_.empty(); });
    return loss_;
}

}  // namespace rn50
