#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/math.h"
#include "base/random.h"
#include "captured_stderr.h"

using namespace rn50;

namespace {

using Words = std::array<uint32_t, 4>;

/// Pearson's chi-squared of `n` draws over `bins` equally likely bins.
template <class Draw>
double chi_squared(int bins, int n, Draw draw) {
    std::vector<int> seen(static_cast<size_t>(bins));
    for (int i = 0; i < n; ++i)
        ++seen[static_cast<size_t>(draw())];
    const double expected = static_cast<double>(n) / bins;
    double sum = 0;
    for (const int count : seen)
        sum += (count - expected) * (count - expected) / expected;
    return sum;
}

}  // namespace

TEST_CASE("philox gives the known answers of its authors' library") {
    CHECK(philox({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
    CHECK(philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
    CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
          Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("a random stream is the philox blocks of its seed, epoch, sample and purpose") {
    const uint64_t seed = 0x0123456789abcdef, sample = 0x0000001122334455;
    Random random(seed, 7, sample, Purpose::crop);
    for (uint32_t block = 0; block < 3; ++block) {
        const Words expected = philox({block, 7, 0x22334455, 0x11 ^ (2u << 24)}, {0x89abcdef, 0x01234567});
        for (const uint32_t word : expected)
            CHECK(random.u32() == word);
    }
}

TEST_CASE("the draws are made of the words as documented") {
    Random words(3, 1, 4, Purpose::init), draws(3, 1, 4, Purpose::init);
    CHECK(draws.uniform() == static_cast<float>(words.u32() >> 8) / 16777216.0f);
    const uint64_t high = words.u32(), low = words.u32();
    CHECK(draws.u64() == (high << 32 | low));
    const uint64_t wide = words.u64();
    CHECK(draws.uniform(-2.0, 3.0) == doctest::Approx(-2.0 + 5.0 * static_cast<double>(wide) / 18446744073709551616.0));
    const uint64_t for_below = words.u64();
    CHECK(draws.below(1000) ==
          static_cast<uint64_t>(static_cast<long double>(for_below) / 18446744073709551616.0L * 1000.0L));
}

TEST_CASE("streams that differ in one part of their name share no number") {
    std::set<uint64_t> first;
    int streams = 0;
    for (const uint64_t seed : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32})
        for (const uint32_t epoch : {0u, 1u})
            for (const uint64_t sample : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32})
                for (const Purpose purpose : {Purpose::shuffle, Purpose::crop, Purpose::flip, Purpose::color,
                                              Purpose::dropout, Purpose::init, Purpose::split, Purpose::demo}) {
                    first.insert(Random(seed, epoch, sample, purpose).u64());
                    ++streams;
                }
    CHECK(static_cast<int>(first.size()) == streams);
}

TEST_CASE("uniform draws are even, within a stream and across neighbouring samples") {
    // 99 degrees of freedom: chi-squared stays below 149 with probability 0.999.
    const int n = 100000;
    Random one(42, 0, 0, Purpose::demo);
    CHECK(chi_squared(100, n, [&] { return static_cast<int>(one.uniform() * 100); }) < 149);
    uint64_t sample = 0;
    CHECK(chi_squared(100, n,
                      [&] { return static_cast<int>(Random(42, 0, sample++, Purpose::demo).uniform() * 100); }) < 149);
    Random bounded(42, 1, 0, Purpose::demo);
    CHECK(chi_squared(100, n, [&] { return static_cast<int>(bounded.below(100)); }) < 149);

    double lag = 0;
    float previous = Random(42, 0, 0, Purpose::flip).uniform() - 0.5f;
    for (uint64_t i = 1; i < static_cast<uint64_t>(n); ++i) {
        const float now = Random(42, 0, i, Purpose::flip).uniform() - 0.5f;
        lag += static_cast<double>(previous) * now;
        previous = now;
    }
    CHECK(std::abs(lag / n * 12) < 4 / std::sqrt(n));  // correlation within four standard deviations
}

TEST_CASE("uniform stays in its half-open interval") {
    Random random(0, 0, 0, Purpose::color);
    float lowest = 1, highest = 0;
    for (int i = 0; i < 100000; ++i) {
        const float value = random.uniform();
        lowest = std::min(lowest, value);
        highest = std::max(highest, value);
    }
    CHECK(lowest >= 0.0f);
    CHECK(lowest < 1e-4f);
    CHECK(highest < 1.0f);
    CHECK(highest > 1 - 1e-4f);
    for (int i = 0; i < 1000; ++i)
        CHECK(random.below(1) == 0);
}

TEST_CASE("integer helpers round up") {
    CHECK(ceil_div(0, 4) == 0);
    CHECK(ceil_div(1, 4) == 1);
    CHECK(ceil_div(4, 4) == 1);
    CHECK(ceil_div(5, 4) == 2);
    CHECK(align_up(1, 256) == 256);
    CHECK(align_up(256, 256) == 256);
    CHECK(align_up(int64_t{1} << 40 | 1, 256) == (int64_t{1} << 40) + 256);
}

TEST_CASE("an error carries its exit code and its remedy") {
    const Error error(Exit::data, cat("picture ", 3, " of ", 7.5), "look at it");
    CHECK(std::string(error.what()) == "picture 3 of 7.5");
    CHECK(error.remedy() == "look at it");
    CHECK(static_cast<int>(error.code()) == 3);
}

TEST_CASE("a broken contract names the condition, the place and the values, and is internal") {
    const int rows = 3;
    std::string what;
    Exit code = Exit::ok;
    try {
        RN50_REQUIRE(rows == 4, "rows ", rows);
    } catch (const Error& error) {
        what = error.what();
        code = error.code();
    }
    CHECK(code == Exit::internal);
    CHECK(what.find("rows 3") != std::string::npos);
    CHECK(what.find("rows == 4") != std::string::npos);
    CHECK(what.find("test_base.cpp") != std::string::npos);
    RN50_REQUIRE(rows == 3, "not thrown");
}

TEST_CASE("with_errno adds the system's own words") {
    errno = ENOENT;
    CHECK(with_errno("opening x") == "opening x: No such file or directory");
}

TEST_CASE("a warning is said once for a key; quiet drops information but no warning") {
    test::CapturedStderr captured;
    log::warn_once("test: key", "narrower");
    log::warn_once("test: key", "narrower");
    log::warn_once("test: other key", "slower");
    log::info("shown");
    log::set_quiet(true);
    log::info("dropped");
    log::warn("kept");
    log::set_quiet(false);
    CHECK(captured.text() == "warning: narrower\nwarning: slower\nshown\nwarning: kept\n");
}
