// The emulator itself: what it finds, what it computes, and that every kernel of cuda/ has been on it.
#define RN50_SIMT
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <limits>
#include <regex>
#include <sstream>
#include <vector>

#include "base/error.h"
#include "pack.cuh"
#include "simt.h"
#include "simt_backend.h"

using namespace rn50;
using namespace rn50::test;
using cuda::launch;

namespace {

constexpr EmulatorOrder orders[] = {EmulatorOrder::forward, EmulatorOrder::backward, EmulatorOrder::shuffled};

/// Each thread hands its value to the thread opposite, through shared memory.
__global__ void reverse_kernel(const int* src, int* dst, bool with_barrier) {
    RN50_SHARED(int, shared, 64);
    const int i = static_cast<int>(threadIdx.x), n = static_cast<int>(blockDim.x);
    shared[i] = src[static_cast<int>(blockIdx.x) * n + i];
    if (with_barrier) __syncthreads();
    dst[static_cast<int>(blockIdx.x) * n + i] = shared[n - 1 - i];
}

/// A second round overwrites shared memory while slower threads may still read the first.
__global__ void two_rounds_kernel(int* dst, bool with_barrier) {
    RN50_SHARED(int, shared, 64);
    const int i = static_cast<int>(threadIdx.x), n = static_cast<int>(blockDim.x);
    shared[i] = i;
    __syncthreads();
    dst[i] = shared[(i + 1) % n];
    if (with_barrier) __syncthreads();
    shared[i] = 100 + i;
    __syncthreads();
    dst[n + i] = shared[(i + 1) % n];
}

__global__ void warp_kernel(int* sums, unsigned* votes, int* first, double* down) {
    const int i = static_cast<int>(threadIdx.x);
    int sum = i;
    for (int by = 16; by > 0; by /= 2)
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, by);
    sums[i] = sum;
    votes[i] = __ballot_sync(0xFFFFFFFFu, i % 3 == 0);
    first[i] = __shfl_sync(0xFFFFFFFFu, i * 10, 5);
    down[i] = __shfl_down_sync(0xFFFFFFFFu, i + 0.5, 4);
}

__global__ void leaves_early_kernel() {
    if (threadIdx.x == 3) return;
    __syncthreads();
}

__global__ void misses_a_lane_kernel() {
    if (threadIdx.x != 7) __syncwarp();
}

__global__ void increment_kernel(const int* src, int* dst) {
    *dst = *src + 1;
}

__global__ void pack_kernel(const float* from) {
    float values[4];
    cuda::load(from, values);
}

