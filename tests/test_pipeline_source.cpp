// Folders of pictures: order, layouts, and what is said when something is missing.
#include <sys/stat.h>

#include <set>

#include "base/files.h"
#include "pipeline/source.h"
#include "pipeline_support.h"

using namespace rn50;
using namespace rn50::test;

namespace {

/// Files with any content: a source does not decode.
void write_class(const TempFolder& folder, const std::string& name, int count) {
    for (int i = 0; i < count; ++i)
        folder.write(cat(name, "/", 100 + i, ".jpg"), cat(name, i));
}

std::string message_of(const TempFolder& folder, double val_split = 0) {
    const Error error = error_of([&] { open_data(folder.path(), {val_split, 0, 0}); });
    CHECK(error.code() == Exit::data);
    CHECK_FALSE(error.remedy().empty());
    return cat(error.what(), " / ", error.remedy());
}

}  // namespace

TEST_CASE("pipeline: a folder source sorts classes and pictures as bytes and reads them") {
    const TempFolder folder;
    for (const char* name : {"b/2.PNG", "b/10.jpg", "b/deep/er/x.jpeg", "B/1.bmp", "a b/1.tga", "a b/.hidden.jpg",
                             "a b/notes.txt", ".git/1.jpg"})
        folder.write(name, std::string("content of ") + name);
    folder.write("stray.jpg", std::string("beside the class folders"));
    std::filesystem::create_directory_symlink(folder.path("b"), folder.path("link"));
    std::filesystem::create_directory_symlink(folder.path("b"), folder.path("b/loop"));
    std::vector<std::string> warnings;
    const auto source = make_folder_source(folder.path(), nullptr, &warnings);
    CHECK(source->classes() == std::vector<std::string>{"B", "a b", "b", "link"});
    REQUIRE(source->size() == 8);
    std::vector<std::string> names;
    for (int64_t i = 0; i < source->size(); ++i)
        names.push_back(source->name(i).substr(folder.path().size() + 1));
    CHECK(names == std::vector<std::string>{"B/1.bmp", "a b/1.tga", "b/10.jpg", "b/2.PNG", "b/deep/er/x.jpeg",
                                            "link/10.jpg", "link/2.PNG", "link/deep/er/x.jpeg"});
    CHECK(source->label(0) == 0);
    CHECK(source->label(1) == 1);
    CHECK(source->label(4) == 2);
    std::vector<uint8_t> bytes(1000, 9);
    source->read(3, bytes);
    CHECK(std::string(bytes.begin(), bytes.end()) == "content of b/2.PNG");
    REQUIRE(warnings.size() == 1);
    CHECK(contains(warnings[0], "1 .txt"));
}

TEST_CASE("pipeline: a picture that cannot be read says so by name") {
    const TempFolder folder;
    write_class(folder, "a", 3);
    mkfifo(folder.path("a/pipe.jpg").c_str(), 0600);
    std::filesystem::create_symlink("nowhere", folder.path("a/dangling.jpg"));
    const auto source = make_folder_source(folder.path());
    REQUIRE(source->size() == 4);  // the pipe is no file, the dangling link may be one
    std::filesystem::remove(folder.path("a/101.jpg"));
    std::vector<uint8_t> bytes;
    for (int64_t i = 0; i < source->size(); ++i) {
        const std::string name = source->name(i);
        CAPTURE(name);
        if (contains(name, "101") || contains(name, "dangling")) {
            const Error error = error_of([&] { source->read(i, bytes); });
            CHECK(error.code() == Exit::data);
            CHECK(std::string(error.what()).rfind(name + ": ", 0) == 0);
        } else {
            CHECK_NOTHROW(source->read(i, bytes));
        }
    }
}

