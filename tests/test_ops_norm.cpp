// Batch norm between statistics, coefficients and running averages, against double precision.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "op_support.h"

using namespace rn50;
using namespace rn50::test;

namespace {

constexpr double tolerance = 1e-5;  // statistics and coefficients are f32 in every precision
constexpr float eps = 1e-5f;

void check_norm(Rig& rig, const Norm& got, const naive::Norm& expected) {
    CHECK_NEAR(rig.get(got.mean), expected.mean, tolerance);
    CHECK_NEAR(rig.get(got.inv_std), expected.inv_std, tolerance);
    CHECK_NEAR(rig.get(got.scale), expected.scale, tolerance);
    CHECK_NEAR(rig.get(got.shift), expected.shift, tolerance);
}

Array stack(const Array& first, const Array& second) {
    Array rows(Shape{2, first.count()});
    std::copy(first.values.begin(), first.values.end(), rows.values.begin());
    std::copy(second.values.begin(), second.values.end(), rows.values.begin() + first.count());
    return rows;
}

/// Negative, zero and positive.
Array some_gamma(int64_t channels) {
    Array gamma = uniform({channels}, 11, -2, 2);
    gamma[channels / 2] = 0;
    return gamma;
}

void check_from_batch(Rig& rig, const Array& stats, int64_t count) {
    const int64_t channels = stats.shape[1];
    const Array gamma = some_gamma(channels), beta = uniform({channels}, 12);
    const Norm norm = rig.rubbish_norm(channels);
    const Tensor observed = rig.rubbish(DType::f32, {2, channels});
    const Tensor stats_on = rig.put_f32(stats), gamma_on = rig.put_f32(gamma), beta_on = rig.put_f32(beta);
    rig.backend.norm_from_batch(rig.ctx, stats_on, count, gamma_on, beta_on, eps, norm, observed);
    check_norm(rig, norm, naive::norm_from_batch(stats, count, gamma, beta, static_cast<double>(eps)));
    const Array expected = naive::observed(stats, count), got = rig.get(observed);
    CHECK_NEAR(got.row(0), expected.row(0), tolerance);
    CHECK_NEAR(got.row(1), expected.row(1), tolerance);

    const Norm again = rig.rubbish_norm(channels);
    rig.backend.norm_from_batch(rig.ctx, stats_on, count, gamma_on, beta_on, eps, again, Tensor{});
    CHECK(rig.bytes(again.shift) == rig.bytes(norm.shift));
}

}  // namespace

TEST_CASE("norm_from_batch equals double precision") {
    for_each_fp32_rig([](Rig& rig) {
        for (const int64_t channels : {1, 13, 64, 259})
            for (const int64_t count : {2, 3, 1001}) {
                INFO(channels, " channels, count ", count);
                const auto n = static_cast<double>(count);
                check_from_batch(rig, stack(uniform({channels}, 1, -3, 3), uniform({channels}, 2, 0.1 * n, 3 * n)),
                                 count);
            }
    });
}

TEST_CASE("norm_from_batch of flat pictures: mean 100, standard deviation 0.01 and below") {
    for_each_fp32_rig([](Rig& rig) {
        check_from_batch(rig, stack(uniform({17}, 1, 99, 101), uniform({17}, 2, 0.05, 0.15)), 1000);
        check_from_batch(rig, stack(uniform({17}, 1, 99, 101), Array({17})), 1000);  // variance 0: eps alone
    });
}

TEST_CASE("eps counts at small variances") {
    for_each_fp32_rig([](Rig& rig) {
        const Tensor one = rig.put_f32(Array({1}, 1)), zero = rig.put_f32(Array({1}));
        const Norm norm = rig.rubbish_norm(1);
        rig.backend.norm_from_batch(rig.ctx, rig.put_f32(Array({2, 1})), 2, one, zero, eps, norm, {});
        CHECK(rig.get(norm.inv_std)[0] == doctest::Approx(316.22777).epsilon(1e-5));
        rig.backend.norm_from_running(rig.ctx, rig.put_f32(Array({2, 1})), one, zero, 1e-3f, norm);
        CHECK(rig.get(norm.inv_std)[0] == doctest::Approx(31.622777).epsilon(1e-5));
    });
}

TEST_CASE("the variance of one value is an error of usage") {
    for_each_fp32_rig([](Rig& rig) {
        const Tensor stats = rig.put_f32(Array({2, 3})), gamma = rig.put_f32(Array({3}, 1));
        try {
            rig.backend.norm_from_batch(rig.ctx, stats, 1, gamma, gamma, eps, rig.rubbish_norm(3), {});
            FAIL("no error");
        } catch (const Error& error) {
            CHECK(error.code() == Exit::usage);
            CHECK(!error.remedy().empty());
        }
    });
}

TEST_CASE("norm_from_running equals double precision") {
    for_each_fp32_rig([](Rig& rig) {
        const int64_t channels = 21;
        const Array running = stack(uniform({channels}, 1, -3, 3), uniform({channels}, 2, 0, 3));
        const Array gamma = some_gamma(channels), beta = uniform({channels}, 12);
        const Norm norm = rig.rubbish_norm(channels);
        rig.backend.norm_from_running(rig.ctx, rig.put_f32(running), rig.put_f32(gamma), rig.put_f32(beta), eps, norm);
        check_norm(rig, norm, naive::norm_from_running(running, gamma, beta, static_cast<double>(eps)));
    });
}

