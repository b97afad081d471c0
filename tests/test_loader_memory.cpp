// The loader's ring, workers and cache: what they hold, how far they run ahead, and that they leave nothing behind.
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "loader_support.h"
#include "pipeline/encode.h"

using namespace rn50;
using namespace rn50::test;

namespace {

/// Of each thread that loads, as far as they have begun.
std::vector<int> priorities_of_workers() {
    std::vector<int> found;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
        std::string name;
        std::getline(std::ifstream(task.path() / "comm"), name);
        if (name == "rn50-loader")
            found.push_back(getpriority(PRIO_PROCESS, static_cast<id_t>(std::stoi(task.path().filename()))));
    }
    return found;
}

}  // namespace

TEST_CASE("pipeline: a loader may be left at any moment and gives its memory back") {
    const Data data(30);
    HostMemory memory;
    for (int i = 0; i < 10; ++i) {
        Loader loader(*data.source, options_of(5, 1 + i % 4), memory);
        if (i > 0) loader.start_epoch(i);
        if (i > 3) CHECK(loader.next() != nullptr);
        if (i > 6) {
            loader.stop();
            CHECK(loader.next() == nullptr);
        }
    }
    CHECK(memory.in_use == 0);
    const Error error = error_of([&] { Loader loader(*data.source, options_of(31, 1), memory); });
    CHECK(error.code() == Exit::data);
    CHECK(contains(error.remedy(), "--batch-size 30"));
    CHECK(memory.in_use == 0);
}

TEST_CASE("pipeline: a cache of decoded pictures changes nothing but where they come from") {
    TempFolder folder;
    std::vector<Sample> samples;
    for (int i = 0; i < 24; ++i) {
        folder.write_picture(cat(i, ".ppm"), i);
        samples.push_back({folder.path(cat(i, ".ppm")), i % 3});
    }
    const auto source = make_list_source(samples, {"a", "b", "c"});
    LoaderOptions options;
    options.batch_size = 5;
    options.shuffle = options.drop_last = true;
    options.pictures.image_size = 6;
    options.pictures.augment = Augment::crop;
    HostMemory memory;
    Loader plain(*source, options, memory);
    for (const int64_t capacity : {0, 3 * 192, 24 * 192 - 1, 100000}) {
        CAPTURE(capacity);
        PictureCache cache(capacity);
        options.cache = &cache;
        options.workers = 3;
        Loader cached(*source, options, memory);
        for (int64_t epoch = 0; epoch < 3; ++epoch) {
            plain.start_epoch(epoch);
            cached.start_epoch(epoch);
            CHECK(rest_of_epoch(cached) == rest_of_epoch(plain));
        }
        CHECK(cache.bytes() <= capacity);
        CHECK(cache.pictures() == std::min<int64_t>(capacity / 192, 24));
        CHECK(cached.pictures_per_worker_s() > 0);
    }
    // Once all are kept, the files are not read again.
    PictureCache cache(100000);
    options.cache = &cache;
    Loader cached(*source, options, memory);
    for (int64_t epoch = 0; cache.pictures() < 24; ++epoch) {
        cached.start_epoch(epoch);
        rest_of_epoch(cached);
    }
    for (const Sample& sample : samples)
        std::filesystem::remove(sample.path);
    cached.start_epoch(9);
    CHECK(rest_of_epoch(cached).size() == 4);
    CHECK(cached.bad().empty());
}

