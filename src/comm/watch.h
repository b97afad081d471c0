// The thread by which a rank shows that it lives, and hears who does not.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "comm/place.h"
#include "comm/store.h"

namespace rn50 {

/// Sends heartbeats over a connection of its own. They come from a thread beside the one that trains, so a step may
/// take as long as it likes.
class Watch {
  public:
    using Lost = std::function<std::string(const std::string& loss)>;
    /// `lost` is called once, in the watch's thread, when a rank was lost: it is to break what waits for that rank, and
    /// returns what to do about this loss, in words. A process that has not left by the `last` of it, as one that waits
    /// for a GPU which never answers, is ended with Exit::peer_lost.
    Watch(const Place& place, std::chrono::milliseconds silence, Lost lost, std::chrono::milliseconds last);
    ~Watch();
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;

    /// Who was lost and why, in words; "" while all is well.
    std::string loss() const;
    /// What to do about it; "" while all is well.
    std::string remedy() const;
    /// The same, waiting until there is something to tell or `patience` is over.
    std::string wait_for_loss(std::chrono::milliseconds patience) const;
    /// Ends the heartbeats with a farewell. A `reason` other than "" is what the other ranks are told of this one's
    /// end.
    void leave(const std::string& reason);

    /// The training thread enters a collective, and leaves it: one that stays in the same one after a loss never comes
    /// back, and the process is ended with Exit::peer_lost by the watch.
    void enter(const CollectiveKind& kind);
    void exit();
    /// What the training thread does from now on. Returns what it did before.
    Pace pace(Pace pace);
    /// It has come further, though by no collective.
    void progress();
    /// A step took so long. The first one of all does not count.
    void step_took(double seconds);
    /// What the next heartbeat tells.
    Standing standing() const;

  private:
    void run();
    void report(const std::string& loss);

    Place place_;
    std::chrono::milliseconds silence_, last_;
    Lost lost_;
    mutable std::mutex standing_mutex_;
    Standing standing_;
    CollectiveKind kind_{"", 0};
    std::vector<double> steps_s_;  ///< of the latest steps, a ring
    size_t steps_ = 0;
    mutable std::mutex mutex_;
    mutable std::condition_variable changed_;
    std::string loss_, remedy_, farewell_;
    bool leaving_ = false;
    std::unique_ptr<StoreClient> client_;
    std::thread thread_;
};

}  // namespace rn50
