#include <dlfcn.h>

#include <filesystem>
#include <fstream>
#include <regex>

#include "base/error.h"
#include "cli/doctor.h"

namespace rn50::doctor {

namespace {

/// A shared library for the length of a scope.
class Library {
  public:
    explicit Library(const char* name) : handle_(dlopen(name, RTLD_LAZY | RTLD_LOCAL)) {}
    ~Library() {
        if (handle_ != nullptr) dlclose(handle_);
    }
    Library(const Library&) = delete;
    Library& operator=(const Library&) = delete;
    explicit operator bool() const { return handle_ != nullptr; }

    template <class Function>
    Function* symbol(const char* name) const {
        return handle_ == nullptr ? nullptr : reinterpret_cast<Function*>(dlsym(handle_, name));
    }

  private:
    void* handle_;
};

/// NVIDIA graphics devices on the PCI bus: visible without any driver.
int nvidia_devices_on_bus() {
    int count = 0;
    std::error_code unreadable;
    for (const auto& device : std::filesystem::directory_iterator("/sys/bus/pci/devices", unreadable)) {
        std::string vendor, device_class;
        std::ifstream(device.path() / "vendor") >> vendor;
        std::ifstream(device.path() / "class") >> device_class;
        if (vendor == "0x10de" && device_class.compare(0, 4, "0x03") == 0) ++count;
    }
    return count;
}

/// "535.104.05" from the kernel module, or "".
std::string driver_release() {
    std::ifstream in("/proc/driver/nvidia/version");
    std::string line;
    std::getline(in, line);
    std::smatch found;
    return std::regex_search(line, found, std::regex("[0-9]{3,}\\.[0-9.]+")) ? found.str() : "";
}

Finding no_driver() {
    const int devices = nvidia_devices_on_bus();
    if (devices == 0) return {State::costs, "GPU", "no NVIDIA GPU: the CPU computes", ""};
    return {State::costs, "GPU",
            cat(devices, " NVIDIA GPU", devices > 1 ? "s" : "", " without a driver (no libcuda.so.1)"),
            install_command("nvidia-driver firmware-misc-nonfree", "kmod-nvidia-latest-dkms nvidia-x11-drv") +
                " (Red Hat: from ELRepo), then reboot; in a container: docker run --gpus all"};
}

using Result = int;  // CUresult, 0 is success

std::string error_text(const Library& driver, Result code) {
    const auto describe = driver.symbol<Result(Result, const char**)>("cuGetErrorString");
    const char* text = nullptr;
    if (describe != nullptr && describe(code, &text) == 0 && text != nullptr) return text;
    return cat("error ", code);
}

/// "NVIDIA H200, 150.8 GB, compute capability 9.0", or "" when the driver does not answer.
std::string describe_device(const Library& driver, int index) {
    const auto get = driver.symbol<Result(int*, int)>("cuDeviceGet");
    const auto name_of_device = driver.symbol<Result(char*, int, int)>("cuDeviceGetName");
    const auto memory_of = driver.symbol<Result(size_t*, int)>("cuDeviceTotalMem_v2");
    const auto attribute = driver.symbol<Result(int*, int, int)>("cuDeviceGetAttribute");
    if (get == nullptr || name_of_device == nullptr || memory_of == nullptr || attribute == nullptr) return "";
    constexpr int capability_major = 75, capability_minor = 76;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
    char name[256] = "";
    size_t bytes = 0;
    int device = 0, major = 0, minor = 0;
    if (get(&device, index) != 0 || name_of_device(name, sizeof name, device) != 0 || memory_of(&bytes, device) != 0 ||
        attribute(&major, capability_major, device) != 0 || attribute(&minor, capability_minor, device) != 0)
        return "";
    return cat(name, ", ", gigabytes(static_cast<double>(bytes)), ", compute capability ", major, ".", minor);
}

Finding cudnn_finding() {
    for (const char* name : {"libcudnn.so.9", "libcudnn.so.8", "libcudnn.so"}) {
        const Library library(name);
        const auto version_of = library.symbol<size_t()>("cudnnGetVersion");
        if (version_of == nullptr) continue;
        const size_t number = version_of();  // 8907 is 8.9.7, 91002 is 9.10.2
        const size_t thousand = number >= 90000 ? 10000 : 1000;
        return {State::good, "cuDNN", cat(number / thousand, ".", number % thousand / 100, ".", number % 100), ""};
    }
    return {State::costs, "cuDNN", "not found: a GPU build needs it",
            install_command("nvidia-cudnn", "libcudnn8-devel") + ", or NVIDIA's own package for your CUDA"};
}

Finding module_finding() {
    std::error_code error;
    const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
    const auto module = program.parent_path() / "rn50_cuda.so";
    if (!error && std::filesystem::exists(module, error)) return {State::good, "GPU module", module.string(), ""};
    return {State::costs, "GPU module", "no rn50_cuda.so beside the program: the CPU computes",
            "build rn50 with its GPU module on a machine that has the CUDA toolkit"};
}

}  // namespace

std::vector<Finding> examine_gpu() {
    const Library driver("libcuda.so.1");
    const auto init = driver.symbol<Result(unsigned)>("cuInit");
    const auto version = driver.symbol<Result(int*)>("cuDriverGetVersion");
    const auto count_devices = driver.symbol<Result(int*)>("cuDeviceGetCount");
    if (init == nullptr || version == nullptr || count_devices == nullptr) return {no_driver(), module_finding()};

    int devices = 0;
    Result code = init(0);
    if (code == 0) code = count_devices(&devices);
    const std::string release = driver_release();
    if (code != 0 || devices == 0)
        return {{State::costs, "GPU",
                 cat("the driver", release.empty() ? "" : " " + release,
                     " is there but gives no GPU: ", code != 0 ? error_text(driver, code) : "none is visible"),
                 "check nvidia-smi and CUDA_VISIBLE_DEVICES; after an update of the driver, reboot"},
                module_finding()};

    int number = 0;
    version(&number);  // 12020 is CUDA 12.2
    std::vector<Finding> findings{
        {State::good, "GPU driver",
         cat(release.empty() ? "loaded" : release, ", up to CUDA ", number / 1000, ".", number % 1000 / 10), ""}};
    for (int i = 0; i < devices; ++i) {
        const std::string text = describe_device(driver, i);
        findings.push_back({text.empty() ? State::costs : State::good, cat("GPU ", i),
                            text.empty() ? "the driver does not describe it" : text, ""});
    }
    findings.push_back(cudnn_finding());
    findings.push_back(module_finding());
    return findings;
}

}  // namespace rn50::doctor
