// One u8 workspace, carved into aligned parts.
#pragma once

#include <cstdint>

#include "base/math.h"
#include "tensor/arena.h"

namespace rn50 {

/// Made once over nothing, it counts; made over memory with the same calls, it places.
class Carver {
  public:
    explicit Carver(void* base = nullptr) : base_(static_cast<char*>(base)) {}
    template <class T = void>
    T* take(int64_t bytes) {
        const int64_t at = used_;
        used_ = align_up(used_ + bytes, Arena::alignment);
        return base_ ? reinterpret_cast<T*>(base_ + at) : nullptr;
    }
    int64_t used() const { return used_; }

  private:
    char* base_;
    int64_t used_ = 0;
};

}  // namespace rn50
