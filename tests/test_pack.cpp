// Data sets packed, read back, interrupted and gone on with; and the layouts that open_data understands.
#include <chrono>
#include <map>
#include <set>
#include <thread>

#include "jpeg_support.h"
#include "pipeline/encode.h"
#include "pipeline/layout.h"
#include "pipeline/pack.h"
#include "pipeline/resize.h"
#include "pipeline_support.h"

using namespace rn50;
using namespace rn50::test;

namespace {

constexpr PackFormat all_formats[] = {PackFormat::folder, PackFormat::webdataset, PackFormat::tfrecord,
                                      PackFormat::lmdb};

/// train with 3 classes of 7 pictures, val with 2; names that are hard on keys.
void write_set(const TempFolder& folder, const std::string& root = "set") {
    for (const char* name : {"b b", "a", "c.d"}) {
        for (int i = 0; i < 7; ++i)
            folder.write_picture(cat(root, "/train/", name, i == 3 ? "/deep/x.y.ppm" : cat("/p.", i, ".ppm")),
                                 name[0] + i);
        folder.write_picture(cat(root, "/val/", name, "/v.ppm"), name[0] + 50);
    }
}

std::vector<NamedSource> open(const std::string& root) {
    std::vector<std::string> warnings;
    std::vector<NamedSource> splits = open_splits(root, {}, warnings);
    CHECK(warnings == std::vector<std::string>{});
    return splits;
}

PackOptions options_for(PackFormat format, int workers = 2) {
    PackOptions options;
    options.format = format;
    options.workers = workers;
    options.part_bytes = 3000;  // of about 200 bytes a picture
    return options;
}

PackSummary pack_to(const std::string& root, const std::string& out, const PackOptions& options) {
    return pack(open(root), out, options, [](const PackState&) {});
}

void check_equal(const Source& a, const Source& b) {
    CHECK(a.classes() == b.classes());
    REQUIRE(a.size() == b.size());
    std::vector<uint8_t> of_a, of_b;
    for (int64_t i = 0; i < a.size(); ++i) {
        CHECK(a.label(i) == b.label(i));
        CHECK(a.path_inside(i) == b.path_inside(i));
        a.read(i, of_a);
        b.read(i, of_b);
        CHECK(of_a == of_b);
    }
}

/// Every file of a folder by its path; index files hold a time, so they are left out.
std::map<std::string, std::vector<uint8_t>> contents(const std::string& root) {
    std::map<std::string, std::vector<uint8_t>> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root))
        if (entry.is_regular_file() && entry.path().extension() != ".rn50idx")
            files[entry.path().string().substr(root.size())] = test::read_file(entry.path().string());
    return files;
}

std::string open_message(const std::string& root, const DataOptions& options = {}) {
    const Error error = error_of([&] { open_data(root, options); });
    return cat(error.what(), " / ", error.remedy());
}

}  // namespace

TEST_CASE("pack: each format gives back what was packed, in its order") {
    const TempFolder folder;
    write_set(folder);
    const DataSplits original = open_data(folder.path("set"), {});
    for (const PackFormat format : all_formats) {
        CAPTURE(name_of(format));
        const std::string out = folder.path(name_of(format));
        const PackSummary summary = pack_to(folder.path("set"), out, options_for(format));
        CHECK(summary.pictures == 24);
        CHECK(summary.bad == 0);
        CHECK(summary.shards >= 3);
        const DataSplits packed = open_data(out, {});
        CHECK(packed.warnings == std::vector<std::string>{});
        check_equal(*original.train, *packed.train);
        check_equal(*original.val, *packed.val);
        // And back to folders, from any format.
        pack_to(out, out + "_unpacked", options_for(PackFormat::folder));
        check_equal(*original.train, *open_data(out + "_unpacked", {}).train);
        CHECK(pack_to(folder.path("set"), out, options_for(format)).was_complete);
    }
}

