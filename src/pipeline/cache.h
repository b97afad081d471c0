// Decoded pictures that stay in memory from epoch to epoch, for sets that fit.
#pragma once

#include <cstdint>
#include <memory>

#include "pipeline/decode.h"
#include "pipeline/source.h"

namespace rn50 {

/// Keeps the pictures it is given, in the order in which they come, until its room is full; nothing is ever put out
/// again, for a set that is read in a random order is served best by any part of it that stays. May be shared by
/// several loaders. All methods are safe to call from several threads at once.
class PictureCache {
  public:
    explicit PictureCache(int64_t capacity_bytes);
    ~PictureCache();
    PictureCache(const PictureCache&) = delete;
    PictureCache& operator=(const PictureCache&) = delete;

    /// Picture `index` of `source`, or null when it is not kept.
    std::shared_ptr<const Picture> find(const Source& source, int64_t index) const;
    /// Keeps a copy if there is room for it and it is not kept already.
    void offer(const Source& source, int64_t index, const Picture& picture);

    int64_t capacity_bytes() const;
    int64_t bytes() const;
    int64_t pictures() const;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace rn50
