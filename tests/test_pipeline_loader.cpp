// Order and contents of batches: the same for any number of workers, whatever is bad, wherever the epoch is entered.
#include <algorithm>
#include <numeric>

#include "loader_support.h"

using namespace rn50;
using namespace rn50::test;

TEST_CASE("pipeline: the order of an epoch is a permutation by seed and epoch") {
    const auto order = epoch_order(1000, 3, 4);
    std::vector<uint32_t> sorted = order;
    std::sort(sorted.begin(), sorted.end());
    std::vector<uint32_t> expected(1000);
    std::iota(expected.begin(), expected.end(), 0u);
    CHECK(sorted == expected);
    CHECK(order == epoch_order(1000, 3, 4));
    CHECK(order != epoch_order(1000, 3, 5));
    CHECK(order != epoch_order(1000, 4, 4));
    CHECK(epoch_order(0, 0, 0).empty());
    // As a few lines of Python give it too; part of the reproducibility contract.
    CHECK(epoch_order(8, 5, 6) == std::vector<uint32_t>{7, 1, 6, 3, 4, 5, 2, 0});
}

TEST_CASE("pipeline: batches are the same for 1, 2 and 7 workers, and are what one thread makes by hand") {
    const Data data(53, {4, 5, 30});
    LoaderOptions options = options_of(8, 1);
    options.max_bad = 0.1;
    std::vector<std::vector<Copy>> epochs;
    for (const int workers : {1, 2, 7}) {
        for (const int slots : {2, 5}) {
            HostMemory memory;
            options.workers = workers;
            options.slots = slots;
            Loader loader(*data.source, options, memory);
            CHECK(loader.workers() == workers);
            CHECK(memory.in_use == loader.memory_bytes());
            CHECK(loader.batches_per_epoch() == 6);
            std::vector<Copy> all;
            for (int64_t epoch = 0; epoch < 3; ++epoch) {
                loader.start_epoch(epoch);
                const std::vector<Copy> batches = rest_of_epoch(loader);
                CHECK(batches.size() == 6);
                CHECK(loader.next() == nullptr);
                all.insert(all.end(), batches.begin(), batches.end());
            }
            CHECK(loader.bad().size() == 3);
            epochs.push_back(all);
        }
    }
    for (const auto& epoch : epochs)
        CHECK(epoch == epochs[0]);

    const std::vector<uint32_t> order = epoch_order(53, 11, 1);
    std::vector<uint8_t> bytes, expected(6 * 6 * 3);
    for (size_t i = 0; i < 48; ++i) {
        const Copy& batch = epochs[0][6 + i / 8];
        // The picture at this place of the order, or the next good one.
        int64_t index = 0;
        Picture picture;
        for (size_t step = 0;; ++step) {
            index = order[(i + step) % 53];
            data.source->read(index, bytes);
            if (bytes[0] != 'P') continue;
            picture = decode(bytes.data(), bytes.size(), "x");
            break;
        }
        REQUIRE(batch.indices[i % 8] == index);
        CHECK(batch.labels[i % 8] == data.source->label(index));
        const AugmentParameters drawn = draw_augment(options.pictures, 8, 8, 11, 1, index);
        render(picture, options.pictures, &drawn, expected.data());
        CHECK(std::equal(expected.begin(), expected.end(),
                         batch.images.begin() + static_cast<std::ptrdiff_t>(i % 8 * 108)));
    }
}

TEST_CASE("pipeline: an epoch entered in its middle goes on as the whole one does") {
    const Data data(40);
    HostMemory memory;
    Loader loader(*data.source, options_of(4, 2), memory);
    loader.start_epoch(7);
    const std::vector<Copy> whole = rest_of_epoch(loader);
    REQUIRE(whole.size() == 10);
    loader.start_epoch(7, 6);
    CHECK(rest_of_epoch(loader) == std::vector<Copy>(whole.begin() + 6, whole.end()));
    loader.start_epoch(7, 10);
    CHECK(loader.next() == nullptr);
    // Left in its middle, with batches in the ring.
    for (int i = 0; i < 20; ++i) {
        loader.start_epoch(i);
        for (int batch = 0; batch < i % 4; ++batch)
            REQUIRE(loader.next() != nullptr);
    }
    loader.start_epoch(7);
    CHECK(rest_of_epoch(loader) == whole);
}

