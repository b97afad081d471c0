// A variable of the environment, for the length of a scope.
#pragma once

#include <cstdlib>
#include <optional>
#include <string>

namespace rn50::test {

class ScopedVariable {
  public:
    ScopedVariable(const char* name, const char* value) : name_(name) {
        if (const char* before = std::getenv(name)) before_ = before;
        setenv(name, value, 1);
    }
    ~ScopedVariable() {
        if (before_)
            setenv(name_.c_str(), before_->c_str(), 1);
        else
            unsetenv(name_.c_str());
    }
    ScopedVariable(const ScopedVariable&) = delete;
    ScopedVariable& operator=(const ScopedVariable&) = delete;

  private:
    std::string name_;
    std::optional<std::string> before_;
};

/// Sets RN50_ARENA. "shared" where the offsets of a dry and a real arena are compared: only then do all tensors lie in
/// one block, whatever the environment or a sanitizer asks for.
struct ArenaMode : ScopedVariable {
    explicit ArenaMode(const char* mode) : ScopedVariable("RN50_ARENA", mode) {}
};

/// Whether nets are trained on the emulated GPU. Under the sanitizers that takes minutes, and each op has run under them
/// in its own tests: it is left out there unless RN50_EMULATE_NETS is set.
inline bool trains_emulated() {
#ifdef __SANITIZE_ADDRESS__
    return std::getenv("RN50_EMULATE_NETS") != nullptr;
#else
    return true;
#endif
}

/// Where the tests' files are: RN50_TESTS_DIR of the environment where a program runs on another machine than it was
/// built on, else where they were then.
inline std::string tests_folder() {
    const char* const moved = std::getenv("RN50_TESTS_DIR");
    return moved != nullptr ? moved : RN50_TESTS_DIR;
}

}  // namespace rn50::test
