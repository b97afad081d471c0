#include <nccl.h>

#include <cstdio>

int main() {
    int version = 0;
    const ncclResult_t error = ncclGetVersion(&version);
    std::printf("%d.%d.%d\n", version / 10000, version / 100 % 100, version % 100);
    return error == ncclSuccess ? 0 : 1;
}