TEST_CASE("pack: bytes depend neither on the number of workers nor on an interruption") {
    const TempFolder folder;
    write_set(folder);
    for (const PackFormat format : all_formats) {
        CAPTURE(name_of(format));
        const std::string whole = folder.path(cat(name_of(format), "_1")),
                          other = folder.path(cat(name_of(format), "_3"));
        pack_to(folder.path("set"), whole, options_for(format, 1));
        // Ended again and again, each time with what was finished kept.
        for (int64_t stop = 1; stop < 24; stop += 4) {
            struct Stopped {};
            const auto show = [&](const PackState& state) {
                if (state.done == stop) throw Stopped();
            };
            CHECK_THROWS_AS(pack(open(folder.path("set")), other, options_for(format, 3), show), Stopped);
            if (stop == 1) CHECK(contains(open_message(other), "packing it was not finished"));
            if (stop == 1) CHECK(pack_is_unfinished(other));
        }
        const PackSummary summary = pack_to(folder.path("set"), other, options_for(format, 3));
        CHECK(summary.pictures == 24);
        if (format == PackFormat::lmdb)
            check_equal(*open_data(whole, {}).train, *open_data(other, {}).train);
        else
            CHECK(contents(whole) == contents(other));
    }
}

TEST_CASE("pack: a folder of something else, other options and other pictures are refused by name") {
    const TempFolder folder;
    write_set(folder);
    folder.write("full/x", std::string("x"));
    CHECK(contains(
        error_of([&] { pack_to(folder.path("set"), folder.path("full"), options_for(PackFormat::lmdb)); }).what(),
        "is not empty"));
    const std::string out = folder.path("out");
    pack_to(folder.path("set"), out, options_for(PackFormat::webdataset));
    PackOptions smaller = options_for(PackFormat::webdataset);
    smaller.longest = 4;
    const Error error = error_of([&] { pack_to(folder.path("set"), out, smaller); });
    CHECK(error.code() == Exit::usage);
    CHECK(contains(error.what(), "was begun with --longest 0, not 4"));
    CHECK(contains(error_of([&] { pack_to(folder.path("set"), out, options_for(PackFormat::tfrecord)); }).what(),
                   "--format webdataset, not tfrecord"));
    folder.write_picture("set/train/a/new.ppm", 1);
    CHECK(contains(error_of([&] { pack_to(folder.path("set"), out, options_for(PackFormat::webdataset)); }).what(),
                   "train of so many pictures: 21, not 22"));
    folder.write("out/pack.json", std::string("{\"rn50_pack\": 1"));
    CHECK(contains(error_of([&] { pack_to(folder.path("set"), out, options_for(PackFormat::webdataset)); }).what(),
                   "pack.json: is damaged"));
    folder.write("out/pack.json",
                 std::string("{\"rn50_pack\":1,\"format\":\"webdataset\",\"longest\":0,\"shortest\":0,\"quality\":90,"
                             "\"part_bytes\":3000,\"splits\":[{\"name\":\"train\",\"pictures\":22,\"fingerprint\":1,"
                             "\"next\":23,\"complete\":false,\"parts\":[],\"bad\":[]}]}"));
    CHECK(contains(error_of([&] { pack_to(folder.path("set"), out, options_for(PackFormat::webdataset)); }).what(),
                   "counts more pictures than there are"));
}

TEST_CASE("pack: bad pictures are left out by name; too many end it") {
    const TempFolder folder;
    write_set(folder);
    folder.write("set/train/a/0.jpg", std::string("no picture"));
    const std::string out = folder.path("out");
    PackOptions options = options_for(PackFormat::webdataset);
    options.max_bad = 0.1;
    const PackSummary summary = pack_to(folder.path("set"), out, options);
    CHECK(summary.bad == 1);
    CHECK(summary.pictures == 24);
    const std::vector<uint8_t> list = test::read_file(out + "/bad.txt");
    CHECK(contains(std::string(list.begin(), list.end()), "train/a/0.jpg\t"));
    CHECK(open_data(out, {}).train->size() == 21);
    options.max_bad = 0;
    const Error error = error_of([&] { pack_to(folder.path("set"), folder.path("strict"), options); });
    CHECK(error.code() == Exit::data);
    CHECK(contains(error.what(), "1 of 25 pictures cannot be used"));
}

