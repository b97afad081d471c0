// libjpeg-turbo 1.5 and newer decode a part of a picture; CentOS 7's 1.2.90 does not.
#include <cstddef>
#include <cstdio>
// jpeglib.h needs the two above.
#include <jpeglib.h>

int main() {
    void (*const crop)(j_decompress_ptr, JDIMENSION*, JDIMENSION*) = &jpeg_crop_scanline;
    JDIMENSION (*const skip)(j_decompress_ptr, JDIMENSION) = &jpeg_skip_scanlines;
    std::puts("decodes parts of pictures");
    return crop != nullptr && skip != nullptr ? 0 : 1;
}
