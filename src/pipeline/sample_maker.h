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

/// Reads, decodes and renders one picture after the other; keeps its buffers. One thread at a time.
class SampleMaker {
  public:
    /// `device` decodes what options.decode leaves to one; null: there is none.
    explicit SampleMaker(std::unique_ptr<PictureDecoder> device = nullptr) : device_(std::move(device)) {}

    /// Fills dst, {image_size, image_size, channels}, with picture `index`. What is drawn is drawn first, so that of a
    /// JPEG no more is decoded than the crop needs, or without one at no larger scale than the input needs
    /// (options.decode); with a cache, and in evaluation, it is decoded whole, or found there.
    /// Throws Error(Exit::data), "NAME: reason", when the picture cannot be read or decoded.
    /// What the device does not take is decoded here, and counted.
    void make(const Source& source, int64_t index, const PictureOptions& options, const SampleKey& key,
              PictureCache* cache, uint8_t* dst);

    int64_t declined() const { return declined_; }

  private:
    std::unique_ptr<PictureDecoder> device_;
    int64_t declined_ = 0;
    std::vector<uint8_t> bytes_;
    Decoder decoder_;
    Picture picture_;
    Renderer renderer_;
};

}  // namespace rn50
