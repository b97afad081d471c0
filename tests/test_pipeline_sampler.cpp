// The balanced sampler and class weights.
#include <algorithm>
#include <map>
#include <set>

#include "pipeline/loader.h"
#include "pipeline_support.h"

using namespace rn50;
using namespace rn50::test;

namespace {

/// Class 0 has 50 pictures, 1 none, 2 has 7, 3 has 3.
std::vector<int32_t> uneven_labels() {
    std::vector<int32_t> labels;
    for (int i = 0; i < 60; ++i)
        labels.push_back(i % 6 < 5 ? 0 : i < 42 ? 2 : 3);
    return labels;
}

}  // namespace

TEST_CASE("sampler: every class comes equally often, and none of its pictures twice before all came") {
    std::vector<int32_t> labels = uneven_labels();
    labels.push_back(0);  // 61 draws for 3 classes: one class comes once more
    const BalancedSampler sampler(labels);
    std::map<uint32_t, int64_t> drawn;  // over all epochs
    std::map<int32_t, int64_t> by_class;
    std::set<int32_t> favoured;
    for (int64_t epoch = 0; epoch < 40; ++epoch) {
        const std::vector<Draw> draws = sampler.epoch(7, epoch);
        REQUIRE(draws.size() == labels.size());
        std::map<int32_t, int64_t> now;
        std::map<uint32_t, uint32_t> repeats;
        for (const Draw& draw : draws) {
            ++now[labels[draw.picture]];
            ++by_class[labels[draw.picture]];
            ++drawn[draw.picture];
            repeats[draw.picture] = std::max(repeats[draw.picture], draw.repeat + 1);
        }
        for (const Draw& draw : draws)  // repeats of a picture are numbered without gaps
            REQUIRE(draw.repeat < repeats[draw.picture]);
        for (const auto& [picture, count] : repeats)
            REQUIRE(std::count_if(draws.begin(), draws.end(), [&, p = picture](const Draw& d) {
                        return d.picture == p;
                    }) == static_cast<int64_t>(count));
        for (const auto& [label, count] : now) {
            CHECK((count == 20 || count == 21));
            if (count == 21) favoured.insert(label);
        }
        // Within a class, counts over all epochs so far differ by at most one.
        for (const int32_t label : {0, 2, 3}) {
            int64_t least = 1000000, most = 0;
            for (uint32_t i = 0; i < labels.size(); ++i)
                if (labels[i] == label) {
                    least = std::min(least, drawn[i]);
                    most = std::max(most, drawn[i]);
                }
            CHECK(most - least <= 1);
        }
    }
    for (const auto& [label, count] : by_class)
        CHECK(std::abs(static_cast<double>(count) - 40 * 61 / 3.0) < 1);
    CHECK(favoured.size() == 3);
}

TEST_CASE("sampler: an epoch is a function of seed and epoch") {
    const BalancedSampler sampler(uneven_labels());
    CHECK(sampler.epoch(1, 5) == BalancedSampler(uneven_labels()).epoch(1, 5));
    CHECK_FALSE(sampler.epoch(1, 5) == sampler.epoch(1, 6));
    CHECK_FALSE(sampler.epoch(1, 5) == sampler.epoch(2, 5));
    CHECK(BalancedSampler({}).epoch(0, 0).empty());
    CHECK(BalancedSampler({4, 4}).epoch(0, 0).size() == 2);
    // 100 draws of class 0 lie between these epochs: two rounds of its 50 pictures, in other orders.
    const auto of_class_0 = [&](int64_t epoch) {
        std::set<uint32_t> pictures;
        for (const Draw& draw : sampler.epoch(1, epoch))
            if (uneven_labels()[draw.picture] == 0) pictures.insert(draw.picture);
        return pictures;
    };
    CHECK(of_class_0(0) != of_class_0(5));
    // An even set is gone through once an epoch.
    std::set<uint32_t> all;
    for (const Draw& draw : BalancedSampler({0, 1, 0, 1}).epoch(3, 9))
        all.insert(draw.picture);
    CHECK(all.size() == 4);
}

TEST_CASE("sampler: class weights are scikit-learn's balanced ones") {
    // sklearn.utils.class_weight.compute_class_weight("balanced", classes=[0, 1, 2], y=[0] * 6 + [1] * 3 + [2])
    const std::vector<float> weights = balanced_class_weights({6, 3, 1});
    CHECK(weights[0] == doctest::Approx(0.55555556));
    CHECK(weights[1] == doctest::Approx(1.11111111));
    CHECK(weights[2] == doctest::Approx(3.33333333));
    CHECK(balanced_class_weights({5, 0, 5}) == std::vector<float>{1, 1, 1});
}

TEST_CASE("sampler: the loader follows it for any ranks, and repeated pictures are augmented anew") {
    TempFolder folder;
    for (int i = 0; i < 14; ++i)
        folder.write_picture(cat("a/", 100 + i, ".ppm"), i);
    for (int i = 0; i < 2; ++i)
        folder.write_picture(cat("b/", i, ".ppm"), 50 + i);
    const auto source = make_folder_source(folder.path());
    LoaderOptions options;
    options.seed = 11;
    options.shuffle = options.drop_last = options.replace_bad = options.balanced = true;
    options.pictures.image_size = 6;
    options.pictures.augment = Augment::crop;
    std::vector<int32_t> labels;
    for (int64_t i = 0; i < source->size(); ++i)
        labels.push_back(source->label(i));
    const std::vector<Draw> expected = BalancedSampler(labels).epoch(11, 3);
    std::vector<int64_t> whole(16, -1);
    for (const int ranks : {1, 2})
        for (int rank = 0; rank < ranks; ++rank) {
            options.ranks = ranks;
            options.rank = rank;
            options.batch_size = 8 / ranks;
            HostMemory memory;
            Loader loader(*source, options, memory);
            loader.start_epoch(3);
            std::map<int64_t, std::set<std::vector<uint8_t>>> seen;
            std::map<int64_t, size_t> times;
            for (int64_t b = 0; const Batch* batch = loader.next(); ++b)
                for (int64_t i = 0; i < batch->count; ++i) {
                    const auto position = static_cast<size_t>(b * 8 + rank * options.batch_size + i);
                    CHECK(batch->indices[static_cast<size_t>(i)] == expected[position].picture);
                    const uint8_t* pixels = batch->images.as<uint8_t>() + i * 108;
                    seen[batch->indices[static_cast<size_t>(i)]].insert({pixels, pixels + 108});
                    ++times[batch->indices[static_cast<size_t>(i)]];
                }
            for (const auto& [index, pictures] : seen)
                CHECK(pictures.size() == times[index]);
        }
}