TEST_CASE("pack: what cannot be read ends it, and what was away for a while is not left out for ever") {
    const TempFolder folder;
    write_set(folder);
    const std::vector<NamedSource> splits = open(folder.path("set"));
    const std::string out = folder.path("out"), file = folder.path("set/train/c.d/p.5.ppm");
    PackOptions options = options_for(PackFormat::webdataset);
    options.max_bad = 1;
    options.read_patience_s = 0.3;
    const auto pack_now = [&] { return pack(splits, out, options, [](const PackState&) {}); };
    // A file that is missing, and a folder.
    for (const std::string& away : {file, folder.path("set/val")}) {
        std::filesystem::rename(away, folder.path("away"));
        const Error error = error_of(pack_now);
        CHECK(contains(error.what(), "cannot be read: No such file"));
        CHECK(contains(error.remedy(), "the same command goes on"));
        CHECK(pack_is_unfinished(out));
        CHECK_FALSE(std::filesystem::exists(out + "/bad.txt"));
        std::filesystem::rename(folder.path("away"), away);
    }
    const PackSummary summary = pack_now();
    CHECK(summary.pictures == 24);
    CHECK(summary.bad == 0);
    // Away for a moment: nobody needs to do anything.
    std::filesystem::rename(file, folder.path("away"));
    options.read_patience_s = 100;
    std::thread back([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(300));
        std::filesystem::rename(folder.path("away"), file);
    });
    const PackSummary waited = pack(splits, folder.path("waited"), options, [](const PackState&) {});
    back.join();
    CHECK(waited.pictures == 24);
}

TEST_CASE("pack: a class name of two lines is refused") {
    const TempFolder folder;
    for (const char* name : {"a\nb", "c\x7F", "d"}) {
        folder.write_picture(cat("set/", name, "/1.ppm"), 1);
    }
    for (const PackFormat format : all_formats) {
        CAPTURE(name_of(format));
        const Error error =
            error_of([&] { pack_to(folder.path("set"), folder.path(name_of(format)), options_for(format)); });
        CHECK(contains(error.what(), "class \"a?b\" has a control character"));
        CHECK_FALSE(std::filesystem::exists(folder.path(name_of(format))));
    }
}

TEST_CASE("pack: classes are read back as pictures are") {
    const TempFolder folder;
    folder.write_picture("p.ppm", 1);
    const std::vector<uint8_t> picture = test::read_file(folder.path("p.ppm"));
    for (const PackFormat format : {PackFormat::webdataset, PackFormat::tfrecord, PackFormat::lmdb}) {
        for (const char* list : {"a\nb\n", "b\na\n"}) {
            CAPTURE(name_of(format));
            const std::string out = cat(name_of(format), list[0]);
            folder.write(out + "/classes.txt", std::string(list));
            WriterOptions options;
            options.format = format;
            options.folder = folder.path(out);
            options.split = "all";
            options.classes = {"a", "b"};
            const auto write = [&] {
                const std::unique_ptr<SampleWriter> writer = make_writer(options);
                writer->add({{picture.data(), picture.size()}, 0, 1, "b", "b/p.ppm", 8, 8});
                writer->finish();
                return writer->parts().size();
            };
            if (list[0] == 'a')
                CHECK(write() == 1);
            else
                CHECK(contains(error_of(write).what(), "reads back differently: its classes are others"));
        }
    }
}

