// From a picture's place in a source to the pixels that the net is given.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "pipeline/augment.h"
#include "pipeline/cache.h"
#include "pipeline/decode.h"
#include "pipeline/source.h"

namespace rn50 {

/// Names the random numbers of one picture in one epoch.
struct SampleKey {
    uint64_t seed = 0;
    int64_t epoch = 0;
    int64_t sample = 0;  ///< the picture's index, and which of its appearances in the epoch
};

/// What the pictures were like that came from a source; those from a cache aside.
struct PicturesSeen {
    int64_t pictures = 0;
    double bytes = 0, pixels = 0;   ///< of all: stored; height * width
    double shorter_side = 0;        ///< of all, in pixels
    int64_t jpegs = 0, marked = 0;  ///< of them; with restart markers
    int64_t deep = 0;               ///< of 16 bits of which nothing says how many count
    int highest = -1;               ///< sample of those
    void add(const PicturesSeen& other);
};

/// What reading and decoding takes of memory at most, about, while one picture of `source` is made: by the sizes of a
/// few of them. `cached`: they are decoded whole. Those that cannot be read or decoded do not count.
int64_t estimated_buffers(const Source& source, const PictureOptions& options, bool cached);

/// Reads, decodes and renders one picture after the other; keeps its buffers up to most_kept bytes. One thread at a
/// time.
class SampleMaker {
  public:
    /// More than this is released after a picture: enough for 20 megapixels, beyond which the time to take memory anew
    /// is small beside that of decoding.
    static constexpr int64_t most_kept = 64'000'000;

    /// `device` decodes what options.decode leaves to one; null: there is none.
    explicit SampleMaker(std::unique_ptr<PictureDecoder> device = nullptr) : device_(std::move(device)) {}

    /// Fills dst, {image_size, image_size, channels}, with picture `index`. What is drawn is drawn first, so that of a
    /// JPEG no more is decoded than the crop needs, or without one at no larger scale than the input needs
    /// (options.decode); with a cache, and in evaluation, it is decoded whole, or found there.
    /// Throws Error(Exit::data), "NAME: reason", when the picture cannot be read or decoded.
    /// What the device does not take is decoded here, and counted. `apart`: see Renderer::render.
    void make(const Source& source, int64_t index, const PictureOptions& options, const SampleKey& key,
              PictureCache* cache, uint8_t* dst, pixel::Changes* apart = nullptr);

    int64_t declined() const { return declined_; }
    /// Of buffers that the picture before has left.
    int64_t kept_bytes() const;
    /// Since it was asked last.
    PicturesSeen take_seen() { return std::exchange(seen_, {}); }

  private:
    void make_picture(const Source& source, int64_t index, const PictureOptions& options, const SampleKey& key,
                      PictureCache* cache, uint8_t* dst, pixel::Changes* apart);
    void note(PictureSize size);
    void release_large();

    std::unique_ptr<PictureDecoder> device_;
    int64_t declined_ = 0;
    PicturesSeen seen_;
    std::vector<uint8_t> bytes_;
    Decoder decoder_;
    Picture picture_;
    Renderer renderer_;
};

}  // namespace rn50
