#include "pipeline/sample_maker.h"

#include <algorithm>
#include <optional>

#include "base/error.h"

namespace rn50 {

void PicturesSeen::add(const PicturesSeen& other) {
    pictures += other.pictures;
    bytes += other.bytes;
    pixels += other.pixels;
    shorter_side += other.shorter_side;
    jpegs += other.jpegs;
    marked += other.marked;
    deep += other.deep;
    highest = std::max(highest, other.highest);
}

void SampleMaker::note(PictureSize size) {
    const int highest = decoder_.highest_of_16_bits();
    seen_.add({1, static_cast<double>(bytes_.size()), static_cast<double>(size.height * size.width),
               static_cast<double>(std::min(size.height, size.width)), decoder_.is_jpeg() ? 1 : 0,
               decoder_.has_restart_markers() ? 1 : 0, highest >= 0 ? 1 : 0, highest});
}

int64_t estimated_buffers(const Source& source, const PictureOptions& options, bool cached) {
    constexpr int64_t looked_at = 16;
    const bool reduced = options.augment != Augment::none && options.decode != Decode::whole && !cached;
    Decoder decoder;
    std::vector<uint8_t> bytes;
    double most = 0;
    const int64_t n = std::min(looked_at, source.size());
    for (int64_t i = 0; i < n; ++i) {
        const int64_t index = i * source.size() / n;
        try {
            source.read(index, bytes);
            const PictureSize size = decoder.open(bytes.data(), bytes.size(), source.name(index), DecodeLimits());
            const double pixels = static_cast<double>(size.height * size.width);
            const double side =
                2.8 * static_cast<double>(options.image_size);  // of what is decoded, before it is resampled
            // A JPEG becomes RGB; where it is progressive or turned, its coefficients or the turned one as well. Others
            // are unpacked, converted and copied.
            const double decoded = !decoder.is_jpeg() ? 12 * pixels
                                   : reduced          ? 3 * std::min(pixels, side * side)
                                                      : 6 * pixels;
            // A JPEG's data are copied once to be read.
            const double coded = static_cast<double>(bytes.size()) * (decoder.is_jpeg() ? 2 : 1);
            most = std::max(most, coded + decoded);
        } catch (const Error& error) {
            if (error.code() != Exit::data) throw;
        }
    }
    return static_cast<int64_t>(most);
}

int64_t SampleMaker::kept_bytes() const {
    return static_cast<int64_t>(bytes_.capacity() + picture_.rgb.capacity()) + decoder_.kept_bytes();
}

void SampleMaker::release_large() {
    if (kept_bytes() <= most_kept) return;
    std::vector<uint8_t>().swap(bytes_);
    std::vector<uint8_t>().swap(picture_.rgb);
    decoder_.release();
}

void SampleMaker::make(const Source& source, int64_t index, const PictureOptions& options, const SampleKey& key,
                       PictureCache* cache, uint8_t* dst, pixel::Changes* apart) {
    make_picture(source, index, options, key, cache, dst, apart);
    release_large();
}

void SampleMaker::make_picture(const Source& source, int64_t index, const PictureOptions& options, const SampleKey& key,
                               PictureCache* cache, uint8_t* dst, pixel::Changes* apart) {
    const std::shared_ptr<const Picture> kept = cache ? cache->find(source, index) : nullptr;
    PictureSize size;
    if (kept) {
        size = {kept->height, kept->width};
    } else {
        source.read(index, bytes_);
        size = decoder_.open(bytes_.data(), bytes_.size(), source.name(index), DecodeLimits(), options.channels == 1,
                             options.bits);
        note(size);
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
    renderer_.render(kept ? *kept : picture_, options, drawn ? &*drawn : nullptr, dst, how, apart);
}

}  // namespace rn50
