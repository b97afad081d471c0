#include "pipeline/decode.h"

#include <cerrno>
#include <cstring>
#include <new>

#include "base/files.h"
#include "pipeline/formats.h"

namespace rn50 {

namespace formats {

void check_size(PictureSize size, const DecodeLimits& limits) {
    if (size.height <= 0 || size.width <= 0) throw bad_picture("the picture has no pixels");
    if (size.height > limits.max_pixels / size.width)
        throw bad_picture(
            cat("a picture of ", size.width, "x", size.height, " pixels is above the limit of ", limits.max_pixels));
}

void set_size(Picture& picture, int64_t height, int64_t width, const DecodeLimits& limits) {
    check_size({height, width}, limits);
    picture.height = height;
    picture.width = width;
    picture.rgb.resize(static_cast<size_t>(height * width * 3));
}

}  // namespace formats

namespace {

bool starts_with(formats::Bytes bytes, const char* magic, size_t n) {
    return bytes.size >= n && std::memcmp(bytes.data, magic, n) == 0;
}

bool ends_with_tga(const std::string& name) {
    if (name.size() < 4) return false;
    const char* end = name.c_str() + name.size() - 4;
    return end[0] == '.' && (end[1] | 32) == 't' && (end[2] | 32) == 'g' && (end[3] | 32) == 'a';
}

/// What a file is that is none of ours, as far as that helps.
std::string describe_unknown(formats::Bytes bytes) {
    if (bytes.size == 0) return "the file is empty";
    const auto is = [&](const char* magic, size_t n) { return starts_with(bytes, magic, n); };
    const char* kind = nullptr;
    if (is("GIF8", 4)) kind = "a GIF";
    if (is("RIFF", 4) && bytes.size >= 12 && std::memcmp(bytes.data + 8, "WEBP", 4) == 0) kind = "a WebP";
    if (is("II*\0", 4) || is("MM\0*", 4)) kind = "a TIFF";
    if (bytes.size >= 12 && std::memcmp(bytes.data + 4, "ftyp", 4) == 0) kind = "an AVIF, HEIF or video";
    if (kind) return cat("the file is ", kind, ", which is not read");
    bool text = true;
    for (size_t i = 0; i < bytes.size && i < 64; ++i)
        text = text && bytes.data[i] != 127 && (bytes.data[i] >= 32 || (bytes.data[i] >= 9 && bytes.data[i] <= 13));
    return text ? "the file is a text, not a picture" : "the file is not a picture of a known kind";
}

/// How the stored picture lies to the upright one: EXIF's orientations 1 to 8.
struct Orientation {
    explicit Orientation(int exif)
        : swaps(exif >= 5),
          from_right(exif == 2 || exif == 3 || exif == 7 || exif == 8),
          from_bottom(exif == 3 || exif == 4 || exif == 6 || exif == 7) {}

    bool upright() const { return !swaps && !from_right && !from_bottom; }
    PictureSize turn(PictureSize size) const { return swaps ? PictureSize{size.width, size.height} : size; }
    /// A box of the upright picture in the stored one of that size.
    Box to_stored(const Box& box, double height, double width) const {
        return mirrored(swaps ? swapped(box) : box, height, width);
    }
    /// And back.
    Box to_upright(const Box& box, double height, double width) const {
        const Box straight = mirrored(box, height, width);
        return swaps ? swapped(straight) : straight;
    }

    bool swaps;                    ///< height and width
    bool from_right, from_bottom;  ///< the upright picture's first row or column begins at the stored one's far side

  private:
    static Box swapped(const Box& box) { return {box.y0, box.x0, box.y1, box.x1}; }
    Box mirrored(Box box, double height, double width) const {
        if (from_right) box = {width - box.x1, box.y0, width - box.x0, box.y1};
        if (from_bottom) box = {box.x0, height - box.y1, box.x1, height - box.y0};
        return box;
    }
};

void turn_upright(const Orientation& orientation, Picture& picture, std::vector<uint8_t>& scratch) {
    if (orientation.upright()) return;
    const int64_t h = picture.height, w = picture.width;
    // In the source: where the upright picture begins, and the way to its next column and its next row.
    const int64_t begin = ((orientation.from_bottom ? h - 1 : 0) * w + (orientation.from_right ? w - 1 : 0)) * 3;
    const int64_t along_x = orientation.from_right ? -3 : 3, along_y = orientation.from_bottom ? -w * 3 : w * 3;
    const int64_t next_column = orientation.swaps ? along_y : along_x, next_row = orientation.swaps ? along_x : along_y;

    if (orientation.swaps) std::swap(picture.height, picture.width);
    scratch.resize(picture.rgb.size());
    uint8_t* dst = scratch.data();
    for (int64_t y = 0; y < picture.height; ++y) {
        const uint8_t* src = picture.rgb.data() + begin + y * next_row;
        for (int64_t x = 0; x < picture.width; ++x, src += next_column, dst += 3) {
            dst[0] = src[0];
            dst[1] = src[1];
            dst[2] = src[2];
        }
    }
    picture.rgb.swap(scratch);
}

Box whole(PictureSize size) {
    return {0, 0, static_cast<double>(size.width), static_cast<double>(size.height)};
}

}  // namespace

struct Decoder::State {
    formats::Jpeg jpeg;
    std::vector<uint8_t> turned;

