// Which kind of arena a test is about.
#pragma once

#include <cstdlib>
#include <optional>
#include <string>

namespace rn50::test {

/// Sets RN50_ARENA for the length of a scope. "shared" where the offsets of a dry and a real arena are compared: only
/// then do all tensors lie in one block, whatever the environment or a sanitizer asks for.
class ArenaMode {
  public:
    explicit ArenaMode(const char* mode) {
        if (const char* before = std::getenv("RN50_ARENA")) before_ = before;
        setenv("RN50_ARENA", mode, 1);
    }
    ~ArenaMode() {
        if (before_)
            setenv("RN50_ARENA", before_->c_str(), 1);
        else
            unsetenv("RN50_ARENA");
    }

  private:
    std::optional<std::string> before_;
};

}  // namespace rn50::test
