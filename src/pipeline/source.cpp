#include "pipeline/source.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <mutex>
#include <new>
#include <unordered_map>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/files.h"

namespace rn50 {

namespace {

/// Files that prefetch() opened, for the read() that follows: on a network each opening is a way there and back.
class OpenedFiles {
  public:
    ~OpenedFiles() { give_back_open_places(static_cast<int64_t>(order_.size())); }

    void keep(int64_t i, std::shared_ptr<const InputFile> file) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (files_.count(i) != 0) return;
        // An epoch that was left leaves some that nobody reads: the oldest go.
        if (order_.size() >= most || !take_open_place()) {
            if (order_.empty()) return;
            files_.erase(order_.front());
            order_.pop_front();
        }
        order_.push_back(i);
        files_[i] = std::move(file);
    }

    /// Null: it was not opened ahead.
    std::shared_ptr<const InputFile> take(int64_t i) {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto found = files_.find(i);
        if (found == files_.end()) return nullptr;
        std::shared_ptr<const InputFile> file = std::move(found->second);
        files_.erase(found);
        order_.erase(std::find(order_.begin(), order_.end(), i));
        give_back_open_places(1);
        return file;
    }

  private:
    static constexpr size_t most = 512;  // a loader asks for four a worker
    std::mutex mutex_;
    std::unordered_map<int64_t, std::shared_ptr<const InputFile>> files_;
    std::deque<int64_t> order_;  ///< of their coming; each holds an open place
};

class ListSource : public Source {
  public:
    ListSource(std::vector<Sample> samples, std::vector<std::string> classes, std::string root)
        : samples_(std::move(samples)), classes_(std::move(classes)), root_(std::move(root)) {
        if (!root_.empty() && root_.back() != '/') root_ += '/';
        for (const Sample& sample : samples_)
            RN50_REQUIRE(sample.label >= 0 && sample.label < static_cast<int64_t>(classes_.size()), sample.path,
                         " has label ", sample.label, " of ", classes_.size(), " classes");
    }
    int64_t size() const override { return static_cast<int64_t>(samples_.size()); }
    int32_t label(int64_t i) const override { return at(i).label; }
    std::string name(int64_t i) const override { return at(i).path; }
    const std::vector<std::string>& classes() const override { return classes_; }
    std::string path_inside(int64_t i) const override {
        const std::string& path = at(i).path;
        return path.compare(0, root_.size(), root_) == 0 ? path.substr(root_.size()) : path;
    }
    int64_t stored_bytes(int64_t i) const override {
        struct stat status {};
        return stat(at(i).path.c_str(), &status) == 0 ? status.st_size : 0;
    }
    void prefetch(int64_t i) const override {
        try {
            const auto file = std::make_shared<const InputFile>(at(i).path);
            file->will_need(0, file->size());
            opened_.keep(i, file);
        } catch (const Error&) {  // read() will say it
        }
    }
    std::string format() const override { return "folder"; }
    std::vector<std::string> shards() const override { return {}; }

    void read(int64_t i, std::vector<uint8_t>& bytes) const override {
        std::shared_ptr<const InputFile> file = opened_.take(i);
        if (!file) file = std::make_shared<const InputFile>(at(i).path);
        if (file->size() > largest_picture) throw Error(Exit::data, cat(name(i), ": larger than a gigabyte"));
        try {
            bytes.resize(static_cast<size_t>(file->size()));
        } catch (const std::bad_alloc&) {
            throw ReadError(cat(name(i), ": there is not enough memory to read it"), ENOMEM);
        }
        // If it became shorter meanwhile, the decoder will say what is missing.
        bytes.resize(static_cast<size_t>(file->read(0, bytes.data(), file->size())));
    }

  private:
    const Sample& at(int64_t i) const {
        RN50_REQUIRE(i >= 0 && i < size(), "picture ", i, " of ", size());
        return samples_[static_cast<size_t>(i)];
    }
    std::vector<Sample> samples_;
    std::vector<std::string> classes_;
    std::string root_;
    mutable OpenedFiles opened_;
};

class SubsetSource : public Source {
  public:
    SubsetSource(std::shared_ptr<const Source> whole, std::vector<int64_t> indices)
        : whole_(std::move(whole)), indices_(std::move(indices)) {}
    int64_t size() const override { return static_cast<int64_t>(indices_.size()); }
    int32_t label(int64_t i) const override { return whole_->label(at(i)); }
    std::string name(int64_t i) const override { return whole_->name(at(i)); }
    void read(int64_t i, std::vector<uint8_t>& bytes) const override { whole_->read(at(i), bytes); }
    const std::vector<std::string>& classes() const override { return whole_->classes(); }
    std::string path_inside(int64_t i) const override { return whole_->path_inside(at(i)); }
    int64_t stored_bytes(int64_t i) const override { return whole_->stored_bytes(at(i)); }
    void prefetch(int64_t i) const override { whole_->prefetch(at(i)); }
    std::string format() const override { return whole_->format(); }
    std::vector<std::string> shards() const override { return whole_->shards(); }

  private:
    int64_t at(int64_t i) const {
        RN50_REQUIRE(i >= 0 && i < size(), "picture ", i, " of ", size());
        return indices_[static_cast<size_t>(i)];
    }
    std::shared_ptr<const Source> whole_;
    std::vector<int64_t> indices_;
};

}  // namespace

void Fingerprint::add(const std::string& name, int32_t label) {
    value_ = crc32c(name.data(), name.size(), value_);
    value_ = crc32c(&label, sizeof label, value_);
}

uint32_t fingerprint_of(const Source& source) {
    Fingerprint fingerprint;
    for (int64_t i = 0; i < source.size(); ++i)
        fingerprint.add(source.path_inside(i), source.label(i));
    return fingerprint.value();
}

std::unique_ptr<Source> make_list_source(std::vector<Sample> samples, std::vector<std::string> classes,
                                         const std::string& root) {
    return std::make_unique<ListSource>(std::move(samples), std::move(classes), root);
}

std::unique_ptr<Source> make_subset_source(std::shared_ptr<const Source> whole, std::vector<int64_t> indices) {
    return std::make_unique<SubsetSource>(std::move(whole), std::move(indices));
}

}  // namespace rn50
