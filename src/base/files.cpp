#include "base/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <iomanip>

#include "base/error.h"

namespace rn50 {

namespace fs = std::filesystem;

namespace {

std::string remedy_for(int error) {
    switch (error) {
        case ENOSPC:
        case EDQUOT:
            return "free space there or choose a folder on another disk; an earlier version of the file is untouched";
        case EFBIG:
            return "files of this size are not allowed here (ulimit -f); an earlier version of the file is untouched";
        case EACCES:
        case EPERM:
        case EROFS:
            return "check who may write there, or choose another folder";
        case ENOENT:
        case ENOTDIR:
            return "check the path: a folder of it is missing";
        default:
            return "check the disk and its file system (dmesg); an earlier version of the file is untouched";
    }
}

[[noreturn]] void fail_write(const std::string& doing, const std::string& path) {
    const int error = errno;
    throw Error(Exit::data, with_errno(cat(doing, " ", path)), remedy_for(error));
}

fs::path folder_of(const std::string& path) {
    const fs::path folder = fs::path(path).parent_path();
    return folder.empty() ? fs::path(".") : folder;
}

constexpr char marker[] = ".tmp-";

/// Removes PATH.tmp-<pid> of processes that are no more.
void remove_leftovers(const std::string& path) {
    const std::string prefix = fs::path(path).filename().string() + marker;
    std::error_code ignored;  // tidying up only: a folder that cannot be listed will say so when it is written
    for (fs::directory_iterator entry(folder_of(path), ignored), end; !ignored && entry != end;
         entry.increment(ignored)) {
        const std::string name = entry->path().filename().string();
        const std::string digits = name.compare(0, prefix.size(), prefix) == 0 ? name.substr(prefix.size()) : "";
        if (digits.empty() || digits.size() > 9 || digits.find_first_not_of("0123456789") != std::string::npos)
            continue;
        if (kill(static_cast<pid_t>(std::stoi(digits)), 0) != 0 && errno == ESRCH) unlink(entry->path().c_str());
    }
}

std::string show_size(double bytes) {
    return bytes < 1e6 ? cat(static_cast<int64_t>(bytes), " bytes")
                       : cat(std::fixed, std::setprecision(1), bytes / 1e6, " MB");
}

void check_free_space(const std::string& path, int64_t expected_bytes) {
    struct statvfs disk {};
    if (expected_bytes <= 0 || statvfs(folder_of(path).c_str(), &disk) != 0 || disk.f_blocks == 0) return;
    const auto blocks = geteuid() == 0 ? disk.f_bfree : disk.f_bavail;
    const double free = static_cast<double>(blocks) * static_cast<double>(disk.f_frsize);
    if (free >= static_cast<double>(expected_bytes)) return;
    throw Error(Exit::data,
                cat("writing ", path, ": it needs ", show_size(static_cast<double>(expected_bytes)),
                    " and the disk has ", show_size(free), " left"),
                remedy_for(ENOSPC));
}

}  // namespace

AtomicFile::AtomicFile(const std::string& path, int64_t expected_bytes)
    : path_(path), temporary_(path + marker + std::to_string(getpid())) {
    remove_leftovers(path_);
    check_free_space(path_, expected_bytes);
    descriptor_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (descriptor_ < 0) fail_write("making", temporary_);
}

AtomicFile::~AtomicFile() {
    discard();
}

void AtomicFile::discard() {
    if (descriptor_ >= 0) close(descriptor_);
    descriptor_ = -1;
    if (!temporary_.empty()) unlink(temporary_.c_str());
    temporary_.clear();
}

void AtomicFile::write(const void* data, int64_t bytes) {
    RN50_REQUIRE(descriptor_ >= 0, "write to ", path_, " after its commit");
    const char* at = static_cast<const char*>(data);
    while (bytes > 0) {
        const ssize_t written = ::write(descriptor_, at, static_cast<size_t>(bytes));
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) fail_write("writing", path_);
        at += written;
        bytes -= written;
    }
}

void AtomicFile::commit() {
    RN50_REQUIRE(descriptor_ >= 0, "second commit of ", path_);
    if (fsync(descriptor_) != 0) fail_write("flushing", path_);
    const int descriptor = descriptor_;
    descriptor_ = -1;
    if (close(descriptor) != 0) fail_write("closing", path_);
    if (rename(temporary_.c_str(), path_.c_str()) != 0) fail_write("replacing", path_);
    temporary_.clear();
    // The file is in place; what is left is to make its name survive a power cut. Some network file systems cannot.
    const int folder = open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return;
    const bool flushed = fsync(folder) == 0 || errno == EINVAL || errno == ENOTSUP;
    const int error = errno;
    close(folder);
    errno = error;
    if (!flushed) fail_write("flushing the folder of", path_);
}

// O_NONBLOCK: a named pipe in place of a file must not hang the program; regular files do not care.
InputFile::InputFile(const std::string& path)
    : path_(path), descriptor_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    struct stat status {};
    if (descriptor_ < 0 || fstat(descriptor_, &status) != 0) {
        const int error = errno;
        if (descriptor_ >= 0) close(descriptor_);
        throw Error(Exit::data, cat(path, ": cannot be read: ", std::strerror(error)));
    }
    if (!S_ISREG(status.st_mode)) {
        close(descriptor_);
        throw Error(Exit::data, cat(path, ": is not a file"));
    }
    size_ = status.st_size;
    modified_ = int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
}

InputFile::~InputFile() {
    close(descriptor_);
}

int64_t InputFile::read(int64_t offset, void* dst, int64_t bytes) const {
    int64_t done = 0;
    while (done < bytes) {
        const ssize_t got =
            pread(descriptor_, static_cast<char*>(dst) + done, static_cast<size_t>(bytes - done), offset + done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) throw Error(Exit::data, cat(path_, ": cannot be read: ", std::strerror(errno)));
        if (got == 0) break;
        done += got;
    }
    return done;
}

// Both are advice: a file system that does not take it loses nothing.
void InputFile::will_need(int64_t offset, int64_t bytes) const {
    posix_fadvise(descriptor_, offset, bytes, POSIX_FADV_WILLNEED);
}

void InputFile::forget() const {
    posix_fadvise(descriptor_, 0, 0, POSIX_FADV_DONTNEED);
}

std::string read_file(const std::string& path) {
    const auto fail = [&]() {
        throw Error(Exit::data, with_errno("reading " + path), "check that the file is there and may be read");
    };
    const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) fail();
    std::string bytes;
    struct stat status {};
    if (fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode)) bytes.reserve(static_cast<size_t>(status.st_size));
    char buffer[1 << 16];
    ssize_t got = 0;
    while ((got = ::read(descriptor, buffer, sizeof buffer)) != 0) {
        if (got > 0) bytes.append(buffer, static_cast<size_t>(got));
        if (got < 0 && errno != EINTR) break;
    }
    const int error = errno;
    close(descriptor);
    errno = error;
    if (got < 0) fail();
    return bytes;
}

void make_folders(const std::string& path) {
    std::error_code error;
    fs::create_directories(path, error);
    if (!error && !fs::is_directory(path, error)) error = std::make_error_code(std::errc::not_a_directory);
    if (error)
        throw Error(Exit::data, cat("making the folder ", path, ": ", error.message()),
                    "name a folder that can be written");
}

void write_file_atomic(const std::string& path, const std::string& bytes) {
    AtomicFile file(path, static_cast<int64_t>(bytes.size()));
    file.write(bytes);
    file.commit();
}

}  // namespace rn50
