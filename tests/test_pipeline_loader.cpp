// Order and contents of batches: the same for any number of workers, whatever is bad, wherever the epoch is entered.
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <mutex>
#include <numeric>
#include <thread>

#include "base/files.h"
#include "pipeline/encode.h"
#include "pipeline/loader.h"
#include "pipeline_support.h"

using namespace rn50;
using namespace rn50::test;

namespace {

/// Pictures in two classes, 8 x 8; the bad ones are a text instead.
class Data {
  public:
    explicit Data(int count, const std::vector<int>& bad = {}) {
        for (int i = 0; i < count; ++i) {
            const std::string name = cat(i % 2 ? "b" : "a", "/", 1000 + i, ".ppm");
            if (std::find(bad.begin(), bad.end(), i) != bad.end())
                folder_.write(name, std::string("not a picture"));
            else
                folder_.write_picture(name, i);
        }
        source = make_folder_source(folder_.path());
    }
    std::unique_ptr<Source> source;

  private:
    TempFolder folder_;
};

LoaderOptions options_of(int64_t batch_size, int workers) {
    LoaderOptions options;
    options.batch_size = batch_size;
    options.workers = workers;
    options.seed = 11;
    options.shuffle = true;
    options.drop_last = true;
    options.replace_bad = true;
    options.pictures.image_size = 6;
    options.pictures.augment = Augment::crop;
    options.pictures.jitter_contrast = 0.3f;
    return options;
}

LoaderOptions evaluation_of(int64_t batch_size, int workers) {
    LoaderOptions options = options_of(batch_size, workers);
    options.shuffle = options.drop_last = options.replace_bad = false;
    options.pictures.augment = Augment::none;
    return options;
}

/// All that a batch holds, copied.
struct Copy {
    std::vector<uint8_t> images;
    std::vector<int32_t> labels;
    std::vector<int64_t> indices;
    bool operator==(const Copy& other) const {
        return images == other.images && labels == other.labels && indices == other.indices;
    }
};

std::vector<Copy> rest_of_epoch(Loader& loader) {
    std::vector<Copy> copies;
    while (const Batch* batch = loader.next()) {
        REQUIRE(batch->images.shape == Shape{batch->count, 6, 6, 3});
        REQUIRE(batch->labels.shape == Shape{batch->count});
        REQUIRE(static_cast<int64_t>(batch->indices.size()) == batch->count);
        const uint8_t* images = batch->images.as<uint8_t>();
        const int32_t* labels = batch->labels.as<int32_t>();
        copies.push_back({{images, images + batch->images.count()}, {labels, labels + batch->count}, batch->indices});
    }
    return copies;
}

std::vector<int64_t> indices_of(const std::vector<Copy>& batches) {
    std::vector<int64_t> all;
    for (const Copy& batch : batches)
        all.insert(all.end(), batch.indices.begin(), batch.indices.end());
    return all;
}

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

namespace {

/// Pictures of which number 4 cannot be read so many times.
class Failing : public Source {
  public:
    Failing(int64_t failures, bool gone) : gone_(gone), left_(failures) {}
    int64_t size() const override { return 40; }
    int32_t label(int64_t) const override { return 0; }
    std::string name(int64_t i) const override { return cat("p", i); }
    void read(int64_t i, std::vector<uint8_t>& bytes) const override {
        if (i == 4 && left_-- > 0) throw ReadError("p4: cannot be read: Input/output error", EIO, gone_);
        const std::string text = "P5 1 1 255\n";
        bytes.assign(text.begin(), text.end());
        bytes.push_back(static_cast<uint8_t>(i));
    }
    const std::vector<std::string>& classes() const override { return classes_; }

