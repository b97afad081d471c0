#include "backend/cuda_module.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <regex>
#include <sstream>

#include "backend/elf.h"
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

/// The major version in "libcudnn.so.9", or 0.
int major_of(const std::string& library) {
    const size_t dot = library.find(".so.");
    return dot == std::string::npos ? 0 : std::atoi(library.c_str() + dot + 4);
}

/// What is found of a library in another major version, the next one or that before: "libcudnn.so.8", or "".
std::string other_major(const std::string& library) {
    const int major = major_of(library);
    if (major < 1) return "";
    for (const int other : {major + 1, major - 1}) {
        const std::string name = cat(library.substr(0, library.find(".so.") + 4), other);
        // It stays loaded: CUDA's libraries leave memory behind that nobody can reach once they are gone.
        if (dlopen(name.c_str(), RTLD_LAZY | RTLD_LOCAL) != nullptr) return name;
    }
    return "";
}

ModuleFailure library_missing(const std::string& module, const std::string& library) {
    const std::string other = other_major(library), reason = cat(module, " needs ", library, ", which is not found");
    if (other.empty()) return {reason, remedy_for(library)};
    return {cat(reason, " (", other, " is, another major version, which does not do)"), remedy_for(library)};
}

/// In words, what dlopen said.
ModuleFailure not_loaded(const std::string& path, const std::string& said) {
    std::smatch found;
    const std::string module = cat("the GPU module ", path);
    if (std::regex_search(said, found, std::regex("^([^ ]+): cannot open shared object file: No such")) &&
        found[1] != path)
        return library_missing(module, found[1]);
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

ModuleFailure driver_too_old(int driver, int cuda) {
    const std::string release = nvidia_driver_release();
    // CUDA's release notes, the table of drivers: what each major version needs at least.
    const std::string needed = cuda == 13   ? "driver 580 or newer"
                               : cuda == 12 ? "driver 525 or newer"
                                            : "a newer driver";
    return {cat("the NVIDIA driver", release.empty() ? "" : " " + release, " is too old: it runs CUDA up to ",
                driver / 1000, ".", driver % 1000 / 10, ", rn50_cuda.so is made with CUDA ", cuda),
            cat("install ", needed, ", or build rn50 with CUDA ", driver / 1000, " (make NVCC=/usr/local/cuda-",
                driver / 1000, ".", driver % 1000 / 10, "/bin/nvcc)")};
}

ModuleFailure driver_behind_module() {
    int cuda = 0;
    const std::string path = cuda_module_path();
    if (path.empty()) return {};
    for (const std::string& library : libraries_needed(path))
        if (library.rfind("libcublasLt.so.", 0) == 0) cuda = major_of(library);
    void* const driver = cuda == 0 ? nullptr : dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (driver == nullptr) return {};
    int version = 0;  // 12020 is CUDA 12.2
    const auto get = reinterpret_cast<int (*)(int*)>(dlsym(driver, "cuDriverGetVersion"));
    const bool told = get != nullptr && get(&version) == 0 && version > 0;
    dlclose(driver);
    if (!told || version / 1000 >= cuda) return {};
    return driver_too_old(version, cuda);
}

ModuleFailure gpus_out_of_reach() {
    if (hidden())
        return {"CUDA_VISIBLE_DEVICES is set to nothing, which hides every GPU",
                "unset CUDA_VISIBLE_DEVICES, or set it to 0"};
    // Asked here, a machine without a driver need not load CUDA's large libraries to find out.
    if (void* const driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL)) {
        dlclose(driver);
        return driver_behind_module();
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

ModuleCode module_code(const std::string& architectures, int major, int minor) {
    ModuleCode best = ModuleCode::none;
    std::istringstream words(architectures);
    const std::regex form("(sm|compute)_([0-9]+)([0-9])([af]?)");
    for (std::string word; words >> word;) {
        std::smatch found;
        if (!std::regex_match(word, found, form)) continue;
        const int its_major = std::stoi(found[2]), its_minor = std::stoi(found[3]);
        const bool ptx = found[1] == "compute", same_major = its_major == major, older = its_minor <= minor;
        // Machine code serves its own generation from its own GPU on, PTX all later ones too; "a" is one GPU's alone,
        // "f" a generation's.
        const bool serves = found[4] == "a"          ? same_major && its_minor == minor
                            : ptx && found[4] != "f" ? its_major < major || (same_major && older)
                                                     : same_major && older;
        if (!serves) continue;
        if (!ptx) return ModuleCode::machine;
        best = ModuleCode::ptx;
    }
    return best;
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
