// The decoders behind Decoder, one a family of formats. For decode.cpp alone: each throws Error(Exit::data) with the
// bare reason, to which decode.cpp adds the name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/error.h"
#include "pipeline/decode.h"

namespace rn50::formats {

struct Bytes {
    const uint8_t* data;
    size_t size;
};

/// The reason why a picture cannot be used.
inline Error bad_picture(const std::string& reason) {
    return Error(Exit::data, reason);
}

/// Throws when the picture is empty or above the limit.
void check_size(PictureSize size, const DecodeLimits& limits);

/// The same, then makes room for height x width pixels.
void set_size(Picture& picture, int64_t height, int64_t width, const DecodeLimits& limits);

/// Baseline and progressive JPEG by libjpeg-turbo, as stored (the orientation is not applied). Keeps its tables and
/// memory pools from picture to picture. The entropy-coded data of sequential pictures are read by HuffmanReader, as
/// long as they are in order; pixels and errors are those of libjpeg alone.
class Jpeg {
  public:
    /// `alone`: without HuffmanReader.
    explicit Jpeg(bool alone = false);
    ~Jpeg();
    Jpeg(const Jpeg&) = delete;
    Jpeg& operator=(const Jpeg&) = delete;
    /// Reads the header; `bytes` must stay until the picture is decoded. `luma`: YCbCr becomes Y Y Y, not RGB.
    PictureSize open(Bytes bytes, const DecodeLimits& limits, bool luma = false);
    /// Whether other decoders than libjpeg can be trusted with the opened picture: its colours are YCbCr or grey, which
    /// all understand alike, and its end marker is at the file's end, so that it was not cut.
    bool is_plain() const;
    bool has_restart_markers() const;
    /// Decodes of the opened picture what the region needs, at a scale of n/8. Returns where in `picture` its box lies.
    /// Damage behind the region's last row goes unseen.
    Box decode(const Region& region, Picture& picture);
    /// Whether the data of the last picture were not in order for HuffmanReader.
    bool gave_up() const;

    int64_t kept_bytes() const;
    void release();

  private:
    struct State;
    std::unique_ptr<State> state_;
};

/// PNG and TGA by stb_image, as stored. Of PNG's samples of 16 bits so many count (Decoder::open). Returns the highest
/// of them where nothing says how many count, else -1.
int decode_png(Bytes bytes, const DecodeLimits& limits, int bits, Picture& picture);
void decode_tga(Bytes bytes, const DecodeLimits& limits, Picture& picture);
/// BMP: 1, 2, 4, 8, 16, 24 and 32 bits, run lengths, colour masks, headers of Windows and OS/2. Alpha is dropped.
void decode_bmp(Bytes bytes, const DecodeLimits& limits, Picture& picture);
/// Binary PNM: P5 (grey) and P6 (colour), maxval 1 to 65535. Own, because stb_image neither scales by maxval nor
/// notices missing data. `bits` and what is returned: as of PNG.
int decode_pnm(Bytes bytes, const DecodeLimits& limits, int bits, Picture& picture);

/// Appends to `out` what zlib compressed, by stb_image. False: it is damaged, or more than `limit` bytes.
bool inflate(Bytes zlib, size_t limit, std::vector<uint8_t>& out);

/// The orientation, 1 to 8, of a JPEG or PNG file by its EXIF (in PNG also ImageMagick's "Raw profile type exif"), else
/// its XMP; 1 (upright) when it has none or it makes no sense.
int jpeg_orientation(Bytes bytes);
int png_orientation(Bytes bytes);

}  // namespace rn50::formats
