// Many threads work at items ahead of one consumer, which gets the results in order.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace rn50 {

/// Calls work(i, worker, result) for i in [begin, end) on `workers` threads, at most a ring of results ahead of next().
template <class Result>
class OrderedWork {
  public:
    using Work = std::function<void(int64_t i, int worker, Result& result)>;

    OrderedWork(int64_t begin, int64_t end, int workers, Work work)
        : work_(std::move(work)), end_(end), taken_(begin), given_(begin), slots_(static_cast<size_t>(4 * workers)) {
        for (int worker = 0; worker < workers; ++worker)
            threads_.emplace_back([this, worker] { run(worker); });
    }
    ~OrderedWork() {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            ending_ = true;
        }
        changed_.notify_all();
        for (std::thread& thread : threads_)
            thread.join();
    }
    OrderedWork(const OrderedWork&) = delete;
    OrderedWork& operator=(const OrderedWork&) = delete;

    /// The result of the next item, valid until the next call. Throws what work() threw for it.
    Result& next() {
        std::unique_lock<std::mutex> lock(mutex_);
        if (holds_) {
            slot(given_).done = false;
            ++given_;
            changed_.notify_all();
        }
        holds_ = true;
        Slot& result = slot(given_);
        changed_.wait(lock, [&] { return result.done; });
        if (result.failure) std::rethrow_exception(result.failure);
        return result.result;
    }

  private:
    struct Slot {
        Result result;
        std::exception_ptr failure;
        bool done = false;
    };
    Slot& slot(int64_t i) { return slots_[static_cast<size_t>(i) % slots_.size()]; }

    void run(int worker) {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            changed_.wait(lock, [this] {
                return ending_ || (taken_ < end_ && taken_ < given_ + static_cast<int64_t>(slots_.size()));
            });
            if (ending_) return;
            const int64_t i = taken_++;
            Slot& mine = slot(i);
            lock.unlock();
            mine.failure = nullptr;
            try {
                work_(i, worker, mine.result);
            } catch (...) {
                mine.failure = std::current_exception();
            }
            lock.lock();
            mine.done = true;
            changed_.notify_all();
        }
    }

    const Work work_;
    const int64_t end_;
    std::mutex mutex_;
    std::condition_variable changed_;
    int64_t taken_, given_;  ///< the next item to be worked at; the one that next() shows or will show
    bool holds_ = false, ending_ = false;
    std::vector<Slot> slots_;
    std::vector<std::thread> threads_;
};

}  // namespace rn50