TEST_CASE("pack: pictures become smaller, never larger") {
    const TempFolder folder;
    const Picture large = formula_picture(40, 60);
    std::vector<uint8_t> bytes;
    encode_jpeg(large, 95, bytes);
    folder.write("set/train/a/large.png", bytes);
    folder.write_picture("set/train/a/small.ppm", 1);
    folder.write_picture("set/train/b/small.ppm", 2);
    folder.write_picture("set/val/a/v.ppm", 3);
    folder.write_picture("set/val/b/v.ppm", 4);
    PackOptions options = options_for(PackFormat::folder);
    options.shortest = 20;
    options.quality = 95;
    pack_to(folder.path("set"), folder.path("out"), options);
    CHECK(contents(folder.path("out")).count("/train/a/small.ppm") == 1);
    const std::vector<uint8_t> made = test::read_file(folder.path("out/train/a/large.png.jpg"));
    const Picture smaller = decode(made.data(), made.size(), "made");
    CHECK(smaller.height == 20);
    CHECK(smaller.width == 30);
    const Picture source = decode(bytes.data(), bytes.size(), "source");
    std::vector<uint8_t> expected(20 * 30 * 3);
    resize_bilinear_antialias(source.rgb.data(), 40, 60, {0, 0, 60, 40}, expected.data(), 20, 30);
    double sum = 0;
    for (size_t i = 0; i < expected.size(); ++i)
        sum += std::abs(int{expected[i]} - int{smaller.rgb[i]});
    CHECK(sum / static_cast<double>(expected.size()) < 8);  // what JPEG of a noisy picture loses
    Picture same;
    CHECK_FALSE(shrink(source, 60, 0, same));
    CHECK(shrink(source, 59, 0, same));
    CHECK(same.width == 59);
    CHECK(same.height == 39);
}

TEST_CASE("pack: --encode makes pictures JPEG or PNG at their size, and says what lost something") {
    const TempFolder folder;
    const Picture drawing = soft_picture(90, 150);
    const std::vector<uint8_t> jpeg = encode(drawing, {"turned right", 2, 2, false, false, 0, 6});
    folder.write("set/train/a/turned.jpg", jpeg);
    folder.write("set/train/a/gray.bmp", test::read_file(golden_path("gray.bmp")));
    folder.write("set/train/b/rgb.png", test::read_file(golden_path("rgb.png")));
    folder.write("set/val/a/deep.png", test::read_file(golden_path("deep.png")));
    folder.write("set/val/b/b.ppm", test::read_file(golden_path("rgb.ppm")));
    const auto packed = [&](PackEncode encode, int64_t longest, int64_t lossy) {
        PackOptions options = options_for(PackFormat::folder);
        options.encode = encode;
        options.longest = longest;
        options.quality = 95;
        const std::string out = folder.path(cat(name_of(encode), longest));
        const PackSummary summary = pack_to(folder.path("set"), out, options);
        CHECK(summary.pictures == 5);
        CHECK(summary.made_lossy == lossy);
        return contents(out);
    };
    const auto decoded = [](const std::vector<uint8_t>& bytes) { return decode(bytes.data(), bytes.size(), "x"); };
    const auto original = [&](const std::string& name) { return test::read_file(folder.path("set" + name)); };

    auto files = packed(PackEncode::png, 0, 0);
    CHECK(decoded(files.at("/train/a/turned.jpg.png")).rgb == decoded(jpeg).rgb);
    CHECK(decoded(files.at("/train/a/gray.bmp.png")).rgb == golden_rgb("gray.bmp").rgb);
    CHECK(files.at("/train/a/gray.bmp.png")[25] == 0);  // the header's colour type: grey
    CHECK(files.at("/train/b/rgb.png")[25] == 2);
    CHECK(decoded(files.at("/train/b/rgb.png")).rgb == golden_rgb("rgb.png").rgb);
    CHECK(decoded(files.at("/val/a/deep.png")).rgb == golden_rgb("deep.png").rgb);
    CHECK(decoded(files.at("/val/b/b.ppm.png")).rgb == golden_rgb("rgb.ppm").rgb);

    files = packed(PackEncode::jpeg, 0, 4);
    CHECK(files.at("/train/a/turned.jpg") == jpeg);
    for (const char* name : {"/train/a/gray.bmp", "/val/b/b.ppm"}) {
        const Picture made = decoded(files.at(cat(name, ".jpg"))), before = decoded(original(name));
        REQUIRE(made.rgb.size() == before.rgb.size());
        CHECK(difference(made.rgb, before.rgb) > 0);
        CHECK(made.height == before.height);
    }
    // Components, behind the frame header's size, and how the first one is sampled.
    const auto frame_of = [](const std::vector<uint8_t>& bytes) {
        for (size_t i = 0; i + 11 < bytes.size(); ++i)
            if (bytes[i] == 0xFF && bytes[i + 1] == 0xC0) return cat(int{bytes[i + 9]}, " of ", int{bytes[i + 11]});
        return std::string("none");
    };
    CHECK(frame_of(files.at("/train/a/gray.bmp.jpg")) == "1 of 17");
    CHECK(frame_of(files.at("/val/b/b.ppm.jpg")) == "3 of 34");
    // A grey JPEG keeps every level to within what quality 95 rounds.
    CHECK(difference(decoded(files.at("/train/a/gray.bmp.jpg")).rgb, golden_rgb("gray.bmp").rgb) < 16);

    files = packed(PackEncode::keep, 20, 4);
    CHECK(frame_of(files.at("/train/a/gray.bmp.jpg")) == "1 of 17");
    CHECK(decoded(files.at("/train/a/turned.jpg")).height == 20);
    files = packed(PackEncode::keep, 26, 0);
    CHECK(files.at("/train/a/gray.bmp") == original("/train/a/gray.bmp"));
    PackOptions other = options_for(PackFormat::folder);
    other.longest = 26;
    other.quality = 95;
    other.encode = PackEncode::png;
    CHECK(contains(error_of([&] { pack_to(folder.path("set"), folder.path("keep26"), other); }).what(),
                   "was begun with --encode keep, not png"));
}

