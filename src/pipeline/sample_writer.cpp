#include "pipeline/sample_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <future>
#include <iomanip>
#include <nlohmann/json.hpp>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/files.h"
#include "pipeline/datum.h"
#include "pipeline/folder.h"
#include "pipeline/lmdb.h"
#include "pipeline/shard_source.h"
#include "pipeline/tar.h"
#include "pipeline/tfrecord.h"

namespace rn50 {

namespace fs = std::filesystem;

namespace {

std::string numbered(int64_t number, int digits) {
    return cat(std::setfill('0'), std::setw(digits), number);
}

Error reads_back_wrong(const std::string& file, const std::string& reason) {
    return Error(Exit::data, cat(file, ": what was written reads back differently: ", reason),
                 "check the disk and its file system (dmesg), then begin anew");
}

std::string folder_of_split(const WriterOptions& options) {
    return options.split == "all" ? options.folder : join(options.folder, options.split);
}

/// Checksums and labels of the pictures of the part at hand, to hold the disk against.
class Written {
  public:
    void add(const PackedSample& sample) {
        crcs_.push_back(crc32c(sample.picture.data, sample.picture.size));
        labels_.push_back(sample.label);
        bytes_ += static_cast<int64_t>(sample.picture.size);
    }
    int64_t count() const { return static_cast<int64_t>(crcs_.size()); }
    int64_t bytes() const { return bytes_; }
    void clear() { *this = Written(); }

    void check(const std::string& file, int64_t i, ByteView read) const {
        if (crc32c(read.data, read.size) != crcs_[static_cast<size_t>(i)])
            throw reads_back_wrong(file, cat("picture ", i));
    }
    void check_label(const std::string& file, int64_t i, int64_t read) const {
        const int64_t written = labels_[static_cast<size_t>(i)];
        if (read != written)
            throw reads_back_wrong(file, cat("the class of picture ", i, " is ", read, " instead of ", written));
    }
    void check_shard(const std::string& path, const Source& source) const {
        std::vector<uint8_t> bytes;
        for (int64_t i = 0; i < count(); ++i) {
            source.read(i, bytes);
            check(path, i, {bytes.data(), bytes.size()});
            check_label(path, i, source.label(i));
        }
    }

  private:
    std::vector<uint32_t> crcs_;
    std::vector<int64_t> labels_;
    int64_t bytes_ = 0;
};

/// A shard of `pictures` pictures as training reads it: with its index, and with classes.txt.
std::unique_ptr<Source> source_of_written(const std::string& path, ShardKind kind, int64_t pictures,
                                          const WriterOptions& options) {
    InputFile(path).forget();  // what is read back shall come from the disk
    ShardIndex index = build_index(path, kind);
    if (index.size() != pictures || !index.left_out().empty())
        throw reads_back_wrong(path, cat(index.size(), " pictures instead of ", pictures));
    keep_index(path, kind, index, stamp_of(InputFile(path)));
    ShardSet set;
    set.kind = kind;
    set.paths = {path};
    set.indices.push_back(std::move(index));
    set.classes_file = join(options.folder, "classes.txt");
    std::vector<std::string> warnings;  // of classes that have no picture here
    if (classes_of(set, 0, warnings) != options.classes)
        throw reads_back_wrong(set.classes_file, "its classes are others");
    return make_shard_source(std::move(set), options.classes, 0, false, warnings);
}

/// tar and TFRecord: a row of files.
class ShardWriter : public SampleWriter {
  public:
    explicit ShardWriter(const WriterOptions& options)
        : options_(options),
          kind_(options.format == PackFormat::tfrecord ? ShardKind::tfrecord : ShardKind::tar),
          parts_(options.done),
          begun_(static_cast<int64_t>(parts_.size())) {}

    bool add(const PackedSample& sample) override {
        if (verifying_.valid() && verifying_.wait_for(std::chrono::seconds(0)) == std::future_status::ready) settle();
        const std::string record = kind_ == ShardKind::tar ? tar_sample(sample) : tfrecord_sample(sample);
        const bool full = file_ && bytes_ + static_cast<int64_t>(record.size()) > options_.part_bytes;
        if (full) finish_shard();
        if (!file_) {
            file_ = std::make_unique<AtomicFile>(join(options_.folder, name_of_next()));
            bytes_ = 0;
        }
        file_->write(record);
        bytes_ += static_cast<int64_t>(record.size());
        written_.add(sample);
        return full;
    }

    void finish() override {
        if (file_) finish_shard();
        settle();
        if (kind_ == ShardKind::tar) return;
        // Only now is it known how many there are.
        for (size_t i = 0; i < parts_.size(); ++i) {
            const std::string name = cat(options_.split, "-", numbered(static_cast<int64_t>(i), 5), "-of-",
                                         numbered(static_cast<int64_t>(parts_.size()), 5));
            for (const char* end : {"", ".rn50idx"}) {
                const std::string from = join(options_.folder, parts_[i].file + end);
                std::error_code missing;
                if (!fs::exists(from, missing)) continue;  // an earlier run got as far as this
                if (std::rename(from.c_str(), join(options_.folder, name + end).c_str()) != 0)
                    throw Error(Exit::data, with_errno("renaming " + from), "check who may write there");
            }
            parts_[i].file = name;
        }
    }