/// Whether the child that runs `body` was killed by the emulator.
template <class Body>
bool aborts(const Body& body) {
    const pid_t child = fork();
    if (child == 0) {
        for (const int signal : {SIGABRT, SIGSEGV})
            std::signal(signal, SIG_DFL);
        if (std::freopen("/dev/null", "w", stderr) == nullptr) _exit(0);
        body();
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

std::string text_of(const std::filesystem::path& path) {
    std::ifstream in(path);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
}

}  // namespace

TEST_CASE("emulator: a barrier makes shared memory agree, and its absence shows in some order") {
    std::vector<int> src(128), expected(128);
    for (int i = 0; i < 128; ++i) {
        src[static_cast<size_t>(i)] = i;
        expected[static_cast<size_t>(i)] = i / 64 * 64 + 63 - i % 64;
    }
    for (const bool barrier : {true, false}) {
        int right = 0;
        for (const EmulatorOrder order : orders) {
            set_emulator_order(order);
            std::vector<int> dst(128, -1);
            launch<reverse_kernel>(dim3(2), dim3(64), nullptr, src.data(), dst.data(), barrier);
            right += dst == expected;
        }
        CHECK((barrier ? right == 3 : right < 3));
    }
}

TEST_CASE("emulator: a missing barrier before shared memory is used again shows in some order") {
    for (const bool barrier : {true, false}) {
        int right = 0;
        for (const EmulatorOrder order : orders) {
            set_emulator_order(order);
            std::vector<int> dst(128, -1);
            launch<two_rounds_kernel>(dim3(1), dim3(64), nullptr, dst.data(), barrier);
            bool all = true;
            for (int i = 0; i < 64; ++i)
                all = all && dst[static_cast<size_t>(i)] == (i + 1) % 64 &&
                      dst[static_cast<size_t>(64 + i)] == 100 + (i + 1) % 64;
            right += all;
        }
        CHECK((barrier ? right == 3 : right < 3));
    }
}

TEST_CASE("emulator: shuffles and votes see the whole warp") {
    for (const EmulatorOrder order : orders) {
        set_emulator_order(order);
        std::vector<int> sums(64), first(64);
        std::vector<unsigned> votes(64);
        std::vector<double> down(64);
        launch<warp_kernel>(dim3(1), dim3(64), nullptr, sums.data(), votes.data(), first.data(), down.data());
        for (int i = 0; i < 64; ++i) {
            const int base = i / 32 * 32;
            unsigned expected = 0;
            for (int k = 0; k < 32; ++k)
                if ((base + k) % 3 == 0) expected |= 1u << k;
            CHECK(sums[static_cast<size_t>(i)] == 32 * base + 496);
            CHECK(votes[static_cast<size_t>(i)] == expected);
            CHECK(first[static_cast<size_t>(i)] == (base + 5) * 10);
            CHECK(down[static_cast<size_t>(i)] == (i % 32 < 28 ? i + 4 : i) + 0.5);
        }
    }
}

TEST_CASE("emulator: threads that a barrier or a warp waits for in vain end the run") {
    CHECK(aborts([] { launch<leaves_early_kernel>(dim3(1), dim3(32), nullptr); }));
    CHECK(aborts([] { launch<misses_a_lane_kernel>(dim3(1), dim3(32), nullptr); }));
    CHECK(aborts([] { launch<leaves_early_kernel>(dim3(1), dim3(2048), nullptr); }));
    CHECK_FALSE(aborts([] { launch<leaves_early_kernel>(dim3(1), dim3(1), nullptr); }));
}

TEST_CASE("emulator: a pack at an address that is no multiple of its size ends the run") {
    alignas(16) static const float values[8] = {};
    CHECK_FALSE(aborts([] { launch<pack_kernel>(dim3(1), dim3(1), nullptr, &values[4]); }));
    CHECK(aborts([] { launch<pack_kernel>(dim3(1), dim3(1), nullptr, &values[2]); }));
}

TEST_CASE("emulator: device memory holds rubbish at first, and the host touches it by copies alone") {
    int *device = nullptr, host = 41;
    REQUIRE(cudaMalloc(&device, sizeof *device) == cudaSuccess);
    const auto copy_out = [&] { cudaMemcpyAsync(&host, device, sizeof host, cudaMemcpyDeviceToHost, nullptr); };
    const auto copy_in = [&] { cudaMemcpyAsync(device, &host, sizeof host, cudaMemcpyHostToDevice, nullptr); };
    copy_out();
    CHECK(host == -1);
    host = 41;
    copy_in();
    launch<increment_kernel>(dim3(1), dim3(1), nullptr, device, device);
    copy_out();
    CHECK(host == 42);
    CHECK_FALSE(aborts(copy_out));
    CHECK(aborts([&] { cudaMemcpyAsync(&host, device, sizeof host, cudaMemcpyHostToDevice, nullptr); }));
    CHECK(aborts([&] { cudaMemcpyAsync(device, &host, sizeof host, cudaMemcpyDeviceToHost, nullptr); }));
    CHECK(aborts([&] { cudaMemcpyAsync(device, &host, sizeof host, cudaMemcpyDeviceToDevice, nullptr); }));
    CHECK(aborts([&] { cudaMemset(&host, 0, sizeof host); }));
    CHECK(aborts([&] { cudaMemset(device, 0, sizeof host + 4096); }));
#if !defined(__SANITIZE_ADDRESS__)
    CHECK(aborts([&] { host = *static_cast<volatile int*>(device); }));
    CHECK(aborts([&] { *static_cast<volatile int*>(device) = host; }));
#endif
    cudaFree(device);
    CHECK(aborts(copy_in));
}

TEST_CASE("emulator: a kernel that reads and writes one place is noted") {
    int values[] = {1, 2, 3};
    launch<reverse_kernel>(dim3(1), dim3(1), nullptr, &values[0], &values[1], true);
    CHECK(simt::kernels_in_place().count("reverse_kernel") == 0);
    launch<increment_kernel>(dim3(1), dim3(1), nullptr, &values[2], &values[2]);
    CHECK(values[2] == 4);
    CHECK(simt::kernels_in_place().count("increment_kernel") == 1);
}

TEST_CASE("emulator: 16-bit numbers are IEEE's and bfloat's") {
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
        const __half half{static_cast<uint16_t>(bits)};
        const int exponent = bits >> 10 & 31, fraction = bits & 1023;
        const double size = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
        const float value = __half2float(half);
        if (exponent == 31 && fraction != 0) {
            CHECK(std::isnan(value));
            continue;
        }
        const double expected = exponent == 31 ? std::numeric_limits<double>::infinity() : size;
        CHECK(static_cast<double>(value) == (bits & 0x8000 ? -expected : expected));
        CHECK(__float2half_rn(value).bits == bits);
        if (exponent == 31 || (bits & 0x7FFF) == 0x7BFF) continue;
        // The middle between two neighbours goes to the even one, and what lies beside the middle to the nearer.
        const float next = __half2float({static_cast<uint16_t>(bits + 1)}), middle = (value + next) / 2;
        const auto even = static_cast<uint16_t>(bits & 1 ? bits + 1 : bits);
        CHECK(__float2half_rn(middle).bits == even);
        CHECK(__float2half_rn(std::nextafter(middle, value)).bits == bits);
        CHECK(__float2half_rn(std::nextafter(middle, next)).bits == bits + 1);
    }
    CHECK(__float2half_rn(65519.996f).bits == 0x7BFF);
    CHECK(__float2half_rn(65520.0f).bits == 0x7C00);
    CHECK(__float2bfloat16_rn(1.0f).bits == 0x3F80);
    CHECK(__float2bfloat16_rn(1.00390625f).bits == 0x3F80);  // a tie, to even
    CHECK(__float2bfloat16_rn(1.01171875f).bits == 0x3F82);  // a tie, to even
    CHECK(std::isnan(__bfloat162float(__float2bfloat16_rn(NAN))));
}