TEST_CASE("pack: restart markers leave every pixel as it was, or are left out") {
    const TempFolder folder;
    const Picture drawing = soft_picture(90, 150);
    Writing vague{"only the means of blocks, which are smoothed while they are all that is known"};
    vague.progressive = vague.dc_alone = true;
    folder.write("set/train/a/plain.jpg", encode(drawing, {"4:2:0"}));
    folder.write("set/train/a/vague.jpg", encode(drawing, vague));
    folder.write_picture("set/train/b/b.ppm", 2);
    folder.write("set/val/a/turned.jpg", encode(drawing, {"turned right", 2, 2, false, false, 0, 6}));
    folder.write_picture("set/val/b/b.ppm", 3);
    PackOptions options = options_for(PackFormat::folder);
    options.restart_markers = true;
    const PackSummary summary = pack_to(folder.path("set"), folder.path("out"), options);
    CHECK(summary.pictures == 5);
    CHECK(summary.unmarked == 1);
    const auto bytes_of = [&](const std::string& name) { return test::read_file(folder.path(name)); };
    for (const char* name : {"/train/a/plain.jpg", "/val/a/turned.jpg"}) {
        const std::vector<uint8_t> before = bytes_of(cat("set", name)), after = bytes_of(cat("out", name));
        CHECK(after != before);
        CHECK(decode(after.data(), after.size(), "x").rgb == decode(before.data(), before.size(), "x").rgb);
    }
    for (const char* name : {"/train/a/vague.jpg", "/train/b/b.ppm"})
        CHECK(bytes_of(cat("out", name)) == bytes_of(cat("set", name)));
    CHECK(contains(
        error_of([&] { pack_to(folder.path("set"), folder.path("out"), options_for(PackFormat::folder)); }).what(),
        "was begun with --restart-markers: yes, not no"));
}

