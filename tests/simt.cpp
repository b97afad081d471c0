#include "simt.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__)
#error "the switch between fibers is written for x86-64"
#endif

// Saves the callee-saved registers and the stack pointer (to *save), and goes on where `load` was saved.
extern "C" void rn50_simt_switch(void** save, void* load);
asm(R"(
.text
.globl rn50_simt_switch
.type rn50_simt_switch, @function
rn50_simt_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size rn50_simt_switch, .-rn50_simt_switch
)");

namespace rn50::simt {

Place place;

namespace {

constexpr size_t stack_bytes = 256 << 10;
constexpr unsigned char rubbish = 0xFB;  // as a float, a large negative number; as an index, nonsense

enum class State { ready, at_barrier, at_exchange, done };

struct Fiber {
    std::unique_ptr<char[]> stack;
    void* stack_pointer = nullptr;
    State state = State::done;
    Place where;
    int linear = 0;            // index in the block
    uint64_t collectives = 0;  // warp collectives that this thread has entered
};

/// One warp collective in flight; two of them, since a lane can be ahead of another by one at most.
struct Collective {
    uint64_t number = 0;
    uint32_t mask = 0, arrived = 0;
    uint64_t values[32] = {};
};
struct Warp {
    Collective collectives[2];
};

struct Array {
    std::unique_ptr<char[]> data;
    int64_t bytes;
};

std::vector<Fiber> fibers;
std::vector<Warp> warps;
std::map<std::string, Array> arrays;  // by site
Fiber* running = nullptr;
void* scheduler_stack = nullptr;
const std::function<void()>* block_body = nullptr;
std::string kernel_name;
std::set<std::string> names_run, described_run, in_place;
Order the_order = Order::forward;
uint64_t random_state = 1;

#if defined(__SANITIZE_ADDRESS__)
const void* scheduler_bottom = nullptr;
size_t scheduler_size = 0;
void* scheduler_fake = nullptr;
#endif

void to_fiber(Fiber& fiber) {
    running = &fiber;
    place = fiber.where;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&scheduler_fake, fiber.stack.get(), stack_bytes);
#endif
    rn50_simt_switch(&scheduler_stack, fiber.stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(scheduler_fake, nullptr, nullptr);
#endif
}

/// Back to the scheduler; returns when it is this fiber's turn again.
void to_scheduler() {
    Fiber& fiber = *running;
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(fiber.state == State::done ? nullptr : &fake, scheduler_bottom, scheduler_size);
#endif
    rn50_simt_switch(&fiber.stack_pointer, scheduler_stack);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, &scheduler_bottom, &scheduler_size);
#endif
}

[[noreturn]] void fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_bottom, &scheduler_size);
#endif
    (*block_body)();
    running->state = State::done;
    to_scheduler();
    std::abort();
}

void start(Fiber& fiber, int linear, const Place& where) {
    if (!fiber.stack) fiber.stack = std::make_unique<char[]>(stack_bytes);
#if defined(__SANITIZE_ADDRESS__)
    // The fiber before on this stack was left, not ended: the marks around its variables are still there.
    __asan_unpoison_memory_region(fiber.stack.get(), stack_bytes);
#endif
    // The stack as rn50_simt_switch leaves it: six registers, then the address to go on at. A called function expects a
    // stack that is 8 bytes short of a multiple of 16.
    auto** top = reinterpret_cast<void**>((reinterpret_cast<uintptr_t>(fiber.stack.get()) + stack_bytes) / 16 * 16);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(&fiber_main);
    for (int i = 0; i < 6; ++i)
        *--top = nullptr;
    fiber.stack_pointer = top;
    fiber.state = State::ready;
    fiber.linear = linear;
    fiber.collectives = 0;
    fiber.where = where;
}