TEST_CASE("pipeline: ranks share each global batch") {
    const Data data(45);
    HostMemory memory;
    const auto batches_of = [&](LoaderOptions options, int rank, int ranks) {
        options.rank = rank;
        options.ranks = ranks;
        Loader loader(*data.source, options, memory);
        loader.start_epoch(2);
        return rest_of_epoch(loader);
    };
    const std::vector<Copy> one = batches_of(options_of(12, 2), 0, 1);
    REQUIRE(one.size() == 3);
    for (int rank = 0; rank < 3; ++rank) {
        const std::vector<Copy> part = batches_of(options_of(4, 2), rank, 3);
        REQUIRE(part.size() == 3);
        for (size_t b = 0; b < 3; ++b) {
            const auto begin = one[b].indices.begin() + rank * 4;
            CHECK(part[b].indices == std::vector<int64_t>(begin, begin + 4));
            const auto image = one[b].images.begin() + rank * 4 * 108;
            CHECK(part[b].images == std::vector<uint8_t>(image, image + 4 * 108));
        }
    }
    // Evaluation sees each picture exactly once, also when the last batch is too short for all ranks.
    for (const int64_t batch_size : {4, 11, 15}) {
        std::vector<int64_t> seen;
        for (int rank = 0; rank < 4; ++rank)
            for (const int64_t index : indices_of(batches_of(evaluation_of(batch_size, 2), rank, 4)))
                seen.push_back(index);
        std::sort(seen.begin(), seen.end());
        std::vector<int64_t> expected(45);
        std::iota(expected.begin(), expected.end(), int64_t{0});
        CHECK(seen == expected);
    }
}

TEST_CASE("pipeline: evaluation leaves bad pictures out and keeps the order") {
    const Data data(20, {0, 2, 4, 6, 8, 13});
    LoaderOptions options = evaluation_of(4, 3);
    options.max_bad = 0.5;
    HostMemory memory;
    Loader loader(*data.source, options, memory);
    loader.start_epoch(0);
    const std::vector<Copy> batches = rest_of_epoch(loader);
    // The source holds class a (the even ones) first: its first five are bad, among them a whole batch.
    CHECK(indices_of(batches) == std::vector<int64_t>{5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 19});
    std::vector<uint8_t> bytes, expected(108);
    for (const Copy& batch : batches) {
        for (size_t i = 0; i < batch.indices.size(); ++i) {
            data.source->read(batch.indices[i], bytes);
            render(decode(bytes.data(), bytes.size(), "x"), options.pictures, nullptr, expected.data());
            CHECK(std::equal(expected.begin(), expected.end(),
                             batch.images.begin() + static_cast<std::ptrdiff_t>(i * 108)));
            CHECK(batch.labels[i] == data.source->label(batch.indices[i]));
        }
    }
    REQUIRE(loader.bad().size() == 6);
    CHECK(loader.bad()[0].index == 0);
    CHECK(contains(loader.bad()[0].name, "a/1000.ppm"));
    CHECK(loader.bad()[0].reason == "the file is a text, not a picture");
}

