// Whole files: read at once, and written so that a crash or a full disk leaves the previous version untouched.
#pragma once

#include <cstdint>
#include <string>

#include "base/error.h"

namespace rn50 {

/// Bytes that could not be had, which says nothing about what they are: a disk or a network that fails, too many open
/// files, no memory, a file or a folder that is not there. It may pass, so whoever reads pictures tries again, and none
/// of it counts as a bad picture.
class ReadError : public Error {
  public:
    /// `error`: as in errno; it chooses the remedy. `gone`: see below.
    ReadError(const std::string& what, int error, bool gone = false);
    int error() const { return error_; }
    /// This one file is missing or closed to us, while the folder that it lies in is there and open: no disk that
    /// fails.
    bool gone() const { return gone_; }

  private:
    int error_;
    bool gone_;
};

/// PATH.tmp-<host>-<pid>: what `path` is called while this process writes it. Those of processes of this host that are
/// no more are removed by whoever writes to PATH next.
std::string temporary_name(const std::string& path);

/// A file that appears whole or not at all: bytes go to temporary_name(PATH), and commit() puts it in the place of
/// PATH. Without commit() the previous PATH stays and the temporary file is removed. Every failure throws
/// Error(Exit::data) that names the path and the remedy; after one the object only waits to be destroyed.
class AtomicFile {
  public:
    /// Removes what killed processes of this machine left of earlier writes to `path`, as far as it lay there when this
    /// process first wrote into the folder. `expected_bytes`, when known, is held against the free space first, so that
    /// a large file fails at once and not after minutes.
    explicit AtomicFile(const std::string& path, int64_t expected_bytes = 0);
    ~AtomicFile();
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;

    void write(const void* data, int64_t bytes);
    void write(const std::string& text) { write(text.data(), static_cast<int64_t>(text.size())); }
    /// Flushes to the disk (fsync), renames, and flushes the folder. At most once.
    void commit();
    /// The same without flushing: after a power cut the file may be gone, old or damaged. For what is made anew then.
    void commit_in_memory();

  private:
    void discard();
    void close_and_rename();

    std::string path_;
    std::string temporary_;
    int descriptor_ = -1;
};

/// A regular file opened for reading at any place; safe to use from several threads at once.
class InputFile {
  public:
    /// Throws ReadError, "PATH: reason", when it cannot be opened, and Error(Exit::data) when it is no regular file.
    explicit InputFile(const std::string& path);
    ~InputFile();
    InputFile(const InputFile&) = delete;
    InputFile& operator=(const InputFile&) = delete;

    const std::string& path() const { return path_; }
    int64_t size() const { return size_; }          ///< bytes, when it was opened
    int64_t modified() const { return modified_; }  ///< nanoseconds since 1970, when it was opened
    /// Fills `dst` from `offset` on and gives the number of bytes; fewer than asked at the end of the file. Throws
    /// ReadError, "PATH: reason".
    int64_t read(int64_t offset, void* dst, int64_t bytes) const;
    /// Tells the system that a part will be read soon, or that the file's pages in memory are not needed any more.
    void will_need(int64_t offset, int64_t bytes) const;
    void forget() const;

  private:
    std::string path_;
    int descriptor_;
    int64_t size_ = 0, modified_ = 0;
};

/// Lets this process have as many files open as it may by itself (ulimit -Hn), 65,536 at most.
void raise_open_files();
/// Files that are kept open to be read again share half of those that the process may have open. False: that share is
/// used up, and a file is closed after use. A place that was taken must be given back.
bool take_open_place();
void give_back_open_places(int64_t places);

/// The bytes of a file. Throws Error(Exit::data).
std::string read_file(const std::string& path);
/// Makes a folder and those above it that are missing. Throws Error(Exit::data).
void make_folders(const std::string& path);
/// Replaces `path` by `bytes` through an AtomicFile.
void write_file_atomic(const std::string& path, const std::string& bytes);

}  // namespace rn50
