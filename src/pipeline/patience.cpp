#include "pipeline/patience.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "base/files.h"
#include "base/interrupt.h"
#include "base/log.h"

namespace rn50 {

namespace {

/// False: it became over meanwhile. Throws Interrupted.
bool sleep_for(double seconds, const std::atomic<bool>& over) {
    constexpr double slice = 0.1;
    for (; seconds > 0 && !over; seconds -= slice) {
        stop_if_interrupted();
        std::this_thread::sleep_for(std::chrono::duration<double>(std::min(seconds, slice)));
    }
    stop_if_interrupted();
    return !over;
}

}  // namespace

void with_patience(const ReadPatience& patience, const std::function<void()>& work) {
    double waited = 0;
    for (double pause = 0.1;; pause = std::min(2 * pause, 8.0)) {
        try {
            return work();
        } catch (const ReadError& error) {
            if ((error.gone() && !patience.waits_for_gone) || *patience.over) throw;
            if (waited >= patience.seconds) {
                *patience.over = true;
                throw;
            }
            log::warn_once("cannot be read",
                           cat(error.what(), "; such reading is tried again for ", patience.seconds, " seconds"));
            pause = std::min(pause, patience.seconds - waited);
            waited += pause;
            if (!(patience.pause ? patience.pause(pause) : sleep_for(pause, *patience.over))) throw;
        }
    }
}

}  // namespace rn50
