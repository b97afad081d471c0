// Signals as a user or a scheduler sends them: the first asks, one right after is the same, a later one ends at once.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>

#include <chrono>
#include <thread>

#include "base/interrupt.h"

using namespace rn50;

namespace {

/// The exit code of a child that runs `body`.
template <class Body>
int exit_code_of_child(Body body) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        static_cast<void>(close(STDERR_FILENO));
        _exit(body());
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

void wait_milliseconds(int milliseconds) {
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
}

}  // namespace

TEST_CASE("interrupt: the first signal leaves a note, an echo of it changes nothing") {
    CHECK(exit_code_of_child([] {
              catch_interrupts();
              if (interrupt_requested() != 0) return 1;
              raise(SIGTERM);
              if (interrupt_requested() != SIGTERM) return 2;
              raise(SIGINT);
              return interrupt_requested() == SIGTERM ? 0 : 3;
          }) == 0);
}

TEST_CASE("interrupt: a second signal more than a second later ends the process with its code") {
    const auto twice = [](int signal) {
        catch_interrupts();
        raise(signal);
        wait_milliseconds(1100);
        raise(signal);
        return 7;
    };
    CHECK(exit_code_of_child([&] { return twice(SIGINT); }) == 130);
    CHECK(exit_code_of_child([&] { return twice(SIGTERM); }) == 143);
}

TEST_CASE("interrupt: a lost terminal asks to stop, but not after nohup") {
    CHECK(exit_code_of_child([] {
              signal(SIGHUP, SIG_DFL);
              catch_interrupts();
              raise(SIGHUP);
              return interrupt_requested() == SIGHUP ? 0 : 1;
          }) == 0);
    CHECK(exit_code_of_child([] {
              signal(SIGHUP, SIG_IGN);
              catch_interrupts();
              raise(SIGHUP);
              return interrupt_requested();
          }) == 0);
}