TEST_CASE("pack: names that others chose stay below the folder") {
    CHECK(safe_path("../../etc/passwd.jpg") == "etc/passwd.jpg");
    CHECK(safe_path("/a//./b/../.c.jpg") == "a/b/_.c.jpg");
    CHECK(safe_path("a\n\x1B[2J.jpg") == "a__[2J.jpg");
    CHECK(safe_path("..") == "");
    // The same name twice, as shards of others have it.
    const TempFolder folder;
    folder.write_picture("1.ppm", 1);
    folder.write_picture("2.ppm", 2);
    std::vector<NamedSource> splits;
    struct Twice : Source {
        const TempFolder& folder;
        std::vector<std::string> names{"x/y"};
        explicit Twice(const TempFolder& f) : folder(f) {}
        int64_t size() const override { return 2; }
        int32_t label(int64_t) const override { return 0; }
        std::string name(int64_t) const override { return "n"; }
        std::string path_inside(int64_t) const override { return "../same"; }
        void read(int64_t i, std::vector<uint8_t>& bytes) const override {
            bytes = test::read_file(folder.path(cat(i + 1, ".ppm")));
        }
        const std::vector<std::string>& classes() const override { return names; }
    };
    splits.push_back({"all", std::make_unique<Twice>(folder)});
    pack(splits, folder.path("out"), options_for(PackFormat::folder), [](const PackState&) {});
    std::set<std::string> names;
    for (const auto& [name, bytes] : contents(folder.path("out")))
        names.insert(name);
    CHECK(names == std::set<std::string>{"/pack.json", "/x_y/same-1.ppm", "/x_y/same.ppm"});
}

TEST_CASE("layout: names of shards") {
    const auto split = [](const char* name) {
        const auto found = parse_shard_name(name);
        return found ? cat(name_of(found->kind), " ", found->split, " ", found->of_shards) : "none";
    };
    CHECK(split("train-000000.tar") == "WebDataset train 0");
    CHECK(split("imagenet-val_12.tar") == "WebDataset val 0");
    CHECK(split("000001.tar") == "WebDataset  0");
    CHECK(split("train-00000-of-00128") == "TFRecord train 128");
    CHECK(split("validation-00003-of-00128") == "TFRecord val 128");
    CHECK(split("mnist-train.tfrecord-00000-of-00001") == "TFRecord train 1");
    CHECK(split("hard_3.tfrecords") == "TFRecord hard 0");
    CHECK(split("x-00000-of-00010.tfrecord") == "TFRecord x 10");
    CHECK(split("data.mdb") == "LMDB  0");
    for (const char* name : {"train.tar.rn50idx", "notes.txt", "3-of-4", "a-of-00003", "x.tarr", "-of-", ""})
        CHECK(split(name) == "none");
    CHECK(expand_braces("x-{008..011}.tar") ==
          std::vector<std::string>{"x-008.tar", "x-009.tar", "x-010.tar", "x-011.tar"});
    CHECK(expand_braces("{0..1}{0..1}") == std::vector<std::string>{"00", "01", "10", "11"});
    for (const char* pattern : {"x{", "x{a..b}", "x{3..1}", "{0..999999}{0..9}", "x{1.2}", "x{..}"})
        CHECK(error_of([&] { expand_braces(pattern); }).code() == Exit::usage);
}

TEST_CASE("layout: shards in folders, beside each other, alone and by a pattern") {
    const TempFolder folder;
    write_set(folder);
    const std::string flat = folder.path("flat");
    pack_to(folder.path("set"), flat, options_for(PackFormat::webdataset));
    const DataSplits original = open_data(folder.path("set"), {});
    // Folders of shards, the classes above them.
    for (const auto& [name, bytes] : contents(flat))
        if (contains(name, ".tar"))
            folder.write(cat("nested", contains(name, "train") ? "/train" : "/val", name), bytes);
    folder.write("nested/classes.txt", test::read_file(flat + "/classes.txt"));
    check_equal(*original.train, *open_data(folder.path("nested"), {}).train);
    check_equal(*original.val, *open_data(folder.path("nested"), {}).val);
    // One file and a pattern; a share is drawn as from a folder.
    CHECK(contains(open_message(flat + "/train-000000.tar"), "--val-split"));
    const DataSplits drawn = open_data(flat + "/train-{000000..000001}.tar", {0.2, 0, 0});
    CHECK(drawn.val->size() > 0);
    CHECK(drawn.train->format() == "WebDataset");
    const DataSplits one = open_data(folder.path("nested/train"), {0.2, 3, 0});
    std::filesystem::rename(folder.path("set/val"), folder.path("elsewhere"));
    check_equal(*open_data(folder.path("set"), {0.2, 3, 0}).val, *one.val);
    // Mixtures.
    std::filesystem::create_directories(flat + "/train");
    folder.write("flat/train/x.tar", test::read_file(flat + "/train-000000.tar"));
    CHECK(contains(open_message(flat), "split train is there twice"));
    folder.write_picture("nested/train/a.ppm", 1);
    CHECK(contains(open_message(folder.path("nested")), "only one can be meant"));
    folder.write("mixed/train-1.tar", std::string());
    folder.write("mixed/train-1.tfrecord", std::string());
    CHECK(contains(open_message(folder.path("mixed")), "as WebDataset"));
    folder.write("few/train-00000-of-00003", std::string());
    CHECK(contains(open_message(folder.path("few")), "there are 1 shards of train, whose names say 3"));
    folder.write("zipped/train-1.tar.gz", std::string());
    CHECK(contains(open_message(folder.path("zipped")), "is compressed"));
    CHECK(contains(open_message(folder.path("set/train/a/p.0.ppm")), "is neither a folder nor a shard"));
}

