// Shards that other tools wrote, and what becomes of damaged ones.
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <sstream>

#include "base/crc32c.h"
#include "base/files.h"
#include "base/interrupt.h"
#include "base/random.h"
#include "pipeline/datum.h"
#include "pipeline/lmdb.h"
#include "pipeline/shard_source.h"
#include "pipeline/tar.h"
#include "pipeline/tfrecord.h"
#include "pipeline_support.h"

using namespace rn50;
using namespace rn50::test;

namespace {

std::string shard_path(const std::string& name) {
    return tests_folder() + "/data/shards/" + name;
}

ByteView view_of(const std::vector<uint8_t>& bytes) {
    return {bytes.data(), bytes.size()};
}

ByteView view_of(const std::string& text) {
    return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

ShardKind kind_of(const std::string& name) {
    return contains(name, ".tar") ? ShardKind::tar : contains(name, ".mdb") ? ShardKind::lmdb : ShardKind::tfrecord;
}

ShardIndex index_of(const std::vector<uint8_t>& bytes, ShardKind kind) {
    const RandomBytes memory = bytes_of(view_of(bytes));
    return kind == ShardKind::tar    ? index_tar(memory, "shard")
           : kind == ShardKind::lmdb ? index_lmdb(memory, "shard")
                                     : index_tfrecord(memory, "shard");
}

/// A line of expected.txt.
struct Expected {
    std::string shard, path, label, name;
    size_t bytes;
    uint32_t crc;
};

std::vector<Expected> read_expected() {
    std::vector<Expected> all;
    std::ifstream in(shard_path("expected.txt"));
    for (std::string line; std::getline(in, line);) {
        std::istringstream fields(line);
        Expected e;
        std::string bytes, crc;
        for (std::string* field : {&e.shard, &e.path, &e.label, &e.name, &bytes, &crc})
            std::getline(fields, *field, '\t');
        e.bytes = std::stoul(bytes);
        e.crc = static_cast<uint32_t>(std::stoul(crc, nullptr, 16));
        all.push_back(e);
    }
    return all;
}

const char* const all_shards[] = {"webdataset.tar",      "webdataset_json.tar", "gnu.tar",   "pax.tar",     "ustar.tar",
                                  "tensorflow.tfrecord", "package.tfrecord",    "caffe.mdb", "branches.mdb"};

/// A source in which labels do not matter.
std::unique_ptr<Source> source_of(const std::string& path, ShardKind kind) {
    ShardSet set;
    set.kind = kind;
    set.paths = {path};
    set.indices = {build_index(path, kind)};
    std::vector<std::vector<int32_t>> labels{std::vector<int32_t>(static_cast<size_t>(set.indices[0].size()))};
    return make_indexed_source(std::move(set), std::move(labels), {"all"});
}

std::string tar_member(const std::string& name, const std::string& data) {
    std::string member = tar_header(name, static_cast<int64_t>(data.size())) + data;
    member.resize((member.size() + 511) / 512 * 512);
    return member;
}

std::string index_message(const std::vector<uint8_t>& bytes, ShardKind kind) {
    return error_of([&] { index_of(bytes, kind); }).what();
}

}  // namespace

TEST_CASE("base: CRC-32C of the vectors of RFC 3720") {
    const std::vector<uint8_t> zeros(32, 0), ones(32, 255);
    CHECK(crc32c(zeros.data(), 32) == 0x8A9136AA);
    CHECK(crc32c(ones.data(), 32) == 0x62A8AB43);
    CHECK(crc32c("123456789", 9) == 0xE3069283);
    CHECK(crc32c("6789", 4, crc32c("12345", 5)) == 0xE3069283);
}

TEST_CASE("shards: what other tools wrote is read to the last byte") {
    size_t checked = 0;
    for (const char* name : all_shards) {
        CAPTURE(name);
        const ShardIndex index = build_index(shard_path(name), kind_of(name));
        CHECK(index.left_out().empty());
        const auto source = source_of(shard_path(name), kind_of(name));
        int64_t i = 0;
        std::vector<uint8_t> bytes;
        for (const Expected& expected : read_expected()) {
            if (expected.shard != name) continue;
            REQUIRE(i < index.size());
            CAPTURE(i);
            const ShardIndex::Entry& entry = index.entry(i);
            CHECK(index.key(i) == expected.path);
            CHECK((entry.label == ShardIndex::no_label ? "-" : std::to_string(entry.label)) == expected.label);
            CHECK((entry.class_name < 0 ? "-" : index.class_names()[static_cast<size_t>(entry.class_name)]) ==
                  expected.name);
            source->prefetch(i);
            source->read(i, bytes);
            CHECK(bytes.size() == expected.bytes);
            CHECK(crc32c(bytes.data(), bytes.size()) == expected.crc);
            ++i;
            ++checked;
        }
        if (i > 0) CHECK(index.size() == i);
    }
    CHECK(checked == read_expected().size());
}

TEST_CASE("shards: an LMDB with branch pages is walked in the order of its keys") {
    const auto source = source_of(shard_path("branches.mdb"), ShardKind::lmdb);
    REQUIRE(source->size() == 200);
    std::vector<uint8_t> bytes;
    for (int64_t i = 0; i < 200; ++i) {
        source->read((i * 77) % 200, bytes);
        CHECK(std::string(bytes.begin(), bytes.end()) == cat("picture ", i));
    }
}

TEST_CASE("shards: samples without picture or label are left out by name") {
    std::string tar = tar_member("a.cls", "0") + tar_member("a.jpg", "A") + tar_member("b.cls", "1") +
                      tar_member("c.png", "C") + tar_member("d.txt", "?") + tar_member(".hidden", "x") +
                      tar_member("e.JPG", "E") + tar_member("e.json", "{\"cls\": \"scratch\"}") +
                      tar_member("f.seg.png", "mask") + tar_member("f.jpg", "F") + tar_member("f.cls", " -3\n");
    tar.resize(tar.size() + 1024);
    const ShardIndex index = index_tar(bytes_of(view_of(tar)), "x.tar");
    REQUIRE(index.size() == 3);
    CHECK(index.key(0) == "a.jpg");
    CHECK(index.key(1) == "e.JPG");
    CHECK(index.class_names() == std::vector<std::string>{"scratch"});
    CHECK(index.entry(2).label == -3);
    CHECK(tar[static_cast<size_t>(index.entry(2).offset)] == 'F');
    REQUIRE(index.left_out().size() == 2);
    CHECK(index.left_out().at("no picture").count == 2);
    CHECK(index.left_out().at("no picture").example == "b");
    CHECK(index.left_out().at("no label (.cls or .json)").example == "c.png");
    tar.resize(tar.size() - 1024);
    CHECK(index_tar(bytes_of(view_of(tar)), "x.tar").left_out().count("the end mark of the archive is missing") == 1);
}

TEST_CASE("shards: labels that are no classes are told with a sample that has one") {
    const auto message = [](const char* middle, int64_t offset) {
        const std::string tar = tar_member("a.jpg", "x") + tar_member("a.cls", "1") + tar_member("b.jpg", "x") +
                                tar_member("b.cls", middle) + tar_member("c.jpg", "x") + tar_member("c.cls", "2") +
                                std::string(1024, '\0');
        ShardSet set;
        set.paths = {"x.tar"};
        set.indices = {index_tar(bytes_of(view_of(tar)), "x.tar")};
        std::vector<std::string> warnings;
        return std::string(error_of([&] { classes_of(set, offset, warnings); }).what());
    };
    CHECK(message("-3", 0) == "x.tar/b.jpg: labels run from -3 to 2, which are no classes");
    CHECK(message("0", 1) == "x.tar/b.jpg: labels run from 0 to 2, which are no classes with --label-offset 1");
    CHECK(contains(message("99000000", 0), "x.tar/b.jpg: labels run from 1 to 99000000"));
}

TEST_CASE("shards: sizes in base 256, pax sizes and what is not a number") {
    TarHeader header;
    const std::string large = tar_header("x.jpg", int64_t{1} << 40);
    REQUIRE(parse_tar_header(view_of(large).data, header) == TarBlock::header);
    CHECK(header.size == int64_t{1} << 40);
    std::string path = "old";
    int64_t size = -1;
    CHECK(parse_pax(view_of("19 path=a = b\nc.jpg\n" + std::string()), path, size) == false);
    CHECK(parse_pax(view_of("18 path=a = b.jpg\n17 size=12345678\n" + std::string()), path, size));
    CHECK(path == "a = b.jpg");
    CHECK(size == 12345678);
    for (const char* damaged : {"x", "5 a=b", "99 path=a\n", "0 a=b\n", "8 path\n==", "12 size=-100\n", "3 =\n"})
        CHECK_FALSE(parse_pax(view_of(std::string(damaged)), path, size));
    std::string key, extension;
    split_key("a.b/c.d/007.Left.JPG", key, extension);
    CHECK(key == "a.b/c.d/007");
    CHECK(extension == "left.jpg");
}

TEST_CASE("shards: damage is told by name, never read over") {
    for (const char* name : all_shards) {
        CAPTURE(name);
        const ShardKind kind = kind_of(name);
        const std::vector<uint8_t> whole = test::read_file(shard_path(name));
        const int64_t samples = index_of(whole, kind).size();
        // A tar ends with two zero blocks and padding: behind its last member nothing is lost.
        for (size_t size = 1; size < whole.size(); size += kind == ShardKind::tfrecord ? 1 : 97) {
            const std::vector<uint8_t> cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
            try {
                const ShardIndex index = index_of(cut, kind);
                if (kind == ShardKind::tfrecord) CHECK(index.size() < samples);  // cut between two records
                if (kind == ShardKind::lmdb) FAIL("an LMDB that is cut short was read");
                if (kind == ShardKind::tar && index.size() < samples) CHECK_FALSE(index.left_out().empty());
            } catch (const Error& error) {
                CHECK(error.code() == Exit::data);
                CHECK(contains(error.what(), "shard: "));
            }
        }
    }
    std::vector<uint8_t> record = test::read_file(shard_path("tensorflow.tfrecord"));
    CHECK(contains(index_message(std::vector<uint8_t>(record.begin(), record.end() - 1), ShardKind::tfrecord),
                   "cut short within record 2"));
    record[500] ^= 1;
    const ShardIndex index = index_of(record, ShardKind::tfrecord);
    CHECK(index.size() == 2);
    CHECK(index.left_out().at("wrong checksum").example == "record 0");
    record[3] ^= 1;
    CHECK(contains(index_message(record, ShardKind::tfrecord), "is not a TFRecord file"));
    std::vector<uint8_t> tar = test::read_file(shard_path("webdataset.tar"));
    tar[1024] ^= 1;
    CHECK(contains(index_message(tar, ShardKind::tar), "the tar header at byte 1024 is damaged"));
    std::vector<uint8_t> database = test::read_file(shard_path("caffe.mdb"));
    const std::string key = "00000000_c/0.png";
    const auto node = std::search(database.begin(), database.end(), key.begin(), key.end()) - 8;
    node[1] = 0x20;  // a value of 8 KB and more in a page of 4
    CHECK(contains(index_message(database, ShardKind::lmdb), "a value lies outside of its page"));
    CHECK(contains(index_message({0x1F, 0x8B, 8, 0}, ShardKind::tfrecord), "gzip"));
    // The length of a record may begin with the same two bytes.
    const std::string like_gzip = tfrecord_of(std::string(0x8B1F, 'x'));
    CHECK(index_of({like_gzip.begin(), like_gzip.end()}, ShardKind::tfrecord).left_out().size() == 1);
    CHECK(contains(index_message(std::vector<uint8_t>(600, 'x'), ShardKind::tar), "is not a tar archive"));
    CHECK(contains(index_message(std::vector<uint8_t>(600, 'x'), ShardKind::lmdb), "is not an LMDB"));
}

TEST_CASE("shards: no flipped byte crashes a reader") {
    for (const char* name : all_shards) {
        const ShardKind kind = kind_of(name);
        const std::vector<uint8_t> whole = test::read_file(shard_path(name));
        Random random(1, 0, static_cast<uint64_t>(kind), Purpose::demo);
        for (int round = 0; round < 300; ++round) {
            std::vector<uint8_t> bytes = whole;
            for (int flips = 1 + static_cast<int>(random.below(4)); flips > 0; --flips)
                bytes[random.below(bytes.size())] = static_cast<uint8_t>(random.u32());
            try {
                const ShardIndex index = index_of(bytes, kind);
                for (int64_t i = 0; i < index.size(); ++i) {
                    const ShardIndex::Entry& entry = index.entry(i);
                    REQUIRE(entry.offset + entry.bytes <= static_cast<int64_t>(bytes.size()));
                    Datum datum;
                    std::vector<uint8_t> picture;
                    const ByteView value{bytes.data() + entry.offset, static_cast<size_t>(entry.bytes)};
                    if (kind == ShardKind::lmdb && parse_datum(value, datum)) picture_of(datum, picture);
                }
            } catch (const Error& error) {
                CHECK(error.code() == Exit::data);
            }
        }
    }
}

TEST_CASE("shards: no flipped byte behind a right checksum crashes a reader") {
    // What checksums guard is flipped before they are made.
    const std::vector<uint8_t> shard = test::read_file(shard_path("tensorflow.tfrecord"));
    const ShardIndex index = index_of(shard, ShardKind::tfrecord);
    const auto bytes = static_cast<int64_t>(shard.size());
    const ShardStamp stamp{bytes, 7, 9};
    const std::string packed = index.pack(ShardKind::tfrecord, stamp);
    Random random(2, 0, 0, Purpose::demo);
    for (int round = 0; round < 2000; ++round) {
        const auto first = shard.begin() + static_cast<std::ptrdiff_t>(index.entry(0).offset);
        std::vector<uint8_t> record(first, first + static_cast<std::ptrdiff_t>(index.entry(0).bytes));
        std::string kept = packed.substr(0, packed.size() - 4);
        for (int flips = 1 + static_cast<int>(random.below(4)); flips > 0; --flips) {
            // Most of a record is its picture; its fields lie around that.
            const size_t at = random.below(2) ? random.below(record.size()) : random.below(200);
            record[at] = static_cast<uint8_t>(random.u32());
            kept[8 + random.below(kept.size() - 8)] = static_cast<char>(random.u32());
        }
        Example example;
        if (parse_example(view_of(record), example))
            for (const ByteView& view : {example.picture, example.text, example.filename})
                REQUIRE((view.size == 0 ||
                         (view.data >= record.data() && view.data + view.size <= record.data() + record.size())));
        const uint32_t crc = crc32c(kept.data(), kept.size());
        kept.append(reinterpret_cast<const char*>(&crc), sizeof crc);
        ShardIndex back;
        if (!back.unpack(view_of(kept), ShardKind::tfrecord, stamp)) continue;
        for (int64_t i = 0; i < back.size(); ++i) {
            CHECK(back.entry(i).offset + back.entry(i).bytes <= bytes);
            CHECK(back.key(i).size() <= kept.size());
        }
    }
}

TEST_CASE("shards: a Datum of an absurd size is refused before memory is taken") {
    ProtoWriter datum;
    datum.integer(1, 3);
    datum.integer(2, int64_t{1} << 40);
    datum.integer(3, int64_t{1} << 40);
    datum.string(4, "abc");
    datum.integer(5, 1);
    Datum parsed;
    REQUIRE(parse_datum(view_of(datum.str()), parsed));
    CHECK(contains(fault_of(parsed), "a shape that is no picture"));
    parsed.height = parsed.width = 1000;
    CHECK(contains(fault_of(parsed), "another size than the shape says"));
    parsed.height = parsed.width = 1;
    std::vector<uint8_t> picture;
    picture_of(parsed, picture);
    CHECK(std::string(picture.begin(), picture.end()) == "P6\n1 1\n255\ncba");
    CHECK_FALSE(parse_datum(view_of(datum.str().substr(0, datum.str().size() - 3)), parsed));
    const std::string beyond = std::string("\x22\x04") + "abc";  // four bytes of which three are there
    ProtoReader reader(view_of(beyond));
    CHECK_FALSE(reader.next());
    CHECK_FALSE(reader.ok());
    CHECK_FALSE(parse_datum(view_of(std::string("\x22\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F", 10)), parsed));
}

TEST_CASE("shards: an index is what was read; a stale or damaged one is not taken") {
    for (const char* name : all_shards) {
        CAPTURE(name);
        const ShardKind kind = kind_of(name);
        const ShardIndex index = build_index(shard_path(name), kind);
        const int64_t bytes = static_cast<int64_t>(test::read_file(shard_path(name)).size());
        const ShardStamp stamp{bytes, 7, 9};
        const std::string packed = index.pack(kind, stamp);
        ShardIndex back;
        REQUIRE(back.unpack(view_of(packed), kind, stamp));
        CHECK(back.pack(kind, stamp) == packed);
        CHECK_FALSE(back.unpack(view_of(packed), kind, {bytes, 8, 9}));
        CHECK_FALSE(back.unpack(view_of(packed), kind, {bytes + 1, 7, 9}));
        CHECK_FALSE(back.unpack(view_of(packed), kind, {bytes, 7, 8}));
        for (size_t i = 0; i < packed.size(); i += 7) {
            std::string damaged = packed;
            damaged[i] = static_cast<char>(damaged[i] ^ 4);
            CHECK_FALSE(back.unpack(view_of(damaged), kind, stamp));
            CHECK_FALSE(back.unpack(view_of(packed.substr(0, i)), kind, stamp));
        }
    }
}

TEST_CASE("shards: an index is kept beside the shard and made anew when the shard changed") {
    const TempFolder folder;
    const std::string shard = folder.path("x.tar"), index_file = shard + ".rn50idx";
    folder.write("x.tar", test::read_file(shard_path("webdataset.tar")));
    CHECK(load_indices({shard}, ShardKind::tar)[0].size() == 3);
    const std::vector<uint8_t> kept = test::read_file(index_file);
    folder.write("x.tar.rn50idx", std::string("rubbish"));
    CHECK(load_indices({shard}, ShardKind::tar)[0].size() == 3);
    CHECK(test::read_file(index_file) == kept);
    folder.write("x.tar", test::read_file(shard_path("gnu.tar")));
    CHECK(load_indices({shard}, ShardKind::tar)[0].size() == 2);
    CHECK(test::read_file(index_file) != kept);
    CHECK(error_of([&] { load_indices({shard, folder.path("absent.tar")}, ShardKind::tar); }).code() == Exit::data);
}

TEST_CASE("shards: an index is made anew for another shard of the same size and time") {
    const TempFolder folder;
    const std::string shard = folder.path("x.tar");
    const auto write = [&](const std::string& label) {
        folder.write("x.tar", tar_member("0.jpg", std::string(200'000, 'x')) + tar_member("0.cls", label) +
                                  std::string(1024, '\0'));
        const std::filesystem::file_time_type day{std::chrono::hours(24 * 365)};
        std::filesystem::last_write_time(shard, day);
    };
    write("1");
    CHECK(lacks_an_index({shard}, ShardKind::tar));
    CHECK(load_indices({shard}, ShardKind::tar)[0].entry(0).label == 1);
    CHECK_FALSE(lacks_an_index({shard}, ShardKind::tar));
    write("2");
    CHECK(load_indices({shard}, ShardKind::tar)[0].entry(0).label == 2);
    std::filesystem::last_write_time(shard, std::filesystem::file_time_type::clock::now());
    CHECK(lacks_an_index({shard}, ShardKind::tar));
    CHECK(lacks_an_index({folder.path("absent.tar")}, ShardKind::tar));
}

TEST_CASE("shards: a picture of more than a gigabyte is left out by name") {
    const TempFolder folder;
    const std::string shard = folder.path("x.tar");
    const int64_t size = largest_picture + 512;
    std::ofstream out(shard, std::ios::binary);
    out << tar_member("0.jpg", "small") << tar_member("0.cls", "0") << tar_header("1.jpg", size);
    out.seekp(size, std::ios::cur);  // sparse: nothing of it lies on the disk
    out << tar_member("1.cls", "0") << std::string(1024, '\0');
    out.close();
    const ShardIndex index = build_index(shard, ShardKind::tar);
    CHECK(index.size() == 1);
    REQUIRE(index.left_out().count("larger than a gigabyte") == 1);
    CHECK(index.left_out().at("larger than a gigabyte").example == "1.jpg");
}

TEST_CASE("shards: more of them than files may be open are read all the same") {
    const TempFolder folder;
    std::vector<std::string> paths;
    for (int i = 0; i < 60; ++i) {
        folder.write(cat(i, ".tar"),
                     tar_member("0.jpg", cat("picture ", i)) + tar_member("0.cls", "0") + std::string(1024, '\0'));
        paths.push_back(folder.path(cat(i, ".tar")));
    }
    const auto open = [&] {
        ShardSet set;
        set.paths = paths;
        set.indices = load_indices(paths, ShardKind::tar);
        return make_indexed_source(std::move(set), std::vector<std::vector<int32_t>>(paths.size(), {0}), {"all"});
    };
    const auto a = open(), b = open(), c = open();
    rlimit before{};
    REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
    const rlimit low{64, before.rlim_max};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &low) == 0);
    std::vector<uint8_t> bytes;
    int64_t right = 0;
    std::string fault;
    try {
        for (const Source* source : {a.get(), b.get(), c.get(), a.get()})
            for (int64_t i = 0; i < 60; ++i) {
                source->read(i, bytes);
                right += std::string(bytes.begin(), bytes.end()) == cat("picture ", i);
            }
    } catch (const Error& error) {
        fault = error.what();
    }
    setrlimit(RLIMIT_NOFILE, &before);
    CHECK(fault == "");
    CHECK(right == 240);
}

TEST_CASE("shards: a signal ends the making of indices") {
    const TempFolder folder;
    folder.write("x.tar", test::read_file(shard_path("webdataset.tar")));
    const std::string shard = folder.path("x.tar");
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        catch_interrupts(false);
        raise(SIGTERM);
        try {
            load_indices({shard}, ShardKind::tar);
        } catch (const Interrupted& stopped) {
            _exit(stopped.signal() == SIGTERM ? 7 : 8);
        }
        _exit(9);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(WEXITSTATUS(status) == 7);
    CHECK_FALSE(std::filesystem::exists(shard + ".rn50idx"));
}

TEST_CASE("shards: a shard that vanishes or shrinks in the middle of an epoch") {
    const TempFolder folder;
    const std::string path = folder.path("x.tfrecord");
    folder.write("x.tfrecord", test::read_file(shard_path("tensorflow.tfrecord")));
    std::vector<uint8_t> bytes;
    {
        const auto unread = source_of(path, ShardKind::tfrecord), open = source_of(path, ShardKind::tfrecord);
        open->read(0, bytes);
        std::filesystem::remove(path);
        CHECK_NOTHROW(open->read(1, bytes));  // the file lives as long as it is open
        CHECK_THROWS_AS(unread->read(1, bytes), ReadError);
        const Error error = error_of([&] { unread->read(1, bytes); });
        CHECK(error.code() == Exit::data);
        CHECK(std::string(error.what()).rfind(path + "/n_1.JPEG: ", 0) == 0);
        try {
            unread->read(1, bytes);
        } catch (const ReadError& gone) {
            CHECK_FALSE(gone.gone());  // all of its pictures are missing, none of them is at fault
        }
        CHECK_NOTHROW(unread->prefetch(1));
    }
    folder.write("x.tfrecord", test::read_file(shard_path("tensorflow.tfrecord")));
    const auto source = source_of(path, ShardKind::tfrecord);
    source->read(0, bytes);
    std::filesystem::resize_file(path, 1500);
    CHECK(contains(error_of([&] { source->read(2, bytes); }).what(), "shorter"));
    CHECK_THROWS_AS(source->read(2, bytes), ReadError);
    folder.write("x.tfrecord", std::vector<uint8_t>(3040, 1));
    CHECK(contains(error_of([&] { source->read(1, bytes); }).what(), "wrong checksum"));
}
