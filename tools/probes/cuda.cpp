#include <cuda_runtime_api.h>

#include <cstdio>

int main() {
    int version = 0;
    const cudaError_t error = cudaRuntimeGetVersion(&version);
    std::printf("%d.%d\n", version / 1000, version % 1000 / 10);
    return error == cudaSuccess ? 0 : 1;
}
