// The emulator's device memory. As on a GPU the host has no part in it: it ends with a fault (SIGSEGV) where it touches
// what kernels and copies alone may touch. It holds NaN at first, and whoever copies must say truly what is where.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace rn50::simt {

/// `bytes` of device memory at a multiple of 256; null when there is none.
void* take_device_memory(size_t bytes);
/// Of the blocks that are taken, as they were asked for.
inline std::atomic<int64_t> device_bytes{0};
/// Gives back what take_device_memory() gave; null is ignored.
void give_device_memory(void* data);
/// Whether all of it is device memory that is taken.
bool is_device_memory(const void* data, size_t bytes);

/// While one lives, device memory is open: a kernel runs, or a copy.
class DeviceAccess {
  public:
    DeviceAccess();
    ~DeviceAccess();
    DeviceAccess(const DeviceAccess&) = delete;
    DeviceAccess& operator=(const DeviceAccess&) = delete;
};

}  // namespace rn50::simt