// Stands after the op tests, in a file whose name comes after theirs.
TEST_CASE("every kernel of cuda/ has run on the emulator") {
    if (emulated_kernels().count("join_kernel") == 0) {
        MESSAGE("the op tests were left out of this run: nothing to look at");
        return;
    }
    const std::filesystem::path folder = std::filesystem::path(RN50_TESTS_DIR).parent_path() / "cuda";
    const std::regex name("__global__[^;{]*?\\b(\\w+_kernel)\\s*\\(");
    int found = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        // One kernel does nothing and is never launched: its presence on a device is what is asked about.
        const std::string text =
            std::regex_replace(text_of(entry.path()), std::regex("__global__ void \\w+\\(\\) \\{\\}"), "");
        const std::sregex_iterator end;
        int declared = 0;
        for (std::sregex_iterator at(text.begin(), text.end(), name); at != end; ++at, ++declared)
            CHECK_MESSAGE(emulated_kernels().count((*at)[1]) == 1, (*at)[1], " of ", entry.path().filename());
        const std::regex global("\\b__global__\\b");
        CHECK(std::distance(std::sregex_iterator(text.begin(), text.end(), global), end) == declared);
        found += declared;
    }
    CHECK(found >= 20);
    CHECK(static_cast<int>(instances_of_kernels()) > found);
    for (const std::string& instance : instances_not_emulated())
        FAIL_CHECK("never ran: ", instance);
    // These say __restrict__ of neither place.
    for (const std::string& kernel : simt::kernels_in_place())
        CHECK_MESSAGE((kernel == "dropout_kernel" || kernel == "bias_kernel" || kernel == "increment_kernel"), kernel,
                      " reads what it writes");
}
