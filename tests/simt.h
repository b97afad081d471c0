// CUDA's programming model on the CPU, so that the kernels of cuda/ run in tests without a GPU. The same source files
// are compiled by the host's compiler with RN50_SIMT defined. A launch runs its blocks one after another; the threads
// of a block are fibers, which take turns at barriers and warp collectives. To bring missing barriers to light
//   - fibers run forward, backward or in a shuffled order (set_order), and blocks too,
//   - shared memory is a heap block of its own for each array, full of rubbish at the start of each block,
// and a barrier that not all threads reach, a warp collective that a named lane misses, or a pack at an address that is
// no multiple of its size, ends the test with a message. Streams and graphs are those of streams.h; device memory is
// the kernels' alone (simt_memory.h).
#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <set>
#include <string>
#include <type_traits>
#include <utility>

#include "base/error.h"
#include "simt_memory.h"
#include "streams.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace rn50::simt {

enum class Order { forward, backward, shuffled };
/// Of the launches from now on. `seed` matters to the shuffled order alone; each launch shuffles anew.
void set_order(Order order, uint64_t seed = 0);

/// The names of all kernels that have run in this process: "join_kernel".
const std::set<std::string>& kernels_run();
/// Every instance of a kernel that some launch in this program names, and those that have run, in the compiler's words:
/// "rn50::cuda::{anonymous}::join_kernel<float, 4>".
const std::set<std::string>& instances_known();
const std::set<std::string>& instances_run();
/// The names of kernels that were given one place both to read (a pointer to const) and to write. On a GPU such a
/// kernel must not say __restrict__ of the two: it would read through a cache that does not see what is written.
const std::set<std::string>& kernels_in_place();
/// `description` as of run(). True, for a static variable to hold.
bool know(const char* description);

/// Indices of the fiber that is running.
struct Place {
    dim3 thread, block, block_size, grid_size;
};
extern Place place;

/// Runs body once for every thread of every block. `description` holds the kernel's name (see launch).
void run(const char* description, dim3 grid, dim3 block, const std::function<void()>& body);

/// A parameter of a kernel, as far as it is a pointer.
struct PointerArgument {
    const void* address;
    bool reads;  ///< to const
};
template <class Parameter>
PointerArgument pointer_argument([[maybe_unused]] const Parameter& argument) {
    if constexpr (std::is_pointer_v<Parameter>)
        return {argument, std::is_const_v<std::remove_pointer_t<Parameter>>};
    else
        return {nullptr, false};
}
/// Notes which kernels work in place.
void note_arguments(const char* description, std::initializer_list<PointerArgument> arguments);
/// The arguments of a call, converted to the kernel's parameters.
template <class... Parameters>
void note_call(const char* description, void (*)(Parameters...), const std::common_type_t<Parameters>&... arguments) {
    note_arguments(description, {pointer_argument<Parameters>(arguments)...});
}

/// The block's array of `bytes` in shared memory that is declared at `site`.
void* shared(const char* site, int64_t bytes);
void barrier();

/// Hands `value` to all lanes of `mask`, which must all call; returns the 32 values of the warp.
const uint64_t* exchange(uint32_t mask, uint64_t value);
int lane();
[[noreturn]] void fail(const std::string& what);
inline void require_multiple(const void* address, size_t bytes) {
    if (reinterpret_cast<uintptr_t>(address) % bytes != 0)
        fail(std::to_string(bytes) + " bytes at an address that is no multiple of them");
}

/// Ends the test when `data` is not where a call of the runtime says: on the device, or in the host's memory.
inline void require_place(const char* what, const void* data, size_t bytes, bool on_device) {
    if (is_device_memory(data, bytes) != on_device)
        fail(std::string(what) + (on_device ? " device memory that is none" : " the host's memory, on the device"));
}

}  // namespace rn50::simt

#define threadIdx (::rn50::simt::place.thread)
#define blockIdx (::rn50::simt::place.block)
#define blockDim (::rn50::simt::place.block_size)
#define gridDim (::rn50::simt::place.grid_size)

