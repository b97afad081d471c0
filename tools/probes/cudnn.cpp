#include <cudnn.h>

#include <cstdio>

int main() {
    const size_t version = cudnnGetVersion();
    std::printf("%d.%d.%d\n", CUDNN_MAJOR, CUDNN_MINOR, CUDNN_PATCHLEVEL);
    return version > 0 ? 0 : 1;
}
