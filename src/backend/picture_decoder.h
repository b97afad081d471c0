// JPEGs decoded by a device: what a backend may offer to those who load pictures.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace rn50 {

/// A JPEG and what is wanted of it.
struct PictureRequest {
    const uint8_t* jpeg;
    size_t bytes;
    int64_t x, y, box_height, box_width;  ///< of the picture as stored (its orientation is not applied)
    int64_t height, width;                ///< to which the box is resampled
};

/// Decodes one picture after the other. One thread at a time, which may change.
class PictureDecoder {
  public:
    virtual ~PictureDecoder() = default;
    /// Fills dst, host memory of height x width x RGB: the box decoded at full size and resampled as Resizer does, what
    /// lies outside taking no part. False: the device's decoder does not take this picture, or found fault with it, or
    /// there is no memory for it; dst may be half filled then.
    virtual bool decode(const PictureRequest& request, uint8_t* dst) = 0;
};

/// Makes as many as there are threads; outlives them.
class PictureDecoders {
  public:
    virtual ~PictureDecoders() = default;
    /// "nvJPEG 12.2, hardware"
    virtual std::string name() const = 0;
    /// Whether they decode on an engine of their own, so that the device's other work goes on meanwhile.
    virtual bool beside_other_work() const = 0;
    virtual std::unique_ptr<PictureDecoder> make() = 0;
    /// The most of the device's memory that all of its decoders have had at a time, in bytes.
    virtual int64_t peak_bytes() const = 0;
    /// Takes `bytes` of the device's memory at once, in which all decoders find room from now on, the library's own
    /// buffers included; there must be none at the moment. A picture for which no room is left is declined. Throws
    /// Error(Exit::device) when there is not so much.
    virtual void reserve(int64_t bytes) = 0;
};

}  // namespace rn50