TEST_CASE("layout: labels that begin with 1, lie outside, or are names") {
    const TempFolder folder;
    const auto copy = [&](const char* from, const std::string& to) {
        folder.write(to, test::read_file(test::tests_folder() + "/data/shards/" + from));
    };
    copy("tensorflow.tfrecord", "tf/train.tfrecord");
    copy("tensorflow.tfrecord", "tf/val.tfrecord");
    const DataSplits from_1 = open_data(folder.path("tf"), {0, 0, 1});
    CHECK(from_1.classes == std::vector<std::string>{"crack", "dent", "pit"});
    CHECK(from_1.train->label(2) == 2);
    const DataSplits from_0 = open_data(folder.path("tf"), {});
    CHECK(from_0.classes == std::vector<std::string>{"0", "crack", "dent", "pit"});
    REQUIRE(from_0.warnings.size() >= 1);
    CHECK(contains(from_0.warnings[0], "--label-offset 1"));
    folder.write("tf/classes.txt", std::string("crack\r\ndent\npit\n"));
    CHECK(contains(open_message(folder.path("tf")),
                   "label 3 lies outside of the 3 classes (0 to 2) / labels that begin"));
    CHECK(open_data(folder.path("tf"), {0, 0, 1}).train->label(0) == 0);
    folder.write("tf/classes.txt", std::string("crack\ncrack\n"));
    CHECK(contains(open_message(folder.path("tf")), "classes.txt:2: class crack stands in line 1 too"));

    copy("gnu.tar", "tar/train-0.tar");
    copy("pax.tar", "tar/val-0.tar");
    CHECK(open_data(folder.path("tar"), {}).classes == std::vector<std::string>{"crack", "dent"});
    // A checkpoint's classes decide in an evaluation: by name, whatever the numbers.
    copy("webdataset_json.tar", "json/val-0.tar");
    std::vector<std::string> warnings;
    const auto splits = open_evaluation(folder.path("json"), {}, {"pit", "dent", "crack", "other"}, warnings);
    REQUIRE(splits.size() == 1);
    CHECK(splits[0].source->label(0) == 2);
    CHECK(splits[0].source->label(1) == 1);
    CHECK(splits[0].source->label(2) == 0);
    REQUIRE(warnings.size() == 1);
    CHECK(contains(warnings[0], "has no picture of class other"));
    copy("webdataset.tar", "mixed/train-0.tar");
    copy("gnu.tar", "mixed/train-1.tar");
    copy("gnu.tar", "mixed/val-1.tar");
    CHECK(contains(open_message(folder.path("mixed")), "some samples have a number"));
}

TEST_CASE("layout: a shard beside train and val that is no split does not stop a run") {
    const TempFolder folder;
    write_set(folder);
    folder.write("set/backup.tar", std::string(2000, 'x'));
    const DataSplits data = open_data(folder.path("set"), {});
    CHECK(data.extra.empty());
    REQUIRE(data.warnings.size() == 1);
    CHECK(contains(data.warnings[0], "split backup is not used"));
}
