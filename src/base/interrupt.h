// Ctrl-C, SIGTERM and SIGHUP: the first asks the program to save and stop, a later one ends it at once.
#pragma once

#include <stdexcept>

namespace rn50 {

/// From now on SIGINT, SIGTERM and (unless it is ignored: nohup) SIGHUP only leave a note. One that follows the first
/// within a second is taken for the same (make and schedulers pass signals on, and the terminal sends its own); a later
/// one ends the process with its code.
/// `speak`: whether this process says that it stops.
void catch_interrupts(bool speak = true);

/// The signal that asked to stop, or 0. Cheap: polled once a step.
int interrupt_requested();

/// What stop_if_interrupted() throws: whoever works at something long leaves it.
class Interrupted : public std::runtime_error {
  public:
    explicit Interrupted(int signal) : std::runtime_error("stopped by a signal"), signal_(signal) {}
    int signal() const { return signal_; }

  private:
    int signal_;
};
/// Throws Interrupted when a signal has asked to stop.
void stop_if_interrupted();

/// The exit code that scripts expect after `signal`: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP.
constexpr int exit_code_of_signal(int signal) {
    return 128 + signal;
}

}  // namespace rn50