    const std::vector<WrittenPart>& parts() const override { return parts_; }

  private:
    std::string name_of_next() const {
        return kind_ == ShardKind::tar ? cat(options_.split, "-", numbered(begun_, 6), ".tar")
                                       : cat(options_.split, "-", numbered(begun_, 5), ".part");
    }

    /// .jpg, .cls and .json, as WebDataset's readers want them; the key is the sample's number, since names of files
    /// may hold what a key may not.
    std::string tar_sample(const PackedSample& sample) const {
        const std::string key = numbered(sample.index, 9);
        const nlohmann::ordered_json facts{
            {"label", sample.label}, {"class", sample.class_name}, {"path", sample.path}};
        std::string out;
        const auto member = [&](const std::string& end, const std::string& data) {
            out += tar_header(key + end, static_cast<int64_t>(data.size()));
            out += data;
            out.resize((out.size() + tar_block - 1) / tar_block * tar_block);
        };
        member(extension_of_picture(sample.picture), sample.picture.str());
        member(".cls", std::to_string(sample.label));
        member(".json", facts.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
        return out;
    }

    std::string tfrecord_sample(const PackedSample& sample) const {
        const std::string end = extension_of_picture(sample.picture);
        const char* const format = end == ".jpg" ? "JPEG" : end == ".png" ? "PNG" : end == ".bmp" ? "BMP" : "PNM";
        return tfrecord_of(serialize_example(
            {sample.picture, sample.label, sample.class_name, sample.path, format, sample.height, sample.width}));
    }

    void finish_shard() {
        const std::string name = name_of_next(), path = join(options_.folder, name);
        if (kind_ == ShardKind::tar) {
            file_->write(std::string(static_cast<size_t>(2 * tar_block), '\0'));
            bytes_ += 2 * tar_block;
        }
        file_->commit();
        file_.reset();
        settle();  // the one before: the disk is not to fall behind by more than one
        verifying_ = std::async(std::launch::async, [this, path, name, bytes = bytes_, written = std::move(written_)] {
            written.check_shard(path, *source_of_written(path, kind_, written.count(), options_));
            return WrittenPart{name, written.count(), bytes};
        });
        written_.clear();
        ++begun_;
    }

    /// Waits for the shard that is being read back, if there is one.
    void settle() {
        if (verifying_.valid()) parts_.push_back(verifying_.get());
    }

    const WriterOptions options_;
    const ShardKind kind_;
    std::vector<WrittenPart> parts_;
    std::unique_ptr<AtomicFile> file_;
    int64_t bytes_ = 0;  ///< of the shard at hand
    Written written_;
    int64_t begun_;  ///< shards that are written, read back or not
    std::future<WrittenPart> verifying_;
};

/// SPLIT/data.mdb with Caffe's keys; a part is a transaction.
class DatabaseWriter : public SampleWriter {
  public:
    explicit DatabaseWriter(const WriterOptions& options)
        : options_(options), folder_(folder_of_split(options)), parts_(options.done) {
        make_folders(folder_);
        if (parts_.empty()) std::remove(join(folder_, "data.mdb").c_str());
        // Values begin on a page of their own, and copies of pages wait for the commit.
        const int64_t largest = 4 * options.expected_bytes + 16384 * options.expected_pictures + (int64_t{1} << 30);
        writer_ = std::make_unique<LmdbWriter>(folder_, largest);
    }

    bool add(const PackedSample& sample) override {
        const bool full =
            written_.count() > 0 && written_.bytes() + static_cast<int64_t>(sample.picture.size) > options_.part_bytes;
        if (full) finish_part();
        std::string key = cat(numbered(sample.index, 8), "_", sample.path);
        if (sample.index > 99'999'999)
            throw Error(Exit::data, "a database takes 100 million pictures", "choose --format webdataset or tfrecord");
        key.resize(std::min(key.size(), LmdbWriter::max_key));
        writer_->put(key, serialize_datum(sample.picture, sample.label, sample.path));
        written_.add(sample);
        keys_.push_back(std::move(key));
        return full;
    }

    void finish() override {
        if (written_.count() > 0) finish_part();
        writer_.reset();
        int64_t pictures = 0;
        for (const WrittenPart& part : parts_)
            pictures += part.pictures;
        source_of_written(join(folder_, "data.mdb"), ShardKind::lmdb, pictures, options_);
    }
    const std::vector<WrittenPart>& parts() const override { return parts_; }

