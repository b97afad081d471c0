#include "pipeline/source.h"

#include <sys/stat.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/files.h"

namespace rn50 {

namespace {

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
            const InputFile file(at(i).path);
            file.will_need(0, file.size());
        } catch (const Error&) {  // read() will say it
        }
    }
    std::string format() const override { return "folder"; }
    std::vector<std::string> shards() const override { return {}; }

    void read(int64_t i, std::vector<uint8_t>& bytes) const override {
        const InputFile file(at(i).path);
        bytes.resize(static_cast<size_t>(file.size()));
        // If it became shorter meanwhile, the decoder will say what is missing.
        bytes.resize(static_cast<size_t>(file.read(0, bytes.data(), file.size())));
    }

  private:
    const Sample& at(int64_t i) const {
        RN50_REQUIRE(i >= 0 && i < size(), "picture ", i, " of ", size());
        return samples_[static_cast<size_t>(i)];
    }
    std::vector<Sample> samples_;
    std::vector<std::string> classes_;
    std::string root_;
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
