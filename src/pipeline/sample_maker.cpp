#include "pipeline/sample_maker.h"

#include <optional>

namespace rn50 {

void SampleMaker::make(const Source& source, int64_t index, const PictureOptions& options, const SampleKey& key,
                       PictureCache* cache, uint8_t* dst) {
    const std::shared_ptr<const Picture> kept = cache ? cache->find(source, index) : nullptr;
    PictureSize size;
    if (kept) {
        size = {kept->height, kept->width};
    } else {
        source.read(index, bytes_);
        size = decoder_.open(bytes_.data(), bytes_.size(), source.name(index), DecodeLimits(), options.channels == 1);
    }
    std::optional<AugmentParameters> drawn;
    if (options.augment != Augment::none)
        drawn = draw_augment(options, size.height, size.width, key.seed, key.epoch, key.sample);
    const Reduced* how = nullptr;
    Reduced reduced{size, {0, 0, static_cast<double>(size.width), static_cast<double>(size.height)}};
    if (drawn && !drawn->cropped && options.decode != Decode::whole && !cache) {
        const PictureSize to = resized_size(options, size);
        reduced.where = decoder_.decode_region({reduced.where, to.height, to.width}, picture_);
        how = &reduced;
    } else if (drawn && options.decode != Decode::whole && !cache) {
        const Region region{drawn->crop, options.image_size, options.image_size};
        const bool on_device = options.decode == Decode::device && device_;
        if (on_device && decoder_.decode_region_on(*device_, region, picture_)) {
            const auto side = static_cast<double>(options.image_size);
            drawn->crop = {0, 0, side, side};
        } else {
            declined_ += on_device ? 1 : 0;
            drawn->crop = decoder_.decode_region(region, picture_);
        }
    } else if (!kept) {
        decoder_.decode_opened(picture_);
        if (cache) cache->offer(source, index, picture_);
    }
    renderer_.render(kept ? *kept : picture_, options, drawn ? &*drawn : nullptr, dst, how);
}

}  // namespace rn50
