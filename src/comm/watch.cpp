#include "comm/watch.h"

#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"

namespace rn50 {

namespace {

constexpr std::chrono::milliseconds longest_pause{1000};
/// What an aborted collective may take to return.
constexpr std::chrono::milliseconds grace{3000};

}  // namespace

Watch::Watch(const Place& place, std::chrono::milliseconds silence, std::function<void()> lost,
             std::chrono::milliseconds last)
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
            loss = client_->beat(place_in_collectives_, steps_expected_);
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
    std::unique_lock<std::mutex> lock(mutex_);
    loss_ = loss;
    changed_.notify_all();
    lock.unlock();
    lost_();
    lock.lock();
    const auto end = std::chrono::steady_clock::now() + last_;
    while (!leaving_) {
        const uint64_t before = place_in_collectives_;
        changed_.wait_for(lock, std::min(grace, last_), [this] { return leaving_; });
        const bool stuck = before % 2 != 0 && place_in_collectives_ == before;
        if (leaving_ || (!stuck && std::chrono::steady_clock::now() < end)) continue;
        log::error(cat(loss_, "\n       ", after_a_loss));
        _exit(static_cast<int>(Exit::peer_lost));
    }
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