  private:
    void finish_part() {
        writer_->commit();
        const std::string path = join(folder_, "data.mdb");
        // liblmdb writes past the memory that it maps, so what was just written leaves it with this.
        InputFile(path).forget();
        for (size_t i = 0; i < keys_.size(); ++i) {
            const std::string value = writer_->get(keys_[i]);
            Datum datum;
            if (!parse_datum({reinterpret_cast<const uint8_t*>(value.data()), value.size()}, datum))
                throw reads_back_wrong(path, keys_[i]);
            written_.check(path, static_cast<int64_t>(i), datum.data);
            written_.check_label(path, static_cast<int64_t>(i), datum.label);
        }
        parts_.push_back({"data.mdb", written_.count(), written_.bytes()});
        written_.clear();
        keys_.clear();
    }

    const WriterOptions options_;
    const std::string folder_;
    std::vector<WrittenPart> parts_;
    std::unique_ptr<LmdbWriter> writer_;
    std::vector<std::string> keys_;  ///< of the part at hand
    Written written_;
};

/// SPLIT/CLASS/FILE; a part is a stretch of files.
class FolderWriter : public SampleWriter {
  public:
    explicit FolderWriter(const WriterOptions& options)
        : options_(options), folder_(folder_of_split(options)), parts_(options.done) {
        make_folders(folder_);
    }

    bool add(const PackedSample& sample) override {
        const bool full =
            written_.count() > 0 && written_.bytes() + static_cast<int64_t>(sample.picture.size) > options_.part_bytes;
        if (full) finish_part();
        const std::string path = join(folder_, sample.path);
        make_folders(fs::path(path).parent_path().string());
        write(path, sample.picture);
        if (files_.empty()) first_ = sample.path;
        written_.add(sample);
        files_.push_back(path);
        return full;
    }
    void finish() override {
        if (written_.count() > 0) finish_part();
    }
    const std::vector<WrittenPart>& parts() const override { return parts_; }

  private:
    static void write(const std::string& path, ByteView bytes) {
        const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        ssize_t done = 0;
        size_t at = 0;
        while (descriptor >= 0 && at < bytes.size && (done = ::write(descriptor, bytes.data + at, bytes.size - at)) > 0)
            at += static_cast<size_t>(done);
        const bool failed = descriptor < 0 || at < bytes.size;
        const std::string reason = failed ? with_errno("writing " + path) : "";
        if (descriptor >= 0) close(descriptor);
        if (failed) throw Error(Exit::data, reason, "free space there or choose a folder on another disk");
    }

    void finish_part() {
        // One flush for all: a million files, each flushed alone, take hours.
        const int folder = open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        const bool flushed = folder >= 0 && syncfs(folder) == 0;
        const std::string reason = flushed ? "" : with_errno("flushing " + folder_);
        if (folder >= 0) close(folder);
        if (!flushed) throw Error(Exit::data, reason, "check the disk and its file system (dmesg)");
        std::vector<uint8_t> bytes;
        for (size_t i = 0; i < files_.size(); ++i) {
            const InputFile file(files_[i]);
            file.forget();
            bytes.resize(static_cast<size_t>(file.size()));
            bytes.resize(static_cast<size_t>(file.read(0, bytes.data(), file.size())));
            written_.check(files_[i], static_cast<int64_t>(i), {bytes.data(), bytes.size()});
        }
        parts_.push_back({first_, written_.count(), written_.bytes()});
        written_.clear();
        files_.clear();
    }

    const WriterOptions options_;
    const std::string folder_;
    std::vector<WrittenPart> parts_;
    std::vector<std::string> files_;  ///< of the part at hand
    std::string first_;               ///< the name of its first one
    Written written_;
};

}  // namespace

std::unique_ptr<SampleWriter> make_writer(const WriterOptions& options) {
    if (options.format == PackFormat::lmdb) return std::make_unique<DatabaseWriter>(options);
    if (options.format == PackFormat::folder) return std::make_unique<FolderWriter>(options);
    return std::make_unique<ShardWriter>(options);
}

const char* extension_of_picture(ByteView picture) {
    const auto begins = [&](const char* magic, size_t size) {
        return picture.size >= size && std::memcmp(picture.data, magic, size) == 0;
    };
    if (begins("\xFF\xD8", 2)) return ".jpg";
    if (begins("\x89PNG", 4)) return ".png";
    if (begins("BM", 2)) return ".bmp";
    if (begins("P5", 2)) return ".pgm";
    if (begins("P6", 2)) return ".ppm";
    return ".tga";
}

std::string safe_path(const std::string& path) {
    std::string safe;
    for (size_t at = 0; at < path.size();) {
        const size_t end = std::min(path.find('/', at), path.size());
        std::string part = path.substr(at, end - at);
        at = end + 1;
        if (part.empty() || part == "." || part == "..") continue;
        for (char& c : part)
            if (static_cast<unsigned char>(c) < 32 || c == 127) c = '_';
        if (part[0] == '.') part.insert(part.begin(), '_');  // hidden files are no pictures
        if (part.size() > 200) part.erase(0, part.size() - 200);
        safe += (safe.empty() ? "" : "/") + part;
    }
    return safe;
}

}  // namespace rn50
