#include "simt_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#if defined(__SANITIZE_ADDRESS__)
#define RN50_SIMT_GUARDED 0  // each block stands alone, so that the sanitizer sees its ends
#else
#define RN50_SIMT_GUARDED 1
#endif

namespace rn50::simt {

namespace {

constexpr size_t page = 4096, huge_page = size_t{2} << 20;
/// As much of a block as is filled: tests take more than they use.
constexpr size_t spoiled = size_t{4} << 20;

std::recursive_mutex mutex;  // streams may be threads
/// Blocks that are taken: address and size; and the size that was asked for.
std::map<uintptr_t, size_t> blocks, asked;
int accesses = 0;

#if RN50_SIMT_GUARDED

/// Addresses alone: memory comes when it is touched.
constexpr size_t reserved = size_t{64} << 30;
size_t used = 0;  ///< from the beginning; what lies behind was never open

char* memory() {
    static char* const begin = [] {
        void* const made = mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (made == MAP_FAILED) return static_cast<char*>(nullptr);
        madvise(made, reserved, MADV_HUGEPAGE);  // opening and closing is quick then
        return static_cast<char*>(made);
    }();
    return begin;
}

void protect(int protection) {
    if (used > 0 && mprotect(memory(), used, protection) != 0) std::abort();
}

/// The first gap that holds as much.
void* place(size_t bytes) {
    if (memory() == nullptr) return nullptr;
    const auto begin = reinterpret_cast<uintptr_t>(memory());
    const size_t size = (std::max(bytes, size_t{1}) + page - 1) / page * page;
    uintptr_t at = begin;
    for (const auto& [address, taken] : blocks) {
        if (address - at >= size) break;
        at = address + taken;
    }
    if (at + size > begin + reserved) return nullptr;
    used = std::max(used, (at + size - begin + huge_page - 1) / huge_page * huge_page);
    blocks[at] = size;
    return reinterpret_cast<void*>(at);
}

#else

void protect(int) {}

void* place(size_t bytes) {
    void* made = nullptr;
    if (posix_memalign(&made, 256, bytes) != 0) return nullptr;
    blocks[reinterpret_cast<uintptr_t>(made)] = bytes;
    return made;
}

#endif

}  // namespace

void* take_device_memory(size_t bytes) {
    const std::lock_guard<std::recursive_mutex> lock(mutex);
    void* const data = place(bytes);
    if (data == nullptr) return nullptr;
    if (accesses > 0) protect(PROT_READ | PROT_WRITE);  // of another thread: what is new must be open, too
    asked[reinterpret_cast<uintptr_t>(data)] = bytes;
    device_bytes += static_cast<int64_t>(bytes);
    const DeviceAccess access;
    std::memset(data, 0xFF, std::min(bytes, spoiled));
    return data;
}

void give_device_memory(void* data) {
    const std::lock_guard<std::recursive_mutex> lock(mutex);
    if (data == nullptr) return;
    device_bytes -= static_cast<int64_t>(asked.at(reinterpret_cast<uintptr_t>(data)));
    asked.erase(reinterpret_cast<uintptr_t>(data));
    blocks.erase(reinterpret_cast<uintptr_t>(data));
#if !RN50_SIMT_GUARDED
    std::free(data);
#endif
}

bool is_device_memory(const void* data, size_t bytes) {
    const std::lock_guard<std::recursive_mutex> lock(mutex);
    const auto address = reinterpret_cast<uintptr_t>(data);
    const auto behind = blocks.upper_bound(address);
    if (behind == blocks.begin()) return false;
    const auto& [begin, size] = *std::prev(behind);
    return address + bytes <= begin + size;
}

DeviceAccess::DeviceAccess() {
    const std::lock_guard<std::recursive_mutex> lock(mutex);
    if (accesses++ == 0) protect(PROT_READ | PROT_WRITE);
}

DeviceAccess::~DeviceAccess() {
    const std::lock_guard<std::recursive_mutex> lock(mutex);
    if (--accesses == 0) protect(PROT_NONE);
}

}  // namespace rn50::simt