TEST_CASE("pipeline: a file of more than a gigabyte is refused by name, not read") {
    const TempFolder folder;
    write_class(folder, "a", 1);
    std::ofstream(folder.path("a/huge.jpg")).close();
    std::filesystem::resize_file(folder.path("a/huge.jpg"), int64_t{1} << 36);  // sparse
    const auto source = make_folder_source(folder.path());
    std::vector<uint8_t> bytes;
    const Error error = error_of([&] { source->read(1, bytes); });
    CHECK(error.what() == folder.path("a/huge.jpg") + ": larger than a gigabyte");
    CHECK_NOTHROW(source->read(0, bytes));
}

TEST_CASE("pipeline: a file that was asked for ahead is opened once") {
    const TempFolder folder;
    write_class(folder, "a", 2);
    const auto source = make_folder_source(folder.path());
    std::vector<uint8_t> bytes;
    source->prefetch(0);
    std::filesystem::remove(source->name(0));
    CHECK_NOTHROW(source->read(0, bytes));
    CHECK(bytes.size() > 0);
    CHECK_THROWS_AS(source->read(0, bytes), ReadError);  // what was opened ahead is read once
    const int64_t many = 2000;                           // an epoch that is left over and over: no end of open files
    for (int64_t i = 0; i < many; ++i)
        source->prefetch(1);
    CHECK(take_open_place());
    give_back_open_places(1);
}

TEST_CASE("pipeline: a fingerprint tells names, labels and their order apart, wherever the pictures lie") {
    const TempFolder folder;
    for (const char* root : {"one", "two"})
        for (const char* name : {"a/1.ppm", "a/2.ppm", "b/1.ppm"})
            folder.write_picture(cat(root, "/", name), 1);
    const uint32_t one = fingerprint_of(*make_folder_source(folder.path("one")));
    CHECK(one == fingerprint_of(*make_folder_source(folder.path("two"))));
    const auto moved = [&](const char* from, const char* to) {
        std::filesystem::rename(folder.path(cat("two/", from)), folder.path(cat("two/", to)));
        const uint32_t now = fingerprint_of(*make_folder_source(folder.path("two")));
        std::filesystem::rename(folder.path(cat("two/", to)), folder.path(cat("two/", from)));
        return now;
    };
    CHECK(one != moved("a/2.ppm", "a/3.ppm"));
    CHECK(one != moved("a/2.ppm", "b/2.ppm"));
    std::shared_ptr<const Source> whole = make_folder_source(folder.path("one"));
    CHECK(one == fingerprint_of(*make_subset_source(whole, {0, 1, 2})));
    CHECK(one != fingerprint_of(*make_subset_source(whole, {0, 2, 1})));
    CHECK(fingerprint_of(*make_list_source({{"x", 0}}, {"a", "b"})) !=
          fingerprint_of(*make_list_source({{"x", 1}}, {"a", "b"})));
}

TEST_CASE("pipeline: train, val and the splits beside them") {
    const TempFolder folder;
    for (const char* name :
         {"train/a", "train/b", "val/a", "val/b", "hard/b", "masks/a", "runs/x", "test/a", "test/new"})
        write_class(folder, name, 2);
    const DataSplits data = open_data(folder.path(), {});
    CHECK(data.classes == std::vector<std::string>{"a", "b"});
    CHECK(data.train->size() == 4);
    CHECK(data.val->size() == 4);
    REQUIRE(data.extra.size() == 1);
    CHECK(data.extra[0].first == "hard");
    CHECK(data.extra[0].second->size() == 2);
    CHECK(data.extra[0].second->label(0) == 1);
    CHECK(data.extra[0].second->classes() == data.classes);
    REQUIRE(data.warnings.size() == 1);
    CHECK(contains(data.warnings[0], "test is not used: new"));
}

TEST_CASE("pipeline: a class that val lacks is a warning, one that train lacks an error") {
    const TempFolder folder;
    for (const char* name : {"train/a", "train/b", "val/a"})
        write_class(folder, name, 1);
    const DataSplits data = open_data(folder.path(), {});
    REQUIRE(data.warnings.size() == 1);
    CHECK(contains(data.warnings[0], "val has no picture of class b"));
    write_class(folder, "val/rust", 1);
    CHECK(contains(message_of(folder), "val: class rust is not among the 2 classes"));
}

