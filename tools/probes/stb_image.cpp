#define STB_IMAGE_IMPLEMENTATION
#define STBI_NO_STDIO
#include <stb/stb_image.h>

#include <cstdio>

int main() {
    const unsigned char picture[] = {'P', '6', ' ', '1', ' ', '1', ' ', '2', '5', '5', '\n', 1, 2, 3};
    int width = 0, height = 0, channels = 0;
    unsigned char* pixels = stbi_load_from_memory(picture, sizeof picture, &width, &height, &channels, 3);
    const bool right = pixels && width == 1 && height == 1 && pixels[2] == 3;
    stbi_image_free(pixels);
    std::printf("API version %d\n", STBI_VERSION);
    return right ? 0 : 1;
}
