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

bool read_index(const InputFile& shard, ShardKind kind, ShardIndex& index) {
    for (const fs::path& place : places_of(shard.path())) {
        std::error_code unknown;
        if (!fs::is_regular_file(place, unknown)) continue;
        try {
            const std::string bytes = read_file(place.string());
            const ByteView view{reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
            if (index.unpack(view, kind, shard.size(), shard.modified())) return true;
        } catch (const Error&) {  // a file that cannot be read is as good as none: it is made anew
        }
    }
    return false;
}

/// What all threads that build indices share.
struct Work {
    const std::vector<std::string>& paths;
    const ShardKind kind;
    std::vector<ShardIndex> indices;
    std::atomic<size_t> next{0}, done{0}, built{0};
    std::mutex mutex;
    std::exception_ptr failure;

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
        if (!read_index(file, kind, indices[i])) {
            if (built++ == 0)
                log::info(cat("reading through ", paths.size() == 1 ? "" : cat(paths.size(), " "), name_of(kind),
                              paths.size() == 1 ? " " + paths[i] : " shards", " once, for an index"));
            indices[i] = build_index(paths[i], kind);
            keep_index(paths[i], kind, indices[i]);
        }
        ++done;
        if (built > 0) log::progress(cat("index  ", done.load(), "/", paths.size(), " shards"));
    }
};

}  // namespace

ShardIndex build_index(const std::string& path, ShardKind kind) {
    const InputFile file(path);
    const RandomBytes bytes = bytes_of(file);
    return kind == ShardKind::tar        ? index_tar(bytes, path)
           : kind == ShardKind::tfrecord ? index_tfrecord(bytes, path)
                                         : index_lmdb(bytes, path);
}

void keep_index(const std::string& path, ShardKind kind, const ShardIndex& index) {
    const InputFile shard(path);
    const std::string bytes = index.pack(kind, shard.size(), shard.modified());
    std::string reason;
    for (const fs::path& place : places_of(shard.path())) {
        try {
            std::error_code exists;
            fs::create_directories(place.parent_path(), exists);
            write_file_atomic(place.string(), bytes);
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
    Work work{paths, kind, std::vector<ShardIndex>(paths.size()), {}, {}, {}, {}, nullptr};
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

}  // namespace rn50
