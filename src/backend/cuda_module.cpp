#include "backend/cuda_module.h"

#include <dlfcn.h>
#include <elf.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <regex>

#include "base/machine.h"

namespace fs = std::filesystem;

namespace rn50 {

namespace {

const char* const file_name = "rn50_cuda.so";
const char* const build_again = "build program and module again, together: make";

bool is_file(const fs::path& path) {
    std::error_code error;
    return fs::exists(path, error) && !fs::is_directory(path, error);
}

ModuleFailure not_there(const char* named) {
    if (named != nullptr && *named != '\0')
        return {cat("RN50_CUDA_MODULE points to ", named, ", and there is no such file"),
                "unset RN50_CUDA_MODULE, or let it point to rn50_cuda.so"};
    return {"this build has no CUDA backend: no rn50_cuda.so beside the program",
            "build rn50 where CUDA's toolkit and cuDNN are (make deps shows what is missing), or use --device cpu"};
}

/// Who brings a library that is missing.
std::string remedy_for(const std::string& library) {
    const std::string or_show = ", or name its folder in LD_LIBRARY_PATH";
    const auto starts = [&](const char* name) { return library.rfind(name, 0) == 0; };
    const size_t dot = library.find(".so.");
    const std::string major = dot == std::string::npos ? "" : library.substr(dot + 4);
    if (starts("libcudnn")) return cat("install NVIDIA's cuDNN ", major, or_show);
    if (starts("libcublas") || starts("libcudart") || starts("libnvrtc") || starts("libnvJitLink"))
        return cat("install the libraries of NVIDIA's CUDA toolkit ", major, or_show);
    return cat("install the package that holds it", or_show);
}

/// Whether a file is a shared library for this processor with its end there: dlopen maps a copy that broke off, and
/// dies.
bool is_whole_library(const std::string& path) {
    Elf64_Ehdr header{};
    std::ifstream in(path, std::ios::binary);
    if (!in.read(reinterpret_cast<char*>(&header), sizeof header)) return false;
    if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_machine != EM_X86_64) return false;
    in.seekg(0, std::ios::end);
    return header.e_shoff + uint64_t{header.e_shnum} * header.e_shentsize <= static_cast<uint64_t>(in.tellg());
}

/// In words, what dlopen said.
ModuleFailure not_loaded(const std::string& path, const std::string& said) {
    std::smatch found;
    const std::string module = cat("the GPU module ", path);
    if (std::regex_search(said, found, std::regex("^([^ ]+): cannot open shared object file: No such")) &&
        found[1] != path)
        return {cat(module, " needs ", found[1].str(), ", which is not found"), remedy_for(found[1])};
    if (std::regex_search(said, found, std::regex("version `([^']+)' not found")))
        return {cat(module, " needs ", found[1].str(), ", newer than this system's library"),
                "build it on this machine, or on one with a system as old"};
    if (std::regex_search(said, found, std::regex("undefined symbol: ([^ ,]+)"))) {
        const bool ours = found[1].str().find("4rn50") != std::string::npos;
        return {cat(module, " does not fit ", ours ? "this program" : "a library of this system", " (no ",
                    found[1].str(), ")"),
                ours ? build_again : "install the version of cuDNN and CUDA that it was built with, or build it here"};
    }
    return {cat(module, " does not load: ", said), build_again};
}

/// CUDA_VISIBLE_DEVICES set to nothing is its way to say that no GPU is to be seen.
bool hidden() {
    const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
    return visible != nullptr && *visible == '\0';
}

struct Loaded {
    const CudaModule* module = nullptr;
    ModuleFailure failure;
};

Loaded load() {
    const std::string path = cuda_module_path();
    if (path.empty()) return {nullptr, not_there(std::getenv("RN50_CUDA_MODULE"))};
    if (!is_whole_library(path)) return {nullptr, {cat(path, " is damaged or no module at all"), build_again}};
    void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
        const char* const said = dlerror();
        return {nullptr, not_loaded(path, said == nullptr ? "" : said)};
    }
    const auto door = reinterpret_cast<const CudaModule* (*)()>(dlsym(handle, "rn50_cuda_module"));
    if (door == nullptr) return {nullptr, {cat(path, " is no GPU module of rn50"), build_again}};
    const CudaModule* const module = door();
    if (module->version != CudaModule::current_version)
        return {nullptr,
                {cat("the GPU module ", path, " is of version ", module->version, ", this program takes ",
                     CudaModule::current_version),
                 build_again}};
    return {module, {}};  // never unloaded: backends made by it may live to the end
}

}  // namespace

std::string cuda_module_path() {
    if (const char* const named = std::getenv("RN50_CUDA_MODULE")) {
        if (!is_file(named)) return "";
        return fs::absolute(named).string();
    }
    std::error_code error;
    const fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
    if (error) return "";
    for (const fs::path& path : {folder / file_name, folder.parent_path() / file_name})
        if (is_file(path)) return path.string();
    return "";
}

const CudaModule* cuda_module(ModuleFailure& why) {
    static const Loaded loaded = load();
    why = loaded.failure;
    return loaded.module;
}

ModuleFailure gpus_out_of_reach() {
    if (hidden())
        return {"CUDA_VISIBLE_DEVICES is set to nothing, which hides every GPU",
                "unset CUDA_VISIBLE_DEVICES, or set it to 0"};
    // Asked here, a machine without a driver need not load CUDA's large libraries to find out.
    if (void* const driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL)) {
        dlclose(driver);
        return {};
    }
    const int devices = nvidia_devices();
    if (devices == 0) return {"this machine has no NVIDIA GPU", "use --device cpu, or a machine that has one"};
    return {cat(devices, devices > 1 ? " NVIDIA GPUs" : " NVIDIA GPU", " without a driver (no libcuda.so.1)"),
            install_command("nvidia-driver firmware-misc-nonfree", "kmod-nvidia-latest-dkms nvidia-x11-drv") +
                " (Red Hat: from ELRepo), then reboot; in a container: docker run --gpus all"};
}

bool gpu_expected() {
    const char* const named = std::getenv("RN50_CUDA_MODULE");
    if (!cuda_module_path().empty() || (named != nullptr && *named != '\0')) return true;
    return !hidden() && nvidia_devices() > 0;
}

const CudaModule& require_cuda_module() {
    ModuleFailure why = cuda_module_path().empty() ? ModuleFailure{} : gpus_out_of_reach();
    const CudaModule* const module = why.reason.empty() ? cuda_module(why) : nullptr;
    if (module == nullptr) throw Error(Exit::device, why.reason, why.remedy);
    return *module;
}

int gpu_of_rank(int local_rank, int visible) {
    if (local_rank < visible || visible < 1) return local_rank;
    if (visible == 1) return 0;
    throw Error(Exit::usage,
                cat("this machine shows ", visible, " GPUs, and this is its rank ", local_rank,
                    " (counted from 0): two ranks would be on one GPU"),
                "start at most one rank a GPU on each machine");
}

std::unique_ptr<Backend> make_cuda_backend(int local_rank) {
    const CudaModule& module = require_cuda_module();
    return module.make(local_rank == 0 ? 0 : gpu_of_rank(local_rank, module.count()));
}

}  // namespace rn50
