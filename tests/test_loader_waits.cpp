// What cannot be read: waited for as long as it may come back, told apart from what is bad, and asked for in time.
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <mutex>
#include <thread>

#include "base/files.h"
#include "loader_support.h"

using namespace rn50;
using namespace rn50::test;

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
