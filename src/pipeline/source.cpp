#include "pipeline/source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace rn50 {

namespace {

Error cannot_read(const std::string& path) {
    return Error(Exit::data, cat(path, ": cannot be read: ", std::strerror(errno)));
}

/// Closes at the end of the scope.
class File {
  public:
    // O_NONBLOCK: a named pipe in place of a picture must not hang the run; regular files do not care.
    explicit File(const std::string& path) : descriptor_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
        if (descriptor_ < 0) throw cannot_read(path);
    }
    ~File() { close(descriptor_); }
    File(const File&) = delete;
    File& operator=(const File&) = delete;
    int descriptor() const { return descriptor_; }

  private:
    int descriptor_;
};

class ListSource : public Source {
  public:
    ListSource(std::vector<Sample> samples, std::vector<std::string> classes)
        : samples_(std::move(samples)), classes_(std::move(classes)) {
        for (const Sample& sample : samples_)
            RN50_REQUIRE(sample.label >= 0 && sample.label < static_cast<int64_t>(classes_.size()), sample.path,
                         " has label ", sample.label, " of ", classes_.size(), " classes");
    }
    int64_t size() const override { return static_cast<int64_t>(samples_.size()); }
    int32_t label(int64_t i) const override { return at(i).label; }
    std::string name(int64_t i) const override { return at(i).path; }
    const std::vector<std::string>& classes() const override { return classes_; }

    void read(int64_t i, std::vector<uint8_t>& bytes) const override {
        const std::string& path = at(i).path;
        const File file(path);
        struct stat status;
        if (fstat(file.descriptor(), &status) != 0) throw cannot_read(path);
        if (!S_ISREG(status.st_mode)) throw Error(Exit::data, cat(path, ": is not a file"));
        bytes.resize(static_cast<size_t>(status.st_size));
        size_t done = 0;
        while (done < bytes.size()) {
            const ssize_t got = ::read(file.descriptor(), bytes.data() + done, bytes.size() - done);
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) throw cannot_read(path);
            if (got == 0) break;  // it became shorter meanwhile; the decoder will say what is missing
            done += static_cast<size_t>(got);
        }
        bytes.resize(done);
    }

  private:
    const Sample& at(int64_t i) const {
        RN50_REQUIRE(i >= 0 && i < size(), "picture ", i, " of ", size());
        return samples_[static_cast<size_t>(i)];
    }
    std::vector<Sample> samples_;
    std::vector<std::string> classes_;
};

}  // namespace

std::unique_ptr<Source> make_list_source(std::vector<Sample> samples, std::vector<std::string> classes) {
    return std::make_unique<ListSource>(std::move(samples), std::move(classes));
}

}  // namespace rn50
