// From the bytes of a picture file to RGB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/picture_decoder.h"
#include "pipeline/resize.h"

namespace rn50 {

/// A decoded picture.
struct Picture {
    int64_t height = 0, width = 0;
    std::vector<uint8_t> rgb;  ///< height x width x 3, upright
};

struct PictureSize {
    int64_t height = 0, width = 0;
};

/// What is wanted of a picture: the pixels of `box` (whole pixels, within the upright picture), to be resampled to
/// height x width.
struct Region {
    Box box;
    int64_t height, width;
};

/// Guards against pictures that claim to be, or unpack to be, enormous.
struct DecodeLimits {
    int64_t max_pixels = 178'956'970;  ///< height * width; Pillow refuses above the same number
    int max_scans = 200;               ///< of one progressive JPEG; each costs a pass over the whole picture
};

/// Decodes pictures one after the other and keeps its buffers. One thread at a time.
///
/// The format is known by content, never by extension: JPEG, PNG, BMP, PNM (P5, P6); TGA has no signature, so it is
/// tried for the extension .tga alone. The result is what Pillow's `ImageOps.exif_transpose(image).convert("RGB")`
/// gives: grey is repeated, a palette looked up, alpha dropped (not composited), CMYK taken for Adobe's inverted kind;
/// the orientation of JPEG and PNG, by EXIF or else XMP, is applied. 16 bits a channel become 8 by rounding value /
/// 257, or, where fewer of them count, value * 255 / (2^bits - 1): as many as a PNG's sBIT chunk or a PNM's maximum
/// says, or as is asked for.
class Decoder {
  public:
    Decoder();
    ~Decoder();
    Decoder(const Decoder&) = delete;
    Decoder& operator=(const Decoder&) = delete;

    /// Throws Error(Exit::data), "NAME: reason", when the data are not a picture, are beyond the limits, or are damaged
    /// in a way that loses any of it: a half-grey picture is never returned. Throws ReadError when memory does not do.
    void decode(const uint8_t* bytes, size_t size, const std::string& name, const DecodeLimits& limits,
                Picture& picture, int bits = 0);

    /// The first half of decode(): the upright picture's size. Of a JPEG the header alone is read. `bytes` must stay
    /// until decode_opened() or decode_region(), of which one may follow. Throws as decode() does.
    /// With `luma`, for nets that take grey, a JPEG in YCbCr becomes its Y in all three channels: the ITU-R 601 luma as
    /// it was encoded, before the rounding and clipping of RGB, for which its chroma need not be decoded.
    /// `bits`: of samples stored in more than 8 bits, so many lower ones count; 0: as many as the file says, or all.
    PictureSize open(const uint8_t* bytes, size_t size, const std::string& name, const DecodeLimits& limits,
                     bool luma = false, int bits = 0);

    /// Of the opened picture: whether it is a JPEG, and one with restart markers.
    bool is_jpeg() const;
    bool has_restart_markers() const;
    /// Its highest sample where it has samples of 16 bits and neither it nor anybody says how many of them count; else
    /// -1.
    int highest_of_16_bits() const;

    /// The second half of decode().
    void decode_opened(Picture& picture);

    /// Decodes of the opened picture no more than the region needs: of a JPEG the rows and columns around the box, at
    /// the smallest power of two of 1/8 that leaves at least height x width pixels in the box (the inverse DCT
    /// reduces; CMYK is not); of others the whole. Returns where the box lies in `picture`, in its pixels. Resampled
    /// from there the result is within 2/255 on average of what the whole picture gives. Damage outside of the region
    /// may go unseen.
    Box decode_region(const Region& region, Picture& picture);

    /// decode_region() by a device, which also resamples: fills `picture` with the box at region.height x region.width.
    /// False: it is not for the device (no JPEG, of another colour space than YCbCr and grey, or without its end), or
    /// the device does not take it; decode_region() may follow.
    bool decode_region_on(PictureDecoder& device, const Region& region, Picture& picture);

    /// Of buffers, and their release; what was opened is gone then.
    int64_t kept_bytes() const;
    void release();

  private:
    struct State;
    std::unique_ptr<State> state_;
};

/// The same for a single picture.
Picture decode(const uint8_t* bytes, size_t size, const std::string& name, const DecodeLimits& limits = {});

}  // namespace rn50
