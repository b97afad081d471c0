// A picture to draw on, for reports: pictures side by side with text, written as PNG.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace rn50::report {

using Color = uint8_t[3];

class Canvas {
  public:
    /// All of it in one colour. Throws Error(Exit::usage) when it would be more than 400 million pixels.
    Canvas(int64_t height, int64_t width, const Color& background);

    /// Copies a picture u8 {rows, columns, channels}, channels 1 (grey) or 3, to (y, x). It must fit.
    void place(int64_t y, int64_t x, const uint8_t* pixels, int64_t rows, int64_t columns, int channels);
    /// One line with its upper left corner at (y, x), text_height high, cut at `columns` pixels or at the edge. Bytes
    /// outside of ASCII are shown as '?'.
    void text(int64_t y, int64_t x, const std::string& line, int64_t columns, const Color& color);
    static constexpr int64_t text_height = 14;
    /// Pixels that a line takes.
    static int64_t text_width(const std::string& line);

    int64_t height() const { return height_; }
    int64_t width() const { return width_; }
    const std::vector<uint8_t>& rgb() const { return rgb_; }  ///< {height, width, 3}
    /// The bytes of a PNG file.
    std::string png() const;

  private:
    int64_t height_, width_;
    std::vector<uint8_t> rgb_;
};

}  // namespace rn50::report
