// The thread by which a rank shows that it lives, and hears who does not.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "comm/place.h"
#include "comm/store.h"

namespace rn50 {

/// Sends heartbeats over a connection of its own. They come from a thread beside the one that trains, so a step may
/// take as long as it likes.
class Watch {
  public:
    /// `lost` is called once, in the watch's thread, when a rank was lost: it is to break what waits for that rank. A
    /// process that has not left by the `last` of it, as one that waits for a GPU which never answers, is ended with
    /// Exit::peer_lost.
    Watch(const Place& place, std::chrono::milliseconds silence, std::function<void()> lost,
          std::chrono::milliseconds last);
    ~Watch();
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;

    /// Who was lost and why, in words; "" while all is well.
    std::string loss() const;
    /// The same, waiting until there is something to tell or `patience` is over.
    std::string wait_for_loss(std::chrono::milliseconds patience) const;
    /// Ends the heartbeats with a farewell. A `reason` other than "" is what the other ranks are told of this one's
    /// end.
    void leave(const std::string& reason);

    /// Counts the collectives in which the training thread is: one that stays in the same one after a loss never comes
    /// back, and the process is ended with Exit::peer_lost by the watch.
    void enter() { ++place_in_collectives_; }
    void exit() { ++place_in_collectives_; }
    /// Whether the ranks go from collective to collective, so that one which does not come to the next is lost.
    void expect_steps(bool expected) { steps_expected_ = expected; }

  private:
    void run();
    void report(const std::string& loss);

    Place place_;
    std::chrono::milliseconds silence_, last_;
    std::function<void()> lost_;
    std::atomic<uint64_t> place_in_collectives_{0};  ///< odd: inside
    std::atomic<bool> steps_expected_{false};
    mutable std::mutex mutex_;
    mutable std::condition_variable changed_;
    std::string loss_, farewell_;
    bool leaving_ = false;
    std::unique_ptr<StoreClient> client_;
    std::thread thread_;
};

}  // namespace rn50
