#include "base/interrupt.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

namespace rn50 {

namespace {

std::atomic<int> requested{0};
std::atomic<bool> speaks{true};
std::atomic<long> requested_at{0};  // milliseconds of the monotonic clock
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<long>::is_always_lock_free,
              "a signal handler may only use lock-free atomics");

long milliseconds() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000L + now.tv_nsec / 1000000L;
}

/// Everything here is async-signal-safe: atomics, clock_gettime, write, _exit.
void on_signal(int signal) {
    const int saved_errno = errno;
    int none = 0;
    if (requested.compare_exchange_strong(none, signal)) {
        requested_at = milliseconds();
        constexpr char text[] = "\nstopping after this step; again to end at once without saving\n";
        if (speaks) {
            const ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
            static_cast<void>(written);  // nobody is left to tell
        }
    } else if (milliseconds() - requested_at > 1000) {
        _exit(exit_code_of_signal(signal));
    }
    errno = saved_errno;
}

}  // namespace

void catch_interrupts(bool speak) {
    speaks = speak;
    struct sigaction action {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
    // A connection that was lost ends a run as Ctrl-C does; who started it with nohup wants it to go on.
    struct sigaction before {};
    sigaction(SIGHUP, nullptr, &before);
    if (before.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, nullptr);
}

int interrupt_requested() {
    return requested.load(std::memory_order_relaxed);
}

void stop_if_interrupted() {
    if (const int signal = interrupt_requested()) throw Interrupted(signal);
}

}  // namespace rn50
