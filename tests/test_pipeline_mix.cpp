// mixup and CutMix: their random numbers beside SciPy's quantiles, their pixels and labels beside a naive version.
#include <algorithm>
#include <cmath>

#include "pipeline/loader.h"
#include "pipeline_support.h"

using namespace rn50;
using namespace rn50::test;

namespace {

Random random_of(uint64_t sample) {
    return Random(5, 1, sample, Purpose::mix);
}

}  // namespace

TEST_CASE("mix: Beta(alpha, alpha) has SciPy's quantiles") {
    // scipy.stats.beta(alpha, alpha).ppf([.05, .25, .4, .5, .75, .95]), SciPy 1.17
    struct Case {
        double alpha, values[6];
    };
    const Case cases[] = {
        {0.05, {9.2619e-21, 8.8328e-07, 0.010576, 0.5, 1.0, 1.0}},
        {0.2, {7.7439e-06, 0.023815, 0.21634, 0.5, 0.97619, 0.99999}},
        {0.4, {0.0020752, 0.1105, 0.32095, 0.5, 0.8895, 0.99792}},
        {1, {0.05, 0.25, 0.4, 0.5, 0.75, 0.95}},
        {2, {0.13535, 0.32635, 0.43293, 0.5, 0.67365, 0.86465}},
        {5, {0.25137, 0.39196, 0.459, 0.5, 0.60804, 0.74863}},
        {30, {0.39458, 0.45636, 0.48358, 0.5, 0.54364, 0.60542}},
    };
    const double levels[6] = {0.05, 0.25, 0.4, 0.5, 0.75, 0.95};
    const int n = 60000;
    for (const Case& c : cases) {
        CAPTURE(c.alpha);
        std::vector<double> values;
        for (int i = 0; i < n; ++i) {
            Random random = random_of(static_cast<uint64_t>(i));
            values.push_back(symmetric_beta(c.alpha, random));
            REQUIRE((values.back() >= 0 && values.back() <= 1));
        }
        // The share of draws below each quantile; four deviations of it.
        for (int q = 0; q < 6; ++q) {
            if (c.values[q] == 1.0) continue;
            const auto below = std::count_if(values.begin(), values.end(), [&](double v) { return v < c.values[q]; });
            CHECK(std::abs(static_cast<double>(below) / n - levels[q]) <
                  4 * std::sqrt(levels[q] * (1 - levels[q]) / n) + 1e-4);
        }
    }
}

TEST_CASE("mix: a draw is a function of seed, epoch and batch, and both kinds come as often") {
    const MixOptions both{0.4, 1};
    const auto text = [&](uint64_t seed, int64_t epoch, int64_t batch) {
        const Mix mix = draw_mix(both, 64, seed, epoch, batch);
        return cat(mix.share, " ", mix.cut, " ", mix.x0, " ", mix.y0, " ", mix.x1, " ", mix.y1);
    };
    CHECK(text(1, 2, 3) == text(1, 2, 3));
    CHECK(text(1, 2, 3) != text(2, 2, 3));
    CHECK(text(1, 2, 3) != text(1, 3, 3));
    CHECK(text(1, 2, 3) != text(1, 2, 4));
    int cut = 0;
    double area = 0;
    for (int64_t batch = 0; batch < 4000; ++batch) {
        const Mix mix = draw_mix(both, 64, 9, 0, batch);
        CHECK_FALSE(draw_mix({0.4, 0}, 64, 9, 0, batch).cut);
        CHECK(draw_mix({0, 1}, 64, 9, 0, batch).cut);
        if (!mix.cut) continue;
        ++cut;
        REQUIRE((mix.x0 >= 0 && mix.y0 >= 0 && mix.x1 <= 64 && mix.y1 <= 64 && mix.x0 <= mix.x1 && mix.y0 <= mix.y1));
        const double share = 1 - static_cast<double>((mix.x1 - mix.x0) * (mix.y1 - mix.y0)) / 4096;
        CHECK(mix.share == std::lround(share * 65536));
        area += 1 - share;
    }
    CHECK(cut / 4000.0 == doctest::Approx(0.5).epsilon(0.05));
    // 20,000 draws of torchvision 0.29's CutMix(alpha=1).make_params at 64 pixels have a mean area of 0.3096.
    CHECK(area / cut == doctest::Approx(0.3096).epsilon(0.05));
    CHECK(draw_mix({}, 64, 9, 0, 0).share == Mix::whole);
}

