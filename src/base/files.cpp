#include "base/files.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <iomanip>
#include <map>
#include <mutex>
#include <vector>

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

/// This host's name, fit to be a part of a file's.
const std::string& host() {
    static const std::string name = [] {
        char text[256] = {};
        gethostname(text, sizeof text - 1);
        std::string safe(text, strnlen(text, 40));
        for (char& c : safe)
            if (!std::isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '-') c = '_';
        return safe;
    }();
    return name;
}

/// The process that NAME.tmp-<host>-<pid> belongs to, if it is one of this host; else 0. `target` becomes NAME.
pid_t writer_of(const std::string& name, std::string& target) {
    const std::string middle = marker + host() + "-";
    const size_t at = name.rfind(middle);
    const std::string digits = at == std::string::npos ? "" : name.substr(at + middle.size());
    if (digits.empty() || digits.size() > 9 || digits.find_first_not_of("0123456789") != std::string::npos) return 0;
    target = name.substr(0, at);
    return static_cast<pid_t>(std::stoi(digits));
}

bool is_dead(pid_t process) {
    return kill(process, 0) != 0 && errno == ESRCH;
}

/// What processes that are no more left in folders. A folder is listed once: shards and their indices lie there by the
/// thousand, and to list them for each that is written would take the square of their number.
class Leftovers {
  public:
    void remove(const std::string& path) {
        const std::lock_guard<std::mutex> lock(mutex_);
        const fs::path folder = folder_of(path);
        const auto [found, is_new] = by_folder_.emplace(folder.string(), Files());
        if (is_new) list(folder, found->second);
        const auto mine = found->second.find(fs::path(path).filename().string());
        if (mine == found->second.end()) return;
        std::string target;
        for (const std::string& leftover : mine->second)
            if (is_dead(writer_of(leftover, target))) unlink(leftover.c_str());
        found->second.erase(mine);
    }

  private:
    using Files = std::map<std::string, std::vector<std::string>>;  ///< by the name of what was to be written

    static void list(const fs::path& folder, Files& files) {
        std::error_code ignored;  // tidying up only: a folder that cannot be listed will say so when it is written
        for (fs::directory_iterator entry(folder, ignored), end; !ignored && entry != end; entry.increment(ignored)) {
            std::string target;
            const pid_t writer = writer_of(entry->path().filename().string(), target);
            if (writer > 0 && is_dead(writer)) files[target].push_back(entry->path().string());
        }
    }
    std::mutex mutex_;
    std::map<std::string, Files> by_folder_;
};

Leftovers& leftovers() {
    static Leftovers all;
    return all;
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

std::string temporary_name(const std::string& path) {
    return cat(path, marker, host(), "-", getpid());
}

AtomicFile::AtomicFile(const std::string& path, int64_t expected_bytes)
    : path_(path), temporary_(temporary_name(path)) {
    leftovers().remove(path_);
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

void AtomicFile::close_and_rename() {
    const int descriptor = descriptor_;
    descriptor_ = -1;
    if (close(descriptor) != 0) fail_write("closing", path_);
    if (rename(temporary_.c_str(), path_.c_str()) != 0) fail_write("replacing", path_);
    temporary_.clear();
}

void AtomicFile::commit_in_memory() {
    RN50_REQUIRE(descriptor_ >= 0, "second commit of ", path_);
    close_and_rename();
}

void AtomicFile::commit() {
    RN50_REQUIRE(descriptor_ >= 0, "second commit of ", path_);
    if (fsync(descriptor_) != 0) fail_write("flushing", path_);
    close_and_rename();
    // The file is in place; what is left is to make its name survive a power cut. Some network file systems cannot.
    const int folder = open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return;
    const bool flushed = fsync(folder) == 0 || errno == EINVAL || errno == ENOTSUP;
    const int error = errno;
    close(folder);
    errno = error;
    if (!flushed) fail_write("flushing the folder of", path_);
}

namespace {

const char* remedy_for_reading(int error) {
    switch (error) {
        case EMFILE:
        case ENFILE:
            return "allow more open files (ulimit -n)";
        case ENOMEM:
            return "choose fewer --workers, or free memory";
        case ENOENT:
        case ENOTDIR:
            return "bring it back, or check that the disk or the network folder is mounted";
        case EACCES:
        case EPERM:
            return "give yourself the right to read it";
        case ESTALE:
            return "leave the data as they are while they are in use";
        default:
            return "check the disk or the network it lies on (dmesg)";
    }
}

/// Whether the folder that holds a file, or what a link in its place leads to, is there and open to us.
bool folder_is_there(std::string path) {
    for (int links = 0; links < 40; ++links) {
        std::error_code error;
        const fs::path folder = folder_of(path), target = fs::read_symlink(path, error);
        if (error) return fs::is_directory(folder, error) && access(folder.c_str(), R_OK | X_OK) == 0;
        path = (target.is_absolute() ? target : folder / target).string();
    }
    return true;  // links in a circle
}

bool is_about_one_file(int error) {
    return error == ENOENT || error == EACCES || error == EPERM || error == ELOOP || error == ENAMETOOLONG;
}

ReadError cannot_read(const std::string& path, int error) {
    return ReadError(cat(path, ": cannot be read: ", std::strerror(error)), error,
                     is_about_one_file(error) && folder_is_there(path));
}

}  // namespace

ReadError::ReadError(const std::string& what, int error, bool gone)
    : Error(Exit::data, what, remedy_for_reading(error)), error_(error), gone_(gone) {}

// O_NONBLOCK: a named pipe in place of a file must not hang the program; regular files do not care.
InputFile::InputFile(const std::string& path)
    : path_(path), descriptor_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    struct stat status {};
    if (descriptor_ < 0 || fstat(descriptor_, &status) != 0) {
        const int error = errno;
        if (descriptor_ >= 0) close(descriptor_);
        throw cannot_read(path, error);
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
        if (got < 0) throw cannot_read(path_, errno);
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

void raise_open_files() {
    constexpr rlim_t enough = 65'536;  // some libraries go through all that may be open
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    const rlim_t wanted = std::min(limit.rlim_max, enough);
    if (limit.rlim_cur >= wanted) return;
    limit.rlim_cur = wanted;
    setrlimit(RLIMIT_NOFILE, &limit);  // without success fewer files are kept open
}

namespace {
std::atomic<int64_t> open_places_taken{0};
}

bool take_open_place() {
    rlimit limit{};
    const int64_t allowed = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < INT_MAX
                                ? static_cast<int64_t>(limit.rlim_cur) / 2
                                : INT_MAX;
    if (open_places_taken.fetch_add(1) < allowed) return true;
    --open_places_taken;
    return false;
}

void give_back_open_places(int64_t places) {
    open_places_taken -= places;
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