  private:
    const bool gone_;
    mutable std::atomic<int64_t> left_;
    std::vector<std::string> classes_ = {"a"};
};

}  // namespace

TEST_CASE("pipeline: what cannot be read for a moment is waited for, and is in its place") {
    for (const LoaderOptions& options : {options_of(5, 2), evaluation_of(5, 2)}) {
        const Failing failing(3, false), sound(0, false);
        HostMemory memory;
        Loader waits(failing, options, memory), reference(sound, options, memory);
        waits.start_epoch(0);
        reference.start_epoch(0);
        CHECK(rest_of_epoch(waits) == rest_of_epoch(reference));
        CHECK(waits.bad().empty());
    }
}

TEST_CASE("pipeline: what cannot be read for long ends the epoch, and counts as no bad picture") {
    const Failing failing(INT64_MAX, false);
    LoaderOptions options = evaluation_of(4, 2);
    options.read_patience_s = 0.3;
    options.replace_bad = true;
    HostMemory memory;
    Loader loader(failing, options, memory);
    loader.start_epoch(0);
    CHECK(loader.wait_for_next() == "");
    CHECK(loader.next() != nullptr);
    CHECK(loader.wait_for_next() == "p4: cannot be read: Input/output error");
    CHECK_THROWS_AS(loader.next(), ReadError);
    CHECK(loader.bad().empty());
    loader.start_epoch(1, 9);
    CHECK(loader.next() != nullptr);
    CHECK(loader.wait_for_next() == "");
    CHECK(loader.next() == nullptr);
}

TEST_CASE("pipeline: a batch of which nothing can be read is waited for once, not for each picture") {
    const Data data(40);
    LoaderOptions options = evaluation_of(20, 1);
    options.read_patience_s = 0.5;
    HostMemory memory;
    Loader loader(*data.source, options, memory);
    const std::string root = std::filesystem::path(data.source->name(0)).parent_path().parent_path().string();
    std::filesystem::rename(root, root + "_away");
    const auto begin = std::chrono::steady_clock::now();
    loader.start_epoch(0);
    CHECK_THROWS_AS(loader.next(), ReadError);
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(5));
    std::filesystem::rename(root + "_away", root);
    loader.start_epoch(0);
    CHECK(rest_of_epoch(loader).size() == 2);
}

TEST_CASE("pipeline: a file that is gone from its folder is a bad picture, a folder that is gone is none") {
    const Failing failing(INT64_MAX, true);
    HostMemory memory;
    LoaderOptions options = options_of(5, 2);
    options.max_bad = 0.1;
    options.read_patience_s = 100;
    Loader loader(failing, options, memory);
    loader.start_epoch(0);
    CHECK(rest_of_epoch(loader).size() == 8);
    REQUIRE(loader.bad().size() == 1);
    CHECK(loader.bad()[0].name == "p4");

    const Data data(20);
    options.read_patience_s = 0.3;
    Loader of_files(*data.source, options, memory);
    std::filesystem::remove(data.source->name(3));
    of_files.start_epoch(0);
    CHECK(rest_of_epoch(of_files).size() == 4);
    REQUIRE(of_files.bad().size() == 1);
    CHECK(contains(of_files.bad()[0].reason, "No such file"));
    const std::string folder = std::filesystem::path(data.source->name(0)).parent_path().string();
    std::filesystem::rename(folder, folder + "_away");
    of_files.start_epoch(1);
    CHECK_THROWS_AS(rest_of_epoch(of_files), ReadError);
    CHECK(of_files.bad().size() == 1);
}

TEST_CASE("pipeline: a loader that waits for a disk can be left at once") {
    const Failing failing(INT64_MAX, false);
    HostMemory memory;
    LoaderOptions options = evaluation_of(4, 2);
    options.read_patience_s = 1000;
    const auto begin = std::chrono::steady_clock::now();
    {
        Loader loader(failing, options, memory);
        for (int64_t epoch = 0; epoch < 2; ++epoch) {
            loader.start_epoch(epoch);
            CHECK(loader.next() != nullptr);
            std::this_thread::sleep_for(std::chrono::milliseconds(300));  // into the pauses
        }
    }
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(20));
}

TEST_CASE("pipeline: pictures are asked for before they are read, each once, those of other ranks never") {
    class Watched : public Source {
      public:
        int64_t size() const override { return 40; }
        int32_t label(int64_t) const override { return 0; }
        std::string name(int64_t) const override { return "x"; }
        void read(int64_t i, std::vector<uint8_t>& bytes) const override {
            const std::string text = "P5 1 1 255\nx";
            bytes.assign(text.begin(), text.end());
            note(i);
        }
        void prefetch(int64_t i) const override { note(~i); }
        const std::vector<std::string>& classes() const override { return classes_; }
        mutable std::vector<int64_t> seen;  ///< i for a read, ~i for a prefetch

      private:
        void note(int64_t what) const {
            const std::lock_guard<std::mutex> lock(mutex_);
            seen.push_back(what);
        }
        std::vector<std::string> classes_ = {"a"};
        mutable std::mutex mutex_;
    };
    const Watched source;
    LoaderOptions options = evaluation_of(5, 1);
    options.ranks = 2;
    options.rank = 1;
    HostMemory memory;
    Loader loader(source, options, memory);
    loader.start_epoch(0);
    rest_of_epoch(loader);
    loader.stop();
    std::vector<int64_t> asked, read;
    for (size_t at = 0; at < source.seen.size(); ++at) {
        const int64_t what = source.seen[at];
        (what < 0 ? asked : read).push_back(what < 0 ? ~what : what);
        if (what < 0) CHECK(std::find(read.begin(), read.end(), ~what) == read.end());
    }
    REQUIRE(read.size() == 20);
    CHECK(asked == std::vector<int64_t>(read.begin() + 4, read.end()));
}

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