TEST_CASE("pipeline: workers run ahead into the ring, no further, and waiting is counted") {
    class Slow : public Source {
      public:
        int64_t size() const override { return 12; }
        int32_t label(int64_t) const override { return 0; }
        std::string name(int64_t) const override { return "x"; }
        void read(int64_t i, std::vector<uint8_t>& bytes) const override {
            if (i == 0) std::this_thread::sleep_for(std::chrono::milliseconds(30));
            ++reads;
            const std::string text = "P5 1 1 255\nx";
            bytes.assign(text.begin(), text.end());
        }
        const std::vector<std::string>& classes() const override { return classes_; }
        mutable std::atomic<int> reads{0};

      private:
        std::vector<std::string> classes_ = {"a"};
    };
    const Slow source;
    LoaderOptions options = evaluation_of(2, 2);
    options.slots = 2;
    HostMemory memory;
    Loader loader(source, options, memory);
    loader.start_epoch(0);
    REQUIRE(loader.next() != nullptr);
    CHECK(loader.wait_seconds() > 0.02);
    for (int i = 0; i < 1000 && source.reads < 4; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    CHECK(source.reads == 4);  // two slots of two
    loader.start_epoch(1);
    CHECK(loader.wait_seconds() == 0);
}

TEST_CASE("workers give way to a net on the same cores, and to nothing else") {
    const Data data(20);
    const int mine = getpriority(PRIO_PROCESS, 0);
    for (const bool give_way : {false, true}) {
        LoaderOptions options = options_of(4, 2);
        options.give_way = give_way;
        HostMemory memory;
        Loader loader(*data.source, options, memory);
        loader.start_epoch(0);
        while (priorities_of_workers().size() < 2)
            std::this_thread::yield();
        for (const int priority : priorities_of_workers())
            CHECK(priority == std::min(19, mine + (give_way ? 10 : 0)));
        loader.stop();
    }
}

TEST_CASE("loader: ready() tells that next() will not block") {
    const Data data(12);
    HostMemory memory;
    Loader loader(*data.source, options_of(3, 2), memory);
    CHECK(!loader.ready());  // no epoch yet
    loader.start_epoch(0);
    for (int batch = 0; batch < 4; ++batch) {
        while (!loader.ready())
            std::this_thread::yield();
        const double waited = loader.wait_seconds();
        REQUIRE(loader.next() != nullptr);
        CHECK(loader.wait_seconds() - waited < 0.05);
    }
    CHECK(!loader.ready());  // the end of the epoch
    CHECK(loader.next() == nullptr);
}

TEST_CASE("a ring for training holds 256 MB, but 4 to 16 batches") {
    CHECK(ring_slots(64 * 224 * 224 * 3) == 16);    // 9.6 MB: 26 would fit
    CHECK(ring_slots(256 * 224 * 224 * 3) == 6);    // 38.5 MB
    CHECK(ring_slots(256 * 1024 * 1024 * 3) == 4);  // 805 MB
    CHECK(ring_slots(1) == 16);
}

TEST_CASE("a worker keeps no more than its bound of buffers, and what it takes is estimated from some pictures") {
    const TempFolder folder;
    constexpr int64_t side = 5000;  // 75 MB as RGB
    std::string large = cat("P6 ", side, " ", side, " 255\n");
    large.resize(large.size() + static_cast<size_t>(side * side * 3), 'x');
    folder.write("a/1.ppm", large);
    folder.write_picture("a/2.ppm", 2);
    folder.write("a/3.ppm", std::string("not a picture"));
    const auto source = make_folder_source(folder.path());
    PictureOptions options;
    options.image_size = 32;
    options.augment = Augment::none;
    std::vector<uint8_t> dst(32 * 32 * 3);
    SampleMaker maker;
    const auto make = [&](int64_t index) { maker.make(*source, index, options, {}, nullptr, dst.data()); };
    make(1);
    const int64_t small = maker.kept_bytes();
    CHECK(small > 0);
    CHECK(small < 10'000);
    make(0);
    CHECK(maker.kept_bytes() <= SampleMaker::most_kept);
    const std::vector<uint8_t> whole = dst;
    make(1);
    CHECK(maker.kept_bytes() <= small);
    make(0);
    CHECK(dst == whole);

    // The file and its pixels at least; eight times them at most.
    const int64_t estimate = estimated_buffers(*source, options, false);
    CHECK(estimate >= 2 * side * side * 3);
    CHECK(estimate <= 8 * side * side * 3);
    const auto small_ones = make_subset_source(make_folder_source(folder.path()), {1, 2});
    CHECK(estimated_buffers(*small_ones, options, false) < 10'000);
}

TEST_CASE("what a worker takes of a JPEG: its crop in training, all of it in evaluation and for a cache") {
    const TempFolder folder;
    Picture picture;
    picture.height = picture.width = 1200;
    picture.rgb.assign(1200 * 1200 * 3, 100);
    std::vector<uint8_t> jpeg;
    encode_jpeg(picture, 90, jpeg);
    folder.write("a/1.jpg", jpeg);
    const auto source = make_folder_source(folder.path());
    PictureOptions options;
    options.image_size = 100;
    options.augment = Augment::none;
    const int64_t whole = estimated_buffers(*source, options, false);
    CHECK(whole >= 1200 * 1200 * 3);
    options.augment = Augment::crop;
    CHECK(estimated_buffers(*source, options, false) < 1200 * 1200 * 3 / 4);
    CHECK(estimated_buffers(*source, options, true) == whole);
    options.decode = Decode::whole;
    CHECK(estimated_buffers(*source, options, false) == whole);
}