uint64_t next_random() {  // xorshift
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

std::vector<int> order_of(int count) {
    std::vector<int> order(static_cast<size_t>(count));
    std::iota(order.begin(), order.end(), 0);
    if (the_order == Order::backward) std::reverse(order.begin(), order.end());
    if (the_order == Order::shuffled)
        for (size_t i = order.size(); i > 1; --i)
            std::swap(order[i - 1], order[next_random() % i]);
    return order;
}

std::string say(const Place& where) {
    const auto three = [](const dim3& d) {
        return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
    };
    return "thread " + three(where.thread) + " of block " + three(where.block);
}

/// Whether anything moves: a barrier opens when all threads stand before it.
bool open_barrier(int count) {
    int waiting = 0, done = 0;
    for (int i = 0; i < count; ++i) {
        waiting += fibers[static_cast<size_t>(i)].state == State::at_barrier;
        done += fibers[static_cast<size_t>(i)].state == State::done;
    }
    if (waiting == 0 || waiting + done < count) return false;
    if (done > 0) fail(std::to_string(done) + " threads have ended while the others wait at a barrier");
    for (int i = 0; i < count; ++i)
        fibers[static_cast<size_t>(i)].state = State::ready;
    return true;
}

bool collective_complete(const Fiber& fiber) {
    const Collective& c = warps[static_cast<size_t>(fiber.linear / 32)].collectives[fiber.collectives & 1];
    return c.number == fiber.collectives && c.arrived == c.mask;
}

void run_block(dim3 grid, dim3 size, dim3 block) {
    const int count = static_cast<int>(size.x * size.y * size.z);
    if (fibers.size() < static_cast<size_t>(count)) fibers.resize(static_cast<size_t>(count));
    warps.assign(static_cast<size_t>(count + 31) / 32, Warp{});
    for (auto& [site, array] : arrays)
        std::memset(array.data.get(), rubbish, static_cast<size_t>(array.bytes));
    for (int i = 0; i < count; ++i) {
        const auto u = static_cast<unsigned>(i);
        const dim3 thread(u % size.x, u / size.x % size.y, u / size.x / size.y);
        start(fibers[static_cast<size_t>(i)], i, {thread, block, size, grid});
    }
    int done = 0;
    while (done < count) {
        bool moved = false;
        for (const int i : order_of(count)) {
            Fiber& fiber = fibers[static_cast<size_t>(i)];
            if (fiber.state == State::at_exchange && collective_complete(fiber)) fiber.state = State::ready;
            if (fiber.state != State::ready) continue;
            moved = true;
            to_fiber(fiber);
            done += fiber.state == State::done;
        }
        if (open_barrier(count)) moved = true;
        if (!moved && done < count) fail("its threads wait for each other for ever (a warp collective misses a lane)");
    }
}

/// Filled while the program starts, by files in any order.
std::set<std::string>& known() {
    static std::set<std::string> instances;
    return instances;
}

/// "rn50::cuda::join_kernel<float, 4>" from "... [with auto kernel = rn50::cuda::join_kernel<float, 4>]"
std::string instance_in(const std::string& description) {
    const std::string before = "kernel = ";
    const size_t begin = description.find(before), end = description.rfind(']');
    if (begin == std::string::npos || end == std::string::npos) return description;
    return description.substr(begin + before.size(), end - begin - before.size());
}

/// "join_kernel" from the same
std::string name_in(const std::string& description) {
    const size_t end = description.find("_kernel", description.find("kernel = "));
    if (end == std::string::npos) return description;
    size_t begin = end;
    while (begin > 0 &&
           (std::isalnum(static_cast<unsigned char>(description[begin - 1])) || description[begin - 1] == '_'))
        --begin;
    return description.substr(begin, end - begin) + "_kernel";
}

}  // namespace

void set_order(Order order, uint64_t seed) {
    the_order = order;
    random_state = seed * 0x9E3779B97F4A7C15u + 1;
}

const std::set<std::string>& kernels_run() {
    return names_run;
}

const std::set<std::string>& instances_known() {
    return known();
}

const std::set<std::string>& instances_run() {
    return described_run;
}

const std::set<std::string>& kernels_in_place() {
    return in_place;
}

void note_arguments(const char* description, std::initializer_list<PointerArgument> arguments) {
    for (const PointerArgument& read : arguments)
        for (const PointerArgument& written : arguments)
            if (read.address != nullptr && read.address == written.address && read.reads && !written.reads)
                in_place.insert(name_in(description));
}

bool know(const char* description) {
    known().insert(instance_in(description));
    return true;
}