TEST_CASE("pipeline: what is missing is called by its name") {
    {
        const TempFolder folder;
        CHECK(contains(message_of(folder), "there are no pictures in folders here"));
        std::filesystem::create_directories(folder.path("train"));
        std::filesystem::create_directories(folder.path("val"));
        CHECK(contains(message_of(folder), "train: there is no class folder"));
        std::filesystem::create_directories(folder.path("train/a"));
        std::filesystem::create_directories(folder.path("train/b"));
        CHECK(contains(message_of(folder), "train: there is no picture in its class folders"));
        write_class(folder, "train/a", 1);
        folder.write("train/b/1.tif", std::string("x"));
        CHECK(contains(message_of(folder), "train/b: there is no picture in this class folder"));
        CHECK(contains(message_of(folder), "1 .tif"));
        write_class(folder, "train/b", 1);
        CHECK(contains(message_of(folder), "val: there is no class folder"));
        std::filesystem::remove_all(folder.path("val"));
        CHECK(contains(message_of(folder), "--val-split"));
    }
    const TempFolder folder;
    write_class(folder, "val/a", 1);
    CHECK(contains(message_of(folder), "none named train"));
    CHECK(
        contains(error_of([&] { open_data(folder.path("absent"), {}); }).what(), "absent: the folder cannot be read"));
    CHECK(contains(error_of([&] { open_data(folder.path("val/a/100.jpg"), {}); }).what(), "is neither a folder"));
    write_class(folder, "train/a", 1);
    CHECK(contains(message_of(folder), "single class"));
}

TEST_CASE("pipeline: a split is drawn from each class, by the seed alone") {
    const TempFolder folder;
    write_class(folder, "a", 20);
    write_class(folder, "b", 7);
    write_class(folder, "c", 2);
    write_class(folder, "d", 1);
    CHECK(contains(message_of(folder), "--val-split"));
    CHECK(error_of([&] { open_data(folder.path(), {1, 0, 0}); }).code() == Exit::usage);
    const auto val_names = [&](uint64_t seed) {
        const DataSplits data = open_data(folder.path(), {0.25, seed, 0});
        std::set<std::string> train, val;
        std::vector<int> counts(4, 0);
        for (int64_t i = 0; i < data.train->size(); ++i)
            train.insert(data.train->name(i));
        for (int64_t i = 0; i < data.val->size(); ++i) {
            val.insert(data.val->name(i));
            ++counts[static_cast<size_t>(data.val->label(i))];
            CHECK(train.count(data.val->name(i)) == 0);
        }
        CHECK(train.size() + val.size() == 30);
        CHECK(counts == std::vector<int>{5, 2, 1, 0});
        REQUIRE(data.warnings.size() == 1);
        CHECK(contains(data.warnings[0], "class d has a single picture"));
        return val;
    };
    CHECK(val_names(1) == val_names(1));
    CHECK(val_names(1) != val_names(2));
}

TEST_CASE("pipeline: pictures to train on need no val and no second class where nothing is measured") {
    const TempFolder folder;
    std::vector<std::string> warnings;
    const auto pictures = [&](double val_split) {
        warnings.clear();
        return open_training(folder.path(), {val_split, 1, 0}, warnings)->size();
    };
    write_class(folder, "a", 8);
    CHECK(pictures(0) == 8);
    write_class(folder, "b", 4);
    CHECK(pictures(0) == 12);
    CHECK(pictures(0.25) == open_data(folder.path(), {0.25, 1, 0}).train->size());
    CHECK(pictures(0.25) == 9);
    CHECK(warnings.empty());
    const TempFolder split;
    write_class(split, "val/a", 1);
    CHECK(contains(error_of([&] { open_training(split.path(), {}, warnings); }).what(), "none named train"));
    write_class(split, "train/a", 3);
    CHECK(open_training(split.path(), {}, warnings)->size() == 3);
    CHECK(open_training(split.path(), {0.25, 1, 0}, warnings)->size() == 3);
}