#define RN50_SIMT_TEXT_(x) #x
#define RN50_SIMT_TEXT(x) RN50_SIMT_TEXT_(x)
#define RN50_SHARED(type, name, count)     \
    type* const name = static_cast<type*>( \
        ::rn50::simt::shared(__FILE__ ":" RN50_SIMT_TEXT(__LINE__), int64_t{sizeof(type)} * (count)))

#define RN50_PACK_AT(address, bytes) ::rn50::simt::require_multiple(address, bytes)

inline void __syncthreads() {
    rn50::simt::barrier();
}
inline void __syncwarp(uint32_t mask = 0xFFFFFFFFu) {
    rn50::simt::exchange(mask, 0);
}

namespace rn50::simt {

template <class T>
T exchanged(uint32_t mask, T value, int from) {
    static_assert(sizeof(T) <= 8);
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    const uint64_t* const all = exchange(mask, bits);
    std::memcpy(&value, &all[from], sizeof value);
    return value;
}

}  // namespace rn50::simt

template <class T>
T __shfl_sync(uint32_t mask, T value, int from) {
    return rn50::simt::exchanged(mask, value, from & 31);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int with) {
    return rn50::simt::exchanged(mask, value, rn50::simt::lane() ^ with);
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, unsigned by) {
    const int from = rn50::simt::lane() + static_cast<int>(by);
    return rn50::simt::exchanged(mask, value, from < 32 ? from : rn50::simt::lane());
}
inline unsigned __ballot_sync(uint32_t mask, bool predicate) {
    const uint64_t* const all = rn50::simt::exchange(mask, predicate);
    unsigned votes = 0;
    for (unsigned i = 0; i < 32; ++i)
        if (mask >> i & 1 && all[i]) votes |= 1u << i;
    return votes;
}
inline bool __any_sync(uint32_t mask, bool predicate) {
    return __ballot_sync(mask, predicate) != 0;
}
inline bool __all_sync(uint32_t mask, bool predicate) {
    return __ballot_sync(mask, predicate) == mask;
}

/// Fibers never run at once, so an atomic operation is a plain one.
inline int atomicAdd(int* at, int value) {
    const int before = *at;
    *at += value;
    return before;
}
inline void __threadfence() {}

// --- numbers

inline float __fmul_rn(float a, float b) {
    return a * b;  // nothing is contracted: -ffp-contract=off
}
inline float __fadd_rn(float a, float b) {
    return a + b;
}

struct __half {
    uint16_t bits;
};
struct __nv_bfloat16 {
    uint16_t bits;
};

struct __half2 {
    __half x, y;
};
struct __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

inline float __uint_as_float(uint32_t bits) {
    float f;
    std::memcpy(&f, &bits, sizeof f);
    return f;
}

inline float __bfloat162float(__nv_bfloat16 v) {
    const uint32_t bits = uint32_t{v.bits} << 16;
    float f;
    std::memcpy(&f, &bits, sizeof f);
    return f;
}
inline __nv_bfloat16 __float2bfloat16_rn(float f) {
    uint32_t bits;
    std::memcpy(&bits, &f, sizeof f);
    if (f != f) return {0x7FFF};
    return {static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)};
}
inline float __half2float(__half v) {
    const uint32_t sign = (v.bits & 0x8000u) << 16, size = v.bits & 0x7FFFu;
    float f;
    if (size >= 0x7C00u) {  // infinity and NaN keep their fraction
        const uint32_t bits = sign | 0x7F800000u | (size & 0x3FFu) << 13;
        std::memcpy(&f, &bits, sizeof f);
        return f;
    }
    // As f32 the bits mean a number 2^112 times too small, subnormal ones included.
    const uint32_t bits = size << 13;
    std::memcpy(&f, &bits, sizeof f);
    f *= 0x1p112f;
    return sign ? -f : f;
}
inline __half __float2half_rn(float f) {
    uint32_t bits;
    std::memcpy(&bits, &f, sizeof f);
    const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
    if (f != f) return {0x7FFF};
    const float size = std::fabs(f);
    if (size >= 65520.0f) return {static_cast<uint16_t>(sign | 0x7C00u)};
    if (size < 0x1p-14f) {  // subnormal: a multiple of 2^-24, and the sum rounds to it
        const float shifted = size + 0.5f;
        std::memcpy(&bits, &shifted, sizeof bits);
        return {static_cast<uint16_t>(sign | (bits - 0x3F000000u))};
    }
    std::memcpy(&bits, &size, sizeof bits);
    bits += 0xFFFu + (bits >> 13 & 1);
    return {static_cast<uint16_t>(sign | ((bits >> 13) - (112u << 10)))};
}

