// What is done where data cannot be read for a while: wait, and try again.
#pragma once

#include <atomic>
#include <functional>
#include <memory>

namespace rn50 {

struct ReadPatience {
    double seconds = 30;         ///< to wait in all, in pauses that grow; 0: not at all
    bool waits_for_gone = true;  ///< for a file that is missing from a folder that is there, too
    /// Waits so long. False: whoever asked is not interested any more. Empty: sleeps, unless it is over.
    std::function<bool(double seconds)> pause = {};
    /// Becomes true when it came to its end for one of those who share it: then none of them waits any more.
    std::shared_ptr<std::atomic<bool>> over = std::make_shared<std::atomic<bool>>(false);
};

/// Does `work` anew while it throws ReadError; throws the last one when the patience is at its end, and Interrupted
/// when a signal asks to stop while it sleeps. That it waits is said once a process.
void with_patience(const ReadPatience& patience, const std::function<void()>& work);

}  // namespace rn50
