#ifdef RN50_NCCL
#include "nccl_library.h"

#include <dlfcn.h>

#include "base/error.h"
#include "base/machine.h"

namespace rn50::cuda {

namespace {

std::string how_to_install() {
    return cat(install_command("libnccl2", "libnccl"),
               " (NVIDIA's packages), or name the folder of libnccl.so.2 in LD_LIBRARY_PATH; one GPU needs none");
}

}  // namespace

std::string nccl_version_text(int version) {
    return cat(version / 10000, ".", version / 100 % 100, ".", version % 100);
}

NcclLibrary load_nccl(const std::string& file) {
    void* const handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
        const char* const said = dlerror();
        throw Error(Exit::device, cat("several GPUs need NCCL, which does not load: ", said == nullptr ? file : said),
                    how_to_install());
    }
    NcclLibrary found;
    std::string missing;
    const auto symbol = [&](const char* name) {
        void* const address = dlsym(handle, name);
        if (address == nullptr && missing.empty()) missing = name;
        return address;
    };
#define RN50_FIND(name) found.name = reinterpret_cast<decltype(found.name)>(symbol("nccl" #name));
    RN50_NCCL_FUNCTIONS(RN50_FIND)
#undef RN50_FIND
    int version = 0;
    if (found.GetVersion != nullptr && found.GetVersion(&version) != ncclSuccess) version = 0;
    if (found.GetVersion != nullptr && (version < oldest_nccl || version / 10000 != NCCL_MAJOR))
        throw Error(Exit::device,
                    cat("NCCL ", nccl_version_text(version), " is loaded, rn50_cuda.so takes ", NCCL_MAJOR, " from ",
                        nccl_version_text(oldest_nccl), " on"),
                    how_to_install());
    if (!missing.empty())
        throw Error(Exit::device, cat(file, " is not a whole NCCL: it has no ", missing), how_to_install());
    return found;
}

}  // namespace rn50::cuda
#endif
