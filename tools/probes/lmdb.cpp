#include <lmdb.h>

#include <cstdio>

int main() {
    MDB_env* environment = nullptr;
    if (mdb_env_create(&environment) != 0) return 1;
    mdb_env_close(environment);
    std::printf("%d.%d.%d\n", MDB_VERSION_MAJOR, MDB_VERSION_MINOR, MDB_VERSION_PATCH);
    return 0;
}