void run(const char* description, dim3 grid, dim3 block, const std::function<void()>& body) {
    static std::mutex one_at_a_time;  // streams may be threads
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    kernel_name = name_in(description);
    names_run.insert(kernel_name);
    described_run.insert(instance_in(description));
    const int64_t threads = int64_t{block.x} * block.y * block.z;
    if (threads < 1 || threads > 1024) fail("blocks of " + std::to_string(threads) + " threads");
    if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.y > 65535 || grid.z > 65535 || grid.x > 0x7FFFFFFF)
        fail("a grid of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " + std::to_string(grid.z));
    block_body = &body;
    arrays.clear();
    const DeviceAccess access;
    for (const int i : order_of(static_cast<int>(grid.x * grid.y * grid.z))) {
        const auto u = static_cast<unsigned>(i);
        run_block(grid, block, dim3(u % grid.x, u / grid.x % grid.y, u / grid.x / grid.y));
    }
}

namespace {

std::mutex pinned_mutex;
std::map<const char*, size_t> pinned;  // by begin

}  // namespace

void pin(void* data, size_t bytes) {
    const std::lock_guard<std::mutex> lock(pinned_mutex);
    pinned[static_cast<char*>(data)] = bytes;
}

void unpin(void* data) {
    const std::lock_guard<std::mutex> lock(pinned_mutex);
    pinned.erase(static_cast<char*>(data));
}

bool is_pinned(const void* data) {
    const auto* const at = static_cast<const char*>(data);
    const std::lock_guard<std::mutex> lock(pinned_mutex);
    auto after = pinned.upper_bound(at);
    return after != pinned.begin() && (--after, at < after->first + after->second);
}

void* shared(const char* site, int64_t bytes) {
    auto found = arrays.find(site);
    if (found == arrays.end()) {
        Array array{std::make_unique<char[]>(static_cast<size_t>(bytes)), bytes};
        std::memset(array.data.get(), rubbish, static_cast<size_t>(bytes));
        found = arrays.emplace(site, std::move(array)).first;
        int64_t all = 0;
        for (const auto& [key, value] : arrays)
            all += value.bytes;
        if (all > 48 << 10) fail("more than 48 KiB of shared memory");
    }
    if (found->second.bytes != bytes) fail("an array in shared memory changes its size");
    return found->second.data.get();
}

void barrier() {
    running->state = State::at_barrier;
    to_scheduler();
}

int lane() {
    return running->linear % 32;
}

const uint64_t* exchange(uint32_t mask, uint64_t value) {
    Fiber& fiber = *running;
    const uint64_t number = ++fiber.collectives;
    Collective& c = warps[static_cast<size_t>(fiber.linear / 32)].collectives[number & 1];
    if (c.number != number) {
        c.number = number;
        c.mask = mask;
        c.arrived = 0;
    }
    if (c.mask != mask) fail("lanes of one warp collective name different lanes");
    if (!(mask >> lane() & 1)) fail("a lane takes part in a warp collective that does not name it");
    c.values[lane()] = value;
    c.arrived |= 1u << lane();
    if (c.arrived != c.mask) {
        fiber.state = State::at_exchange;
        to_scheduler();
    }
    return c.values;
}

void fail(const std::string& what) {
    std::fprintf(stderr, "%s: %s%s\n", kernel_name.c_str(), what.c_str(),
                 running ? (" (last ran " + say(running->where) + ")").c_str() : "");
    std::abort();
}

}  // namespace rn50::simt

cudaError_t cudaMemcpyAsync(void* dst, const void* src, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    using namespace rn50;
    simt::require_place("a copy to", dst, bytes, kind != cudaMemcpyDeviceToHost);
    simt::require_place("a copy from", src, bytes, kind != cudaMemcpyHostToDevice);
    const auto copy = [dst, bytes](const void* from) {
        const simt::DeviceAccess access;
        std::memmove(dst, from, bytes);
    };
    const void* const host = kind == cudaMemcpyHostToDevice ? src : kind == cudaMemcpyDeviceToHost ? dst : nullptr;
    if (host == nullptr || simt::is_pinned(host)) return simt::answer(streams::push(stream, [=] { copy(src); }));
    if (streams::is_captured(stream)) return simt::answer(streams::synchronize(stream));  // which is refused
    if (kind == cudaMemcpyDeviceToHost) {
        streams::push(stream, [=] { copy(src); });
        return simt::answer(streams::synchronize(stream));
    }
    const std::string staged(static_cast<const char*>(src), bytes);
    return simt::answer(streams::push(stream, [=] { copy(staged.data()); }));
}
