// The header alone: the library is looked for by the program itself, where several GPUs train.
#include <nccl.h>

#include <cstdio>

int main() {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    std::printf("%d.%d.%d\n", NCCL_MAJOR, NCCL_MINOR, NCCL_PATCH);
    return NCCL_VERSION_CODE >= 21600 && config.size == sizeof config ? 0 : 1;
}
