#include "pipeline/shard_source.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <new>

#include "base/error.h"
#include "pipeline/datum.h"
#include "pipeline/tfrecord.h"

namespace rn50 {

namespace {

/// The files of a set: as many as may be stay open, the others are opened for each read.
class OpenShards {
  public:
    OpenShards(std::vector<std::string> paths, std::vector<std::pair<int64_t, int64_t>> sizes_and_times)
        : paths_(std::move(paths)), expected_(std::move(sizes_and_times)), files_(paths_.size()) {}
    ~OpenShards() { give_back_open_places(kept_); }
    OpenShards(const OpenShards&) = delete;
    OpenShards& operator=(const OpenShards&) = delete;

    std::shared_ptr<const InputFile> get(size_t shard) const {
        if (auto file = std::atomic_load(&files_[shard])) return file;
        auto file = std::make_shared<const InputFile>(paths_[shard]);
        if (std::make_pair(file->size(), file->modified()) != expected_[shard])
            throw ReadError("the shard was changed while it is in use", ESTALE);
        keep(shard, file);
        return file;
    }
    const std::vector<std::string>& paths() const { return paths_; }

  private:
    void keep(size_t shard, const std::shared_ptr<const InputFile>& file) const {
        if (!take_open_place()) return;
        std::shared_ptr<const InputFile> none;
        if (std::atomic_compare_exchange_strong(&files_[shard], &none, file))
            ++kept_;
        else
            give_back_open_places(1);  // another worker was faster
    }
    std::vector<std::string> paths_;
    std::vector<std::pair<int64_t, int64_t>> expected_;
    mutable std::vector<std::shared_ptr<const InputFile>> files_;
    mutable std::atomic<int64_t> kept_{0};
};

Error bad_record(const std::string& reason) {
    return Error(Exit::data, reason);
}

/// Keeps the part of `bytes` that `view` shows.
void keep(ByteView view, std::vector<uint8_t>& bytes) {
    std::memmove(bytes.data(), view.data, view.size);
    bytes.resize(view.size);
}

void unwrap_record(std::vector<uint8_t>& bytes) {
    if (!tfrecord_data_is_right({bytes.data(), bytes.size()})) throw bad_record("the record has a wrong checksum");
    Example example;
    if (!parse_example({bytes.data(), bytes.size() - tfrecord_tail}, example) || example.picture.size == 0)
        throw bad_record("the record holds no picture");
    keep(example.picture, bytes);
}

void unwrap_datum(std::vector<uint8_t>& bytes) {
    Datum datum;
    if (!parse_datum({bytes.data(), bytes.size()}, datum)) throw bad_record("the value is no Datum");
    const std::string fault = fault_of(datum);
    if (!fault.empty()) throw bad_record(fault);
    if (datum.encoded) return keep(datum.data, bytes);
    std::vector<uint8_t> picture;
    picture_of(datum, picture);
    bytes.swap(picture);
}

class ShardSource : public Source {
  public:
    ShardSource(ShardSet set, std::vector<std::pair<int64_t, int64_t>> sizes_and_times,
                std::vector<std::vector<int32_t>> labels, std::vector<std::string> classes)
        : kind_(set.kind),
          indices_(std::move(set.indices)),
          files_(std::move(set.paths), std::move(sizes_and_times)),
          labels_(std::move(labels)),
          classes_(std::move(classes)) {
        for (const ShardIndex& index : indices_)
            ends_.push_back((ends_.empty() ? 0 : ends_.back()) + index.size());
    }
    int64_t size() const override { return ends_.back(); }
    int32_t label(int64_t i) const override {
        const Place place = find(i);
        return labels_[place.shard][static_cast<size_t>(place.entry)];
    }
    std::string name(int64_t i) const override {
        const Place place = find(i);
        return cat(files_.paths()[place.shard], "/", indices_[place.shard].key(place.entry));
    }
    std::string path_inside(int64_t i) const override {
        const Place place = find(i);
        return indices_[place.shard].key(place.entry);
    }
    const std::vector<std::string>& classes() const override { return classes_; }
    int64_t stored_bytes(int64_t i) const override { return entry(find(i)).bytes; }
    std::string format() const override { return name_of(kind_); }
    std::vector<std::string> shards() const override { return files_.paths(); }

    void read(int64_t i, std::vector<uint8_t>& bytes) const override {
        const Place place = find(i);
        try {
            const std::shared_ptr<const InputFile> file = files_.get(place.shard);
            const int64_t wanted = bytes_of_record(place);
            bytes.resize(static_cast<size_t>(wanted));
            if (file->read(entry(place).offset, bytes.data(), wanted) < wanted)
                throw ReadError("the shard became shorter while it is in use", ESTALE);
            if (kind_ == ShardKind::tfrecord) unwrap_record(bytes);
            if (kind_ == ShardKind::lmdb) unwrap_datum(bytes);
        } catch (const ReadError& error) {
            throw ReadError(cat(name(i), ": ", error.what()), error.error());  // a shard is never one picture's fault
        } catch (const Error& error) {
            throw Error(error.code(), cat(name(i), ": ", error.what()), error.remedy());
        } catch (const std::bad_alloc&) {
            throw ReadError(cat(name(i), ": there is not enough memory to read it"), ENOMEM);
        }
    }

    void prefetch(int64_t i) const override {
        const Place place = find(i);
        try {
            files_.get(place.shard)->will_need(entry(place).offset, bytes_of_record(place));
        } catch (const Error&) {  // read() will say it
        }
    }

  private:
    struct Place {
        size_t shard;
        int64_t entry;
    };
    Place find(int64_t i) const {
        RN50_REQUIRE(i >= 0 && i < size(), "picture ", i, " of ", size());
        const auto shard = static_cast<size_t>(std::upper_bound(ends_.begin(), ends_.end(), i) - ends_.begin());
        return {shard, i - (ends_[shard] - indices_[shard].size())};
    }
    const ShardIndex::Entry& entry(Place place) const { return indices_[place.shard].entry(place.entry); }
    int64_t bytes_of_record(Place place) const {
        return entry(place).bytes + (kind_ == ShardKind::tfrecord ? tfrecord_tail : 0);
    }

    ShardKind kind_;
    std::vector<ShardIndex> indices_;
    OpenShards files_;
    std::vector<std::vector<int32_t>> labels_;  ///< by shard and entry
    std::vector<std::string> classes_;
    std::vector<int64_t> ends_;  ///< pictures in the shards up to and with each
};

}  // namespace

std::unique_ptr<Source> make_indexed_source(ShardSet set, std::vector<std::vector<int32_t>> labels,
                                            std::vector<std::string> classes) {
    std::vector<std::pair<int64_t, int64_t>> sizes_and_times;
    for (const std::string& path : set.paths) {
        const InputFile file(path);
        sizes_and_times.emplace_back(file.size(), file.modified());
    }
    return std::make_unique<ShardSource>(std::move(set), std::move(sizes_and_times), std::move(labels),
                                         std::move(classes));
}

}  // namespace rn50
