#include "cli/drawn_pictures.h"

#include <algorithm>

#include "base/error.h"
#include "base/random.h"
#include "pipeline/encode.h"

namespace rn50 {

namespace {

constexpr int64_t pictures = 100'000, drawings = 64, kinds = 10;
constexpr int quality = 90;

/// A bright disc before a gradient, with grain: edges, flat parts and noise, which is what a JPEG's bytes go to.
Picture draw(int64_t side, uint64_t number) {
    Random random(0, 0, number, Purpose::demo);
    const auto below = [&](int64_t end) { return static_cast<int64_t>(random.below(static_cast<uint64_t>(end))); };
    const int64_t x0 = below(side), y0 = below(side), radius = side / 8 + below(side / 4);
    const int64_t along_x = below(120), along_y = below(120);
    Picture picture;
    picture.height = picture.width = side;
    picture.rgb.reserve(static_cast<size_t>(side * side * 3));
    for (int64_t y = 0; y < side; ++y)
        for (int64_t x = 0; x < side; ++x) {
            const bool inside = (x - x0) * (x - x0) + (y - y0) * (y - y0) < radius * radius;
            const int64_t grain = random.u32() >> 27;
            for (int64_t c = 0; c < 3; ++c) {
                const int64_t level =
                    10 + (along_x * x + along_y * y) / side * (3 - c) / 3 + (inside ? 90 - 30 * c : 0);
                picture.rgb.push_back(static_cast<uint8_t>(std::min<int64_t>(level + grain, 255)));
            }
        }
    return picture;
}

class DrawnSource final : public Source {
  public:
    explicit DrawnSource(int64_t side) {
        for (int64_t i = 0; i < drawings; ++i)
            encode_jpeg(draw(side, static_cast<uint64_t>(i)), quality, jpegs_.emplace_back());
        for (int64_t i = 0; i < kinds; ++i)
            classes_.push_back(std::to_string(i));
    }
    int64_t size() const override { return pictures; }
    int32_t label(int64_t i) const override { return static_cast<int32_t>(i % kinds); }
    std::string name(int64_t i) const override { return cat("drawing ", i); }
    void read(int64_t i, std::vector<uint8_t>& bytes) const override {
        bytes = jpegs_[static_cast<size_t>(i % drawings)];
    }
    int64_t stored_bytes(int64_t i) const override {
        return static_cast<int64_t>(jpegs_[static_cast<size_t>(i % drawings)].size());
    }
    const std::vector<std::string>& classes() const override { return classes_; }

  private:
    std::vector<std::vector<uint8_t>> jpegs_;
    std::vector<std::string> classes_;
};

}  // namespace

std::unique_ptr<Source> make_drawn_source(int64_t side) {
    return std::make_unique<DrawnSource>(side);
}

}  // namespace rn50