TEST_CASE("pipeline: too many bad pictures end the epoch with their names") {
    for (const bool training : {true, false}) {
        for (const int workers : {1, 7}) {
            const Data data(50, {20});
            LoaderOptions options = training ? options_of(5, workers) : evaluation_of(5, workers);
            HostMemory memory;
            {
                Loader loader(*data.source, options, memory);  // 1 of 50 is 2%
                loader.start_epoch(0);
                const Error error = error_of([&] {
                    while (loader.next()) {
                    }
                });
                CHECK(error.code() == Exit::data);
                CHECK(contains(error.what(), "a/1020.ppm: the file is a text"));
                CHECK(contains(error.remedy(), "--max-bad"));
            }
            options.max_bad = 0.02;
            Loader loader(*data.source, options, memory);
            loader.start_epoch(0);
            CHECK(rest_of_epoch(loader).size() == 10);
        }
    }
    const Data all_bad(6, {0, 1, 2, 3, 4, 5});
    LoaderOptions options = options_of(2, 2);
    options.max_bad = 1;
    HostMemory memory;
    Loader loader(*all_bad.source, options, memory);
    loader.start_epoch(0);
    CHECK_THROWS_AS(loader.next(), Error);
}

TEST_CASE("pipeline: a defect of ours in a worker surfaces in next()") {
    class Broken : public Source {
      public:
        int64_t size() const override { return 9; }
        int32_t label(int64_t) const override { return 0; }
        std::string name(int64_t) const override { return "x"; }
        void read(int64_t i, std::vector<uint8_t>& bytes) const override {
            if (i == 4) throw std::runtime_error("out of order");
            const std::string text = "P5 1 1 255\nx";
            bytes.assign(text.begin(), text.end());
        }
        const std::vector<std::string>& classes() const override { return classes_; }

      private:
        std::vector<std::string> classes_ = {"a"};
    };
    const Broken source;
    HostMemory memory;
    Loader loader(source, evaluation_of(3, 2), memory);
    loader.start_epoch(0);
    CHECK(loader.next() != nullptr);
    CHECK_THROWS_WITH(loader.next(), "out of order");
}

TEST_CASE("pipeline: an epoch of steps of several batches leaves out the last step that is not whole") {
    const Data data(53, {});
    LoaderOptions options = options_of(4, 1);
    options.ranks = 2;
    options.accumulate = 3;
    HostMemory memory;
    CHECK(Loader(*data.source, options, memory).batches_per_epoch() == 6);
    options.accumulate = 7;
    CHECK_THROWS_WITH_AS(Loader(*data.source, options, memory), doctest::Contains("less than one step of 56"), Error);
}

TEST_CASE("loader: pictures whose changes are left apart become the same by them") {
    const Data data(20, {3});
    LoaderOptions options = options_of(4, 2);
    options.max_bad = 0.1;
    options.pictures.rotate90 = true;
    options.pictures.erasing = 0.5;
    HostMemory memory;
    Loader whole(*data.source, options, memory);
    options.changes_apart = true;
    Loader apart(*data.source, options, memory);
    whole.start_epoch(0);
    apart.start_epoch(0);
    std::vector<uint8_t> scratch;
    int64_t batches = 0, changed = 0;
    while (const Batch* batch = apart.next()) {
        const Batch* const expected = whole.next();
        REQUIRE(expected != nullptr);
        CHECK(!expected->changes);
        REQUIRE(batch->changes.shape == Shape{4 * int64_t{sizeof(pixel::Changes)}});
        CHECK(batch->indices == expected->indices);
        const int64_t bytes = 6 * 6 * 3;
        for (int64_t i = 0; i < batch->count; ++i) {
            const pixel::Changes& changes = static_cast<const pixel::Changes*>(batch->changes.data)[i];
            uint8_t* const picture = batch->images.as<uint8_t>() + i * bytes;
            const std::vector<uint8_t> before(picture, picture + bytes);
            pixel::turn(changes, picture, 6, 3, scratch);
            pixel::jitter(changes, picture, 6, 3);
            pixel::erase(changes, picture, 6, 3);
            const uint8_t* const other = expected->images.as<uint8_t>() + i * bytes;
            CHECK(std::equal(picture, picture + bytes, other));
            changed += !std::equal(before.begin(), before.end(), other);
        }
        ++batches;
    }
    CHECK(whole.next() == nullptr);
    CHECK(batches == 5);
    CHECK(changed > 10);
    options.pictures.blur = 1;
    CHECK_THROWS_AS(Loader(*data.source, options, memory), Error);
}
