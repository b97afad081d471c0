// Errors that reach the user: what happened, where, and what to do; each carries the exit code scripts depend on.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace rn50 {

/// Exit codes of the program (a contract with scripts; 130 and 143 are made from the signal number).
enum class Exit : int { ok = 0, internal = 1, usage = 2, data = 3, device = 4, diverged = 5, peer_lost = 6 };

/// An error with a remedy. `what()` is one line without a trailing full stop; `remedy()` may be empty.
class Error : public std::runtime_error {
  public:
    Error(Exit code, const std::string& what, std::string remedy = {})
        : std::runtime_error(what), code_(code), remedy_(std::move(remedy)) {}
    Exit code() const { return code_; }
    const std::string& remedy() const { return remedy_; }

  private:
    Exit code_;
    std::string remedy_;
};

/// Streams its arguments into one string: `cat("batch ", 3, " of ", n)`.
template <class... Parts>
std::string cat(const Parts&... parts) {
    std::ostringstream out;
    (out << ... << parts);
    return out.str();
}

/// "opening runs/a/x: No such file or directory": joins what was tried with the text of errno.
std::string with_errno(const std::string& what);

/// A broken contract between two rooms of the house: a defect of ours, never of the user's data. Throws Exit::internal.
[[noreturn]] void contract_broken(const char* expression, const char* file, int line, const std::string& message);

}  // namespace rn50

/// Checks a contract at a public entry; stays on in release builds. The message is only built on failure.
#define RN50_REQUIRE(condition, ...)                                                                 \
    do {                                                                                             \
        if (!(condition)) ::rn50::contract_broken(#condition, __FILE__, __LINE__, ::rn50::cat(__VA_ARGS__)); \
    } while (0)
