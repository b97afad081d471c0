// Where indices are kept, and how many are built at once.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <iomanip>
#include <mutex>
#include <thread>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/machine.h"
#include "pipeline/lmdb.h"
#include "pipeline/shard_index.h"
#include "pipeline/tar.h"
#include "pipeline/tfrecord.h"

namespace rn50 {

namespace fs = std::filesystem;

namespace {

/// The user's cache folder, for indices of shards whose own folder may not be written; "" where there is none.
fs::path cache_folder() {
    const char* cache = std::getenv("XDG_CACHE_HOME");
    if (cache && *cache) return fs::path(cache) / "rn50";
    const char* home = std::getenv("HOME");
    return home && *home ? fs::path(home) / ".cache" / "rn50" : fs::path();
}

/// SHARD.rn50idx, then the same shard's place in the cache folder.
std::vector<fs::path> places_of(const std::string& shard) {
    std::vector<fs::path> places{shard + ".rn50idx"};
    const fs::path cache = cache_folder();
    if (cache.empty()) return places;
    std::error_code unknown;
    const std::string full = fs::absolute(shard, unknown).lexically_normal().string();
    const std::string digits = cat(std::hex, std::setfill('0'), std::setw(8), crc32c(full.data(), full.size()));
    places.push_back(cache / cat(digits, "-", fs::path(shard).filename().string(), ".rn50idx"));
    return places;
}

bool read_index(const InputFile& shard, ShardKind kind, const ShardStamp& stamp, ShardIndex& index) {
    for (const fs::path& place : places_of(shard.path())) {
        std::error_code unknown;
        if (!fs::is_regular_file(place, unknown)) continue;
        try {
            const std::string bytes = read_file(place.string());
            const ByteView view{reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
            if (index.unpack(view, kind, stamp)) return true;
        } catch (const Error&) {  // a file that cannot be read is as good as none: it is made anew
        }
    }
    return false;
}

/// What all threads that build indices share.
struct Work {
    using Clock = std::chrono::steady_clock;

    Work(const std::vector<std::string>& paths_, ShardKind kind_)
        : paths(paths_), kind(kind_), indices(paths_.size()) {}

    const std::vector<std::string>& paths;
    const ShardKind kind;
    std::vector<ShardIndex> indices;
    std::atomic<size_t> next{0}, done{0}, built{0};
    std::atomic<int64_t> read{0};  ///< bytes of shards, those with an index counted as whole
    std::mutex mutex;              ///< for what follows
    std::exception_ptr failure;
    int64_t total = 0;  ///< bytes of all shards, once they are asked for
    Clock::time_point shown = Clock::now();

    void run() {
        for (size_t i = next++; i < paths.size(); i = next++) {
            try {
                load(i);
            } catch (...) {
                const std::lock_guard<std::mutex> lock(mutex);
                if (!failure) failure = std::current_exception();
                next = paths.size();
            }
        }
    }
    void load(size_t i) {
        const InputFile file(paths[i]);
        const ShardStamp stamp = stamp_of(file);
        if (read_index(file, kind, stamp, indices[i])) {
            read += file.size();
        } else {
            if (built++ == 0)
                log::info(cat("reading through ", paths.size() == 1 ? "" : cat(paths.size(), " "), name_of(kind),
                              paths.size() == 1 ? " " + paths[i] : " shards", " once, for an index"));
            indices[i] = build_index(paths[i], kind, [this](int64_t bytes) {
                stop_if_interrupted();
                read += bytes;
                show();
            });
            keep_index(paths[i], kind, indices[i], stamp);
        }
        ++done;
    }

    /// A line that rewrites itself on a terminal, one every ten seconds elsewhere.
    void show() {
        const std::unique_lock<std::mutex> lock(mutex, std::try_to_lock);
        const Clock::time_point now = Clock::now();
        if (!lock || now - shown < (log::on_terminal() ? std::chrono::milliseconds(100) : std::chrono::seconds(10)))
            return;
        shown = now;
        if (total == 0) total = bytes_of_all();
        const std::string line =
            cat("index  ", done.load(), "/", paths.size(), " shards, ", std::fixed, std::setprecision(1),
                static_cast<double>(read) / 1e9, " of ", static_cast<double>(total) / 1e9, " GB");
        if (log::on_terminal())
            log::progress(line);
        else
            log::info(line);
    }
    int64_t bytes_of_all() const {
        int64_t bytes = 0;
        std::error_code unknown;
        for (const std::string& path : paths) {
            const std::uintmax_t size = fs::file_size(path, unknown);
            bytes += unknown ? 0 : static_cast<int64_t>(size);
        }
        return bytes;
    }
};

/// `bytes`, and `show` told how far in them reading has come.
RandomBytes shown(RandomBytes bytes, const std::function<void(int64_t)>& show) {
    if (!show) return bytes;
    return {bytes.size,
            [inner = std::move(bytes), show, reached = int64_t{0}](int64_t offset, void* dst, int64_t count) mutable {
                const int64_t end = std::min(inner.size, offset + count);
                show(std::max<int64_t>(0, end - reached));
                reached = std::max(reached, end);
                return inner.read(offset, dst, count);
            }};
}

}  // namespace

ShardIndex build_index(const std::string& path, ShardKind kind, const std::function<void(int64_t)>& show) {
    const InputFile file(path);
    const RandomBytes bytes = shown(bytes_of(file), show);
    return kind == ShardKind::tar        ? index_tar(bytes, path)
           : kind == ShardKind::tfrecord ? index_tfrecord(bytes, path)
                                         : index_lmdb(bytes, path);
}

void keep_index(const std::string& path, ShardKind kind, const ShardIndex& index, const ShardStamp& stamp) {
    const std::string bytes = index.pack(kind, stamp);
    std::string reason;
    for (const fs::path& place : places_of(path)) {
        try {
            std::error_code exists;
            fs::create_directories(place.parent_path(), exists);
            AtomicFile file(place.string(), static_cast<int64_t>(bytes.size()));
            file.write(bytes);
            file.commit_in_memory();  // one that a power cut damages has a wrong checksum and is made anew
            if (!reason.empty())
                log::warn_once("index in cache", cat("indices of shards are kept in ", place.parent_path().string(),
                                                     ", because theirs is closed: ", reason));
            return;
        } catch (const Error& error) {
            reason = error.what();
        }
    }
    log::warn_once("index in memory", cat("indices of shards cannot be kept and are made anew each time: ", reason));
}

std::vector<ShardIndex> load_indices(const std::vector<std::string>& paths, ShardKind kind) {
    Work work(paths, kind);
    const auto wanted = std::min<size_t>(paths.size(), static_cast<size_t>(cores_of_process().usable()));
    std::vector<std::thread> threads;
    for (size_t i = 1; i < wanted; ++i)
        threads.emplace_back([&] { work.run(); });
    work.run();
    for (std::thread& thread : threads)
        thread.join();
    log::progress_done();
    if (work.failure) std::rethrow_exception(work.failure);
    return std::move(work.indices);
}

bool lacks_an_index(const std::vector<std::string>& paths, ShardKind kind) {
    return std::any_of(paths.begin(), paths.end(), [kind](const std::string& path) {
        try {
            const InputFile shard(path);
            for (const fs::path& place : places_of(path)) {
                std::error_code unknown;
                if (!fs::is_regular_file(place, unknown)) continue;
                const InputFile index(place.string());
                uint8_t head[ShardIndex::head_bytes] = {};
                index.read(0, head, sizeof head);
                if (ShardIndex::begins_for({head, sizeof head}, kind, shard.size(), shard.modified())) return false;
            }
            return true;
        } catch (const Error&) {  // load_indices() will say it
            return true;
        }
    });
}

}  // namespace rn50