TEST_CASE("norm_backward equals double precision, for batch and frozen norms") {
    for (const bool frozen : {false, true})
        for (const Write write : {Write::overwrite, Write::add})
            for_each_fp32_rig([&](Rig& rig) {
                INFO((frozen ? "frozen" : "batch"), ", ", write == Write::add ? "added" : "overwritten");
                const int64_t channels = 19, count = 147;
                const Array sums = uniform({2, channels}, 1, -30, 30), gamma = some_gamma(channels);
                naive::Norm norm = some_norm(channels, 5);
                norm.frozen = frozen;
                const Array before = uniform({2, channels}, 7);
                const bool add = write == Write::add;
                const Tensor diff_gamma = add ? rig.put_f32(before.row(0)) : rig.rubbish(DType::f32, {channels});
                const Tensor diff_beta = add ? rig.put_f32(before.row(1)) : rig.rubbish(DType::f32, {channels});
                const Norm norm_on = rig.put(norm);
                const NormGradient got{rig.rubbish(DType::f32, {channels}), rig.rubbish(DType::f32, {channels}),
                                       rig.rubbish(DType::f32, {channels}), norm_on.mean};
                rig.backend.norm_backward(rig.ctx, rig.put_f32(sums), count, norm_on, rig.put_f32(gamma), got,
                                          diff_gamma, diff_beta, write);
                const naive::NormGradient expected = naive::norm_backward(sums, count, norm, gamma);
                CHECK_NEAR(rig.get(got.factor), expected.factor, tolerance);
                CHECK_NEAR(rig.get(got.mean_dz), expected.mean_dz, tolerance);
                CHECK_NEAR(rig.get(got.slope), expected.slope, tolerance);
                CHECK_NEAR(rig.get(got.mean), norm.mean, 0.0);  // the forward's, not written

                Array expected_gamma = sums.row(1), expected_beta = sums.row(0);
                for (int64_t c = 0; add && c < channels; ++c) {
                    expected_gamma[c] += before[c];
                    expected_beta[c] += before[channels + c];
                }
                CHECK_NEAR(rig.get(diff_gamma), expected_gamma, tolerance);
                CHECK_NEAR(rig.get(diff_beta), expected_beta, tolerance);
            });
}

TEST_CASE("norm_update_running moves by the momentum, and not at all in a skipped step") {
    for_each_fp32_rig([](Rig& rig) {
        for (const float momentum : {0.1f, 1.0f, 0.0f})
            for (const int32_t skip : {0, 1}) {
                const Array observed = uniform({2, 331}, 1), before = uniform({2, 331}, 2);
                const Tensor running = rig.put_f32(before);
                StepState state;
                state.skip = skip;
                rig.backend.norm_update_running(rig.ctx, rig.put_f32(observed), running, momentum, rig.put(state));
                Array expected = before;
                for (int64_t i = 0; !skip && i < expected.count(); ++i)
                    expected[i] += static_cast<double>(momentum) * (observed[i] - before[i]);
                CHECK_NEAR(rig.get(running), expected, skip ? 0.0 : tolerance);
            }
    });
}

TEST_CASE("statistics merged over ranks are those of all values") {
    for_each_fp32_rig([](Rig& rig) {
        for (const int64_t ranks : {1, 2, 3, 8})
            for (const int64_t channels : {1, 67, 300}) {
                constexpr int64_t count = 5;
                const Array values = uniform({ranks, count, channels}, 1);
                const auto value = [&](int64_t rank, int64_t i, int64_t c) {
                    const double far = c % 2 == 0 ? 0 : 30;  // beside its deviation, as pictures are
                    return far + values[(rank * count + i) * channels + c];
                };
                Array parts({ranks, 2, channels}), expected({2, channels});
                for (int64_t c = 0; c < channels; ++c) {
                    double total = 0;
                    for (int64_t rank = 0; rank < ranks; ++rank) {
                        double sum = 0, m2 = 0;
                        for (int64_t i = 0; i < count; ++i)
                            sum += value(rank, i, c);
                        for (int64_t i = 0; i < count; ++i)
                            m2 += std::pow(value(rank, i, c) - sum / count, 2);
                        parts[(rank * 2) * channels + c] = sum / count;
                        parts[(rank * 2 + 1) * channels + c] = m2;
                        total += sum;
                    }
                    const double mean = total / static_cast<double>(ranks * count);
                    expected[c] = mean;
                    for (int64_t rank = 0; rank < ranks; ++rank)
                        for (int64_t i = 0; i < count; ++i)
                            expected[channels + c] += std::pow(value(rank, i, c) - mean, 2);
                }
                const Tensor stats = rig.rubbish(DType::f32, {2, channels});
                rig.backend.merge_statistics(rig.ctx, rig.put_f32(rounded(parts, DType::f32)), count, stats);
                const Array got = rig.get(stats);
                CHECK_NEAR(got.row(0), expected.row(0), tolerance);
                CHECK_NEAR(got.row(1), expected.row(1), tolerance);
            }
    });
}

TEST_CASE("sums of parts are those of doubles") {
    for_each_fp32_rig([](Rig& rig) {
        for (const int64_t ranks : {1, 2, 5}) {
            const int64_t channels = 300;
            const Array parts = uniform({ranks, 2, channels}, DType::f32, 3, -9, 9);
            Array expected({2, channels});
            for (int64_t i = 0; i < parts.count(); ++i)
                expected[i % (2 * channels)] += parts[i];
            const Tensor sums = rig.rubbish(DType::f32, {2, channels});
            rig.backend.sum_parts(rig.ctx, rig.put_f32(parts), sums);
            CHECK_NEAR(rig.get(sums), expected, tolerance);
        }
    });
}
