#include <dlfcn.h>

#include "backend/cuda_module.h"
#include "base/error.h"
#include "base/machine.h"
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

/// Without a GPU the CPU computes, where this build has a CPU backend.
State state_of_fault() {
    return has_cpu_backend() ? State::costs : State::missing;
}

Finding fault(const std::string& topic, const ModuleFailure& failure) {
    return {state_of_fault(), topic, failure.reason, failure.remedy};
}

Finding driver_finding(const std::string& newest_cuda) {
    const std::string release = nvidia_driver_release();
    return {State::good, "GPU driver", cat(release.empty() ? "loaded" : release, ", up to CUDA ", newest_cuda), ""};
}

// --- what the driver alone tells: nothing of CUDA is needed to build or to run this ------------------------------

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

std::vector<Finding> driver_findings() {
    const ModuleFailure first = gpus_out_of_reach();
    if (!first.reason.empty()) return {fault("GPU", first)};
    const Library driver("libcuda.so.1");
    const auto init = driver.symbol<Result(unsigned)>("cuInit");
    const auto version = driver.symbol<Result(int*)>("cuDriverGetVersion");
    const auto count_devices = driver.symbol<Result(int*)>("cuDeviceGetCount");
    if (init == nullptr || version == nullptr || count_devices == nullptr)
        return {fault("GPU", {"libcuda.so.1 is no NVIDIA driver", "install NVIDIA's driver anew"})};

    int devices = 0;
    Result code = init(0);
    if (code == 0) code = count_devices(&devices);
    if (code != 0 || devices == 0) {
        const std::string release = nvidia_driver_release();
        return {{state_of_fault(), "GPU",
                 cat("the driver", release.empty() ? "" : " " + release,
                     " is there but gives no GPU: ", code != 0 ? error_text(driver, code) : "none is visible"),
                 "check nvidia-smi and CUDA_VISIBLE_DEVICES; after an update of the driver, reboot"}};
    }
    int number = 0;
    version(&number);  // 12020 is CUDA 12.2
    std::vector<Finding> findings{driver_finding(cat(number / 1000, ".", number % 1000 / 10))};
    for (int i = 0; i < devices; ++i) {
        const std::string text = describe_device(driver, i);
        findings.push_back({text.empty() ? State::costs : State::good, cat("GPU ", i),
                            text.empty() ? "the driver does not describe it" : text, ""});
    }
    return findings;
}

Finding cudnn_finding() {
    // libcudnn.so is a door; it ends the program when the part behind it is missing.
    const std::pair<const char*, const char*> doors[] = {{"libcudnn.so.9", "libcudnn_graph.so.9"},
                                                         {"libcudnn.so.8", "libcudnn_ops_infer.so.8"}};
    for (const auto& [name, part] : doors) {
        const Library library(name), behind(part);
        const auto version_of = library.symbol<size_t()>("cudnnGetVersion");
        if (version_of == nullptr || !behind) continue;
        const size_t number = version_of();  // 8907 is 8.9.7, 91002 is 9.10.2
        const size_t thousand = number >= 90000 ? 10000 : 1000;
        return {State::good, "cuDNN", cat(number / thousand, ".", number % thousand / 100, ".", number % 100), ""};
    }
    return {State::costs, "cuDNN", "not found: a GPU build needs it",
            install_command("nvidia-cudnn", "libcudnn8-devel") + ", or NVIDIA's own package for your CUDA"};
}

// --- what the GPU module tells -----------------------------------------------------------------------------------

Finding device_finding(const CudaDevice& device, size_t index) {
    const std::string topic = cat("GPU ", index);
    if (!device.fault.empty()) return fault(topic, {device.fault, device.remedy});
    return {State::good, topic,
            cat(device.name, ", ", gigabytes(static_cast<double>(device.free_memory)), " free of ",
                gigabytes(static_cast<double>(device.total_memory)), ", compute capability ", device.major, ".",
                device.minor),
            ""};
}

std::vector<Finding> module_findings(CudaModuleInfo info) {
    const ModuleFailure first = gpus_out_of_reach();
    if (!first.reason.empty()) {
        info.fault = first.reason;
        info.remedy = first.remedy;
    }
    std::vector<Finding> findings;
    if (!info.driver_limit.empty()) findings.push_back(driver_finding(info.driver_limit));
    for (size_t i = 0; i < info.devices.size(); ++i)
        findings.push_back(device_finding(info.devices[i], i));
    if (info.devices.empty()) findings.push_back(fault("GPU", {info.fault, info.remedy}));
    findings.push_back({State::good, "GPU module",
                        cat(cuda_module_path(), ", CUDA ", info.toolkit,
                            info.runtime == info.toolkit ? "" : cat(" (runtime ", info.runtime, ")"), ", code for ",
                            info.architectures),
                        ""});
    if (!info.cudnn.empty())
        findings.push_back(
            {State::good, "cuDNN",
             cat(info.cudnn, info.cudnn == info.cudnn_built ? "" : cat(", built with ", info.cudnn_built),
                 "; cuBLASLt ", info.cublaslt),
             ""});
    if (!info.nvjpeg.empty())
        findings.push_back({State::good, "nvJPEG", cat(info.nvjpeg, ", for --decode gpu"), ""});
    else if (!info.devices.empty())
        findings.push_back({State::costs, "nvJPEG", "not found: the CPU decodes all pictures",
                            "install libnvjpeg of the CUDA toolkit that rn50_cuda.so is made with"});
    if (info.devices.empty()) return findings;
    const std::vector<Finding> together = examine_ranks(info);
    findings.insert(findings.end(), together.begin(), together.end());
    return findings;
}

}  // namespace

std::vector<Finding> examine_gpu() {
    ModuleFailure why;
    const CudaModule* const module = cuda_module(why);
    if (module != nullptr) return module_findings(module->info());
    std::vector<Finding> findings = driver_findings();
    if (findings.size() > 1) findings.push_back(cudnn_finding());
    findings.push_back(fault("GPU module", why));
    return findings;
}

}  // namespace rn50::doctor
