#include <cublasLt.h>

#include <cstdio>

int main() {
    const size_t version = cublasLtGetVersion();
    std::printf("%zu.%zu.%zu\n", version / 10000, version / 100 % 100, version % 100);
    return version > 0 ? 0 : 1;
}