TEST_CASE("mix: pictures and labels are torchvision's, with the batch rolled by one") {
    const int64_t count = 5, size = 8;
    for (const int channels : {1, 3})
        for (const bool cut : {false, true}) {
            const int64_t bytes = size * size * channels;
            std::vector<uint8_t> before, scratch;
            for (int64_t i = 0; i < count * bytes; ++i)
                before.push_back(static_cast<uint8_t>(i * 37 + i / 7));
            const std::vector<int32_t> labels{4, 2, 9, 9, 0};
            std::vector<int32_t> partners(5, -1);
            Mix mix;
            mix.cut = cut;
            mix.share = 45001;
            if (cut) mix.y0 = 2, mix.x0 = 3, mix.y1 = 7, mix.x1 = 8;
            std::vector<uint8_t> got = before;
            apply_mix(mix, got.data(), count, size, channels, labels.data(), partners.data(), scratch);
            CHECK(partners == std::vector<int32_t>{0, 4, 2, 9, 9});
            const double share = 45001 / 65536.0;
            for (int64_t i = 0; i < count; ++i)
                for (int64_t k = 0; k < bytes; ++k) {
                    const double own = before[static_cast<size_t>(i * bytes + k)];
                    const double other = before[static_cast<size_t>((i + count - 1) % count * bytes + k)];
                    const int64_t y = k / channels / size, x = k / channels % size;
                    const bool inside = y >= 2 && y < 7 && x >= 3;
                    const double expected = cut ? (inside ? other : own) : share * own + (1 - share) * other;
                    REQUIRE(std::abs(got[static_cast<size_t>(i * bytes + k)] - expected) <= 0.5);
                }
        }
    // A batch of one is its own partner.
    std::vector<uint8_t> one(64, 9), scratch;
    const int32_t label = 3;
    int32_t partner = -1;
    Mix mix;
    mix.share = 100;
    apply_mix(mix, one.data(), 1, 8, 1, &label, &partner, scratch);
    CHECK(partner == 3);
    CHECK(std::count(one.begin(), one.end(), 9) == 64);
}

TEST_CASE("mix: the loader's batches are mixed alike for any number of workers, and from any batch on") {
    TempFolder folder;
    for (int i = 0; i < 20; ++i)
        folder.write_picture(cat(i % 2 ? "a/" : "b/", 100 + i, ".ppm"), i);
    const auto source = make_folder_source(folder.path());
    LoaderOptions options;
    options.batch_size = 4;
    options.seed = 3;
    options.shuffle = options.drop_last = options.replace_bad = true;
    options.pictures.image_size = 6;
    options.pictures.augment = Augment::crop;
    options.slots = 2;
    const auto plain = options;
    options.mix = {0.4, 1};
    struct Seen {
        std::vector<uint8_t> images;
        std::vector<int32_t> labels, partners;
        float share;
    };
    const auto load = [&](const LoaderOptions& how, int workers, int64_t from) {
        LoaderOptions with = how;
        with.workers = workers;
        HostMemory memory;
        Loader loader(*source, with, memory);
        std::vector<Seen> all;
        for (int64_t epoch = 0; epoch < 2; ++epoch) {
            loader.start_epoch(epoch, from);
            while (const Batch* batch = loader.next()) {
                const uint8_t* images = batch->images.as<uint8_t>();
                const int32_t* labels = batch->labels.as<int32_t>();
                Seen seen{{images, images + batch->images.count()}, {labels, labels + batch->count}, {}, batch->share};
                CHECK(static_cast<bool>(batch->partners) == static_cast<bool>(how.mix));
                if (batch->partners)
                    seen.partners.assign(batch->partners.as<int32_t>(), batch->partners.as<int32_t>() + batch->count);
                all.push_back(seen);
            }
        }
        return all;
    };
    std::vector<Seen> expected = load(plain, 1, 0);
    REQUIRE(expected.size() == 10);
    std::vector<uint8_t> scratch;
    // Ranks draw the same, and each mixes within its part of the batch.
    for (const int rank : {0, 1}) {
        LoaderOptions part = options;
        part.batch_size = 2;
        part.rank = rank;
        part.ranks = 2;
        const std::vector<Seen> got = load(part, 2, 0);
        REQUIRE(got.size() == expected.size());
        for (size_t i = 0; i < expected.size(); ++i) {
            const Mix mix = draw_mix(options.mix, 6, 3, static_cast<int64_t>(i / 5), static_cast<int64_t>(i % 5));
            const auto half = static_cast<ptrdiff_t>(expected[i].images.size() / 2);
            const auto from = expected[i].images.begin() + rank * half;
            std::vector<uint8_t> images(from, from + half);
            const int32_t* const labels = expected[i].labels.data() + 2 * rank;
            std::vector<int32_t> partners(2);
            apply_mix(mix, images.data(), 2, 6, 3, labels, partners.data(), scratch);
            CHECK(got[i].images == images);
            CHECK(got[i].partners == partners);
            CHECK(partners == std::vector<int32_t>{labels[1], labels[0]});
            CHECK(got[i].share == static_cast<float>(mix.share) / 65536);
        }
    }
    for (size_t i = 0; i < expected.size(); ++i) {
        Seen& seen = expected[i];
        const Mix mix = draw_mix(options.mix, 6, 3, static_cast<int64_t>(i / 5), static_cast<int64_t>(i % 5));
        seen.partners.resize(4);
        apply_mix(mix, seen.images.data(), 4, 6, 3, seen.labels.data(), seen.partners.data(), scratch);
        seen.share = static_cast<float>(mix.share) / 65536;
    }
    for (const int workers : {1, 2, 5})
        for (const int64_t from : {0, 3}) {
            const std::vector<Seen> got = load(options, workers, from);
            REQUIRE(got.size() == static_cast<size_t>(2 * (5 - from)));
            for (size_t i = 0; i < got.size(); ++i) {
                const size_t left = static_cast<size_t>(5 - from);
                const Seen& e = expected[i / left * 5 + static_cast<size_t>(from) + i % left];
                CHECK((got[i].images == e.images && got[i].labels == e.labels && got[i].partners == e.partners &&
                       got[i].share == e.share));
            }
        }
    options.replace_bad = false;
    HostMemory memory;
    CHECK_THROWS_AS(Loader(*source, options, memory), Error);
}