    // The opened picture.
    std::string name;
    formats::Bytes bytes{};
    bool is_jpeg = false;
    Orientation orientation{1};
    PictureSize stored;  ///< a JPEG's size before it is turned
    PictureSize upright;
    Picture picture;              ///< upright, unless it is a JPEG
    int highest_of_16_bits = -1;  ///< see there

    /// Anything but JPEG, as stored. Returns its orientation.
    int decode_other(const DecodeLimits& limits, int bits) {
        if (starts_with(bytes, "\x89PNG\r\n\x1A\n", 8)) {
            highest_of_16_bits = formats::decode_png(bytes, limits, bits, picture);
            return formats::png_orientation(bytes);
        }
        if (starts_with(bytes, "P5", 2) || starts_with(bytes, "P6", 2))
            highest_of_16_bits = formats::decode_pnm(bytes, limits, bits, picture);
        else if (starts_with(bytes, "BM", 2))
            formats::decode_bmp(bytes, limits, picture);
        else if (ends_with_tga(name) && bytes.size > 18)
            formats::decode_tga(bytes, limits, picture);
        else
            throw formats::bad_picture(describe_unknown(bytes));
        return 1;
    }

    /// Runs `work` so that what it throws about the picture carries the picture's name.
    template <class Work>
    auto named(const Work& work) const {
        try {
            return work();
        } catch (const Error& error) {
            if (error.code() != Exit::data) throw;
            throw Error(Exit::data, cat(name, ": ", error.what()));
        } catch (const std::bad_alloc&) {
            throw ReadError(cat(name, ": there is not enough memory to decode it"), ENOMEM);
        }
    }
};

Decoder::Decoder() : state_(std::make_unique<State>()) {}
Decoder::~Decoder() = default;

PictureSize Decoder::open(const uint8_t* data, size_t size, const std::string& name, const DecodeLimits& limits,
                          bool luma, int bits) {
    State& state = *state_;
    const formats::Bytes bytes{data, size};
    state.name = name;
    state.bytes = bytes;
    state.highest_of_16_bits = -1;
    state.is_jpeg = starts_with(bytes, "\xFF\xD8\xFF", 3);
    state.named([&] {
        if (state.is_jpeg) {
            state.stored = state.jpeg.open(bytes, limits, luma);
            state.orientation = Orientation(formats::jpeg_orientation(bytes));
            state.upright = state.orientation.turn(state.stored);
        } else {
            turn_upright(Orientation(state.decode_other(limits, bits)), state.picture, state.turned);
            state.upright = {state.picture.height, state.picture.width};
        }
    });
    return state.upright;
}

Box Decoder::decode_region(const Region& region, Picture& picture) {
    State& state = *state_;
    if (!state.is_jpeg) {
        std::swap(picture, state.picture);
        return region.box;
    }
    return state.named([&] {
        const Orientation& how = state.orientation;
        Region stored = region;
        stored.box = how.to_stored(region.box, static_cast<double>(state.stored.height),
                                   static_cast<double>(state.stored.width));
        if (how.swaps) std::swap(stored.height, stored.width);
        const Box where = state.jpeg.decode(stored, picture);
        const Box turned =
            how.to_upright(where, static_cast<double>(picture.height), static_cast<double>(picture.width));
        turn_upright(how, picture, state.turned);
        return turned;
    });
}

bool Decoder::decode_region_on(PictureDecoder& device, const Region& region, Picture& picture) {
    State& state = *state_;
    if (!state.is_jpeg || !state.jpeg.is_plain()) return false;
    const Orientation& how = state.orientation;
    const Box box =
        how.to_stored(region.box, static_cast<double>(state.stored.height), static_cast<double>(state.stored.width));
    picture.height = how.swaps ? region.width : region.height;
    picture.width = how.swaps ? region.height : region.width;
    picture.rgb.resize(static_cast<size_t>(picture.height * picture.width * 3));
    const auto x = static_cast<int64_t>(box.x0), y = static_cast<int64_t>(box.y0);
    const PictureRequest request{
        state.bytes.data, state.bytes.size, x, y, static_cast<int64_t>(box.y1) - y, static_cast<int64_t>(box.x1) - x,
        picture.height,   picture.width};
    if (!device.decode(request, picture.rgb.data())) return false;
    turn_upright(how, picture, state.turned);
    return true;
}

void Decoder::decode_opened(Picture& picture) {
    const PictureSize size = state_->upright;
    decode_region({whole(size), size.height, size.width}, picture);
}

bool Decoder::is_jpeg() const {
    return state_->is_jpeg;
}

bool Decoder::has_restart_markers() const {
    return state_->is_jpeg && state_->jpeg.has_restart_markers();
}

int Decoder::highest_of_16_bits() const {
    return state_->highest_of_16_bits;
}

int64_t Decoder::kept_bytes() const {
    return static_cast<int64_t>(state_->picture.rgb.capacity() + state_->turned.capacity()) +
           state_->jpeg.kept_bytes();
}

void Decoder::release() {
    std::vector<uint8_t>().swap(state_->picture.rgb);
    std::vector<uint8_t>().swap(state_->turned);
    state_->jpeg.release();
}

void Decoder::decode(const uint8_t* bytes, size_t size, const std::string& name, const DecodeLimits& limits,
                     Picture& picture, int bits) {
    open(bytes, size, name, limits, false, bits);
    decode_opened(picture);
}

Picture decode(const uint8_t* bytes, size_t size, const std::string& name, const DecodeLimits& limits) {
    Decoder decoder;
    Picture picture;
    decoder.decode(bytes, size, name, limits, picture);
    return picture;
}

}  // namespace rn50