inline __half2 __floats2half2_rn(float low, float high) {
    return {__float2half_rn(low), __float2half_rn(high)};
}
inline __nv_bfloat162 __floats2bfloat162_rn(float low, float high) {
    return {__float2bfloat16_rn(low), __float2bfloat16_rn(high)};
}

// --- the part of the runtime that the backend uses

enum cudaError_t {
    cudaSuccess,
    cudaErrorMemoryAllocation = 2,
    cudaErrorECCUncorrectable = 214,
    cudaErrorOthers = 1023  // any number of streams::Status
};

namespace rn50::simt {

/// What the next allocation returns in place of memory, and the error that cudaGetLastError() would give.
inline thread_local cudaError_t next_allocation = cudaSuccess, last_error = cudaSuccess;
/// What the next cudaGraphInstantiate returns in place of a graph.
inline thread_local cudaError_t next_instance = cudaSuccess;

/// The runtime's answer for what the stream or the capture says.
inline cudaError_t answer(streams::Status status) {
    if (status != streams::success && status != streams::not_ready) last_error = static_cast<cudaError_t>(status);
    return static_cast<cudaError_t>(status);
}

}  // namespace rn50::simt

inline cudaError_t cudaGetLastError() {
    return std::exchange(rn50::simt::last_error, cudaSuccess);
}
typedef rn50::streams::Stream* cudaStream_t;
typedef std::shared_ptr<const rn50::streams::Graph>* cudaGraph_t;
typedef std::shared_ptr<const rn50::streams::Graph>* cudaGraphExec_t;
struct cudaDeviceProp {
    char name[256] = "emulated device";
    int major = 9, minor = 0, multiProcessorCount = 2;
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
constexpr unsigned cudaStreamNonBlocking = 1, cudaDeviceScheduleBlockingSync = 4;

inline cudaError_t cudaSetDevice(int) {
    return cudaSuccess;
}
inline cudaError_t cudaSetDeviceFlags(unsigned) {
    return cudaSuccess;
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
    *properties = {};
    return cudaSuccess;
}
namespace rn50::simt {

/// Blocks of device memory taken so far; bytes that the libraries would hold.
inline std::atomic<int64_t> allocations{0};
inline int64_t library_bytes = 0;
/// Of pinned memory, from which a copy reads when its turn comes; from any other it has read when the call returns.
void pin(void* data, size_t bytes);
void unpin(void* data);
bool is_pinned(const void* data);

}  // namespace rn50::simt

inline cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
    *total = size_t{8} << 30;
    *free = *total - static_cast<size_t>(rn50::simt::device_bytes + rn50::simt::library_bytes);
    return cudaSuccess;
}

