#include "pipeline/cache.h"

#include <map>
#include <mutex>
#include <shared_mutex>
#include <utility>

namespace rn50 {

struct PictureCache::State {
    explicit State(int64_t capacity_bytes) : capacity(capacity_bytes) {}
    const int64_t capacity;
    mutable std::shared_mutex mutex;
    int64_t bytes = 0;
    std::map<std::pair<const Source*, int64_t>, std::shared_ptr<const Picture>> kept;
};

PictureCache::PictureCache(int64_t capacity_bytes) : state_(std::make_unique<State>(capacity_bytes)) {}
PictureCache::~PictureCache() = default;

std::shared_ptr<const Picture> PictureCache::find(const Source& source, int64_t index) const {
    const std::shared_lock<std::shared_mutex> lock(state_->mutex);
    const auto found = state_->kept.find({&source, index});
    return found == state_->kept.end() ? nullptr : found->second;
}

void PictureCache::offer(const Source& source, int64_t index, const Picture& picture) {
    const auto bytes = static_cast<int64_t>(picture.rgb.size());
    {
        // The room is taken before the copy is made, so that many threads together do not pass the limit.
        const std::unique_lock<std::shared_mutex> lock(state_->mutex);
        if (state_->bytes + bytes > state_->capacity) return;
        if (!state_->kept.emplace(std::make_pair(&source, index), nullptr).second) return;
        state_->bytes += bytes;
    }
    auto copy = std::make_shared<const Picture>(picture);
    const std::unique_lock<std::shared_mutex> lock(state_->mutex);
    state_->kept[{&source, index}] = std::move(copy);
}

int64_t PictureCache::capacity_bytes() const {
    return state_->capacity;
}
int64_t PictureCache::bytes() const {
    const std::shared_lock<std::shared_mutex> lock(state_->mutex);
    return state_->bytes;
}
int64_t PictureCache::pictures() const {
    const std::shared_lock<std::shared_mutex> lock(state_->mutex);
    return static_cast<int64_t>(state_->kept.size());
}

}  // namespace rn50
