// The turbo extension JCS_EXT_RGBX tells libjpeg-turbo from other libjpegs.
#include <cstddef>
#include <cstdio>
// jpeglib.h needs the two above.
#include <jpeglib.h>

#define TEXT(value) TEXT_OF(value)
#define TEXT_OF(value) #value

int main() {
    jpeg_error_mgr errors;
    jpeg_decompress_struct decoder;
    decoder.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&decoder);
    decoder.out_color_space = JCS_EXT_RGBX;
    jpeg_destroy_decompress(&decoder);
    std::puts(TEXT(LIBJPEG_TURBO_VERSION));
}