template <class T>
cudaError_t cudaMalloc(T** data, size_t bytes) {
    using namespace rn50::simt;
    if (const auto refusal = answer(rn50::streams::unsafe_call())) return refusal;
    if (next_allocation != cudaSuccess) return last_error = std::exchange(next_allocation, cudaSuccess);
    ++allocations;
    void* const block = take_device_memory(bytes);
    if (block == nullptr) return last_error = cudaErrorMemoryAllocation;
    *data = static_cast<T*>(block);
    return cudaSuccess;
}
template <class T>
cudaError_t cudaMallocHost(T** data, size_t bytes) {
    using namespace rn50::simt;
    if (const auto refusal = answer(rn50::streams::unsafe_call())) return refusal;
    if (next_allocation != cudaSuccess) return last_error = std::exchange(next_allocation, cudaSuccess);
    // Not a byte more than was asked for, so that a sanitizer sees the first one behind.
    void* block = nullptr;
    if (posix_memalign(&block, 256, bytes) != 0) return last_error = cudaErrorMemoryAllocation;
    pin(block, bytes);
    *data = static_cast<T*>(block);
    return cudaSuccess;
}
inline cudaError_t cudaFree(void* data) {
    if (const auto refusal = rn50::simt::answer(rn50::streams::unsafe_call())) return refusal;
    rn50::streams::drain();
    rn50::simt::give_device_memory(data);
    return cudaSuccess;
}
inline cudaError_t cudaFreeHost(void* data) {
    if (const auto refusal = rn50::simt::answer(rn50::streams::unsafe_call())) return refusal;
    rn50::streams::drain();
    rn50::simt::unpin(data);
    std::free(data);
    return cudaSuccess;
}
inline cudaError_t cudaMemset(void* data, int value, size_t bytes) {
    if (const auto refusal = rn50::simt::answer(rn50::streams::unsafe_call())) return refusal;
    rn50::simt::require_place("cudaMemset of", data, bytes, true);
    const rn50::simt::DeviceAccess access;
    std::memset(data, value, bytes);
    return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t stream) {
    rn50::simt::require_place("cudaMemsetAsync of", data, bytes, true);
    return rn50::simt::answer(rn50::streams::push(stream, [=] {
        const rn50::simt::DeviceAccess access;
        std::memset(data, value, bytes);
    }));
}
/// A captured copy from memory that is not pinned would read it later, when it may be gone: here that is refused.
cudaError_t cudaMemcpyAsync(void* dst, const void* src, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    *stream = rn50::streams::make_stream();
    return cudaSuccess;
}
inline cudaError_t cudaDeviceSynchronize() {
    if (const auto refusal = rn50::simt::answer(rn50::streams::unsafe_call())) return refusal;
    rn50::streams::drain();
    return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    rn50::streams::destroy(stream);
    return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    return rn50::simt::answer(rn50::streams::synchronize(stream));
}

// --- graphs

enum cudaStreamCaptureMode {
    cudaStreamCaptureModeGlobal,
    cudaStreamCaptureModeThreadLocal,
    cudaStreamCaptureModeRelaxed
};

inline cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
    return rn50::simt::answer(rn50::streams::begin_capture(stream, mode == cudaStreamCaptureModeRelaxed));
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    std::shared_ptr<const rn50::streams::Graph> captured;
    const auto status = rn50::streams::end_capture(stream, captured);
    *graph = captured ? new std::shared_ptr<const rn50::streams::Graph>(captured) : nullptr;
    return rn50::simt::answer(status);
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* instance, cudaGraph_t graph, unsigned long long) {
    using namespace rn50::simt;
    if (next_instance != cudaSuccess) return last_error = std::exchange(next_instance, cudaSuccess);
    *instance = new std::shared_ptr<const rn50::streams::Graph>(*graph);
    return cudaSuccess;
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t instance, cudaStream_t stream) {
    return rn50::simt::answer(rn50::streams::launch(*instance, stream));
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t instance) {
    delete instance;
    return cudaSuccess;
}

namespace rn50::cuda {

inline void check(cudaError_t status, const std::string& what) {
    if (status == cudaSuccess) return;
    cudaGetLastError();
    throw Error(Exit::device, cat(what, ": CUDA error ", int{status}), "as cuda/check.cpp says");
}

/// A kernel that some launch names, noted when the program starts. The compiler spells its name into
/// __PRETTY_FUNCTION__.
template <auto kernel>
struct Launched {
    static const char* description() { return __PRETTY_FUNCTION__; }
    static inline const bool noted = simt::know(description());
};

/// The emulator's twin of portable.h's launch.
template <auto kernel, class... Args>
void launch(dim3 grid, dim3 block, cudaStream_t stream, Args... args) {
    static_cast<void>(Launched<kernel>::noted);
    simt::note_call(Launched<kernel>::description(), kernel, args...);
    check(simt::answer(streams::push(
              stream, [=] { simt::run(Launched<kernel>::description(), grid, block, [&] { kernel(args...); }); })),
          "kernel launch");
}

}  // namespace rn50::cuda
