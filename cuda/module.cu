// The door of rn50_cuda.so: what it was built with, what it finds on this machine, and a backend on one GPU. Each fault
// is told in one sentence with the one thing to do, the same to doctor and to train.
#include <cublasLt.h>
#include <cuda_runtime.h>
#include <cudnn.h>
#include <dlfcn.h>

#include <cstdlib>
#include <vector>

#include "backend/cuda_module.h"
#include "comm/comm.h"
#include "cuda_backend.h"
#include "driver_meter.h"
#include "nccl_collectives.h"
#include "picture_decoders.h"

namespace rn50::cuda {

namespace {

constexpr const char* architectures = RN50_CUDA_ARCHS;

/// Asked for on a device, it tells whether any code of this module runs there.
__global__ void architecture_probe() {}

/// "13.0" of 13000
std::string cuda_version(int number) {
    return cat(number / 1000, ".", number % 1000 / 10);
}

/// 8907 is 8.9.7, 91002 is 9.10.2.
std::string cudnn_version(size_t number) {
    const size_t major = number >= 90000 ? 10000 : 1000;
    return cat(number / major, ".", number % major / 100, ".", number % 100);
}

size_t cudnn_major(size_t number) {
    return number / (number >= 90000 ? 10000 : 1000);
}

std::string cublaslt_version(size_t number) {
    return cat(number / 10000, ".", number / 100 % 100, ".", number % 100);
}

std::string text_of(cudaError_t error) {
    return cat(cudaGetErrorString(error), " (", cudaGetErrorName(error), ")");
}

/// Why the driver gives no GPU at all.
ModuleFailure driver_failure(cudaError_t error) {
    const std::string container = "; in a container: docker run --gpus all";
    int driver = 0;
    cudaDriverGetVersion(&driver);
    const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
    switch (error) {
        case cudaErrorInsufficientDriver:
            return driver_too_old(driver, CUDART_VERSION / 1000);
        case cudaErrorNoDevice:
            if (visible != nullptr)
                return {cat("CUDA_VISIBLE_DEVICES=", visible, " hides every GPU"),
                        "unset CUDA_VISIBLE_DEVICES, or set it to 0"};
            return {"the NVIDIA driver is there but gives no GPU", cat("see what nvidia-smi says", container)};
        case cudaErrorSystemDriverMismatch:
            return {"the NVIDIA driver's library and its kernel module are of different versions",
                    "reboot: the driver was updated"};
        case cudaErrorCompatNotSupportedOnDevice:
            return {"a CUDA compatibility library stands before the driver, and this GPU does not take it",
                    "take the folder of cuda-compat out of LD_LIBRARY_PATH"};
        case cudaErrorSystemNotReady:
            return {"the NVIDIA driver is not ready", "sudo systemctl start nvidia-fabricmanager"};
        default:
            return {cat("the NVIDIA driver does not start: ", text_of(error)),
                    "sudo modprobe nvidia_uvm, or reboot; see what nvidia-smi says"};
    }
}

bool loads(const std::string& library) {
    void* const handle = dlopen(library.c_str(), RTLD_LAZY | RTLD_LOCAL);
    if (handle != nullptr) dlclose(handle);
    return handle != nullptr;
}

/// The first of cuDNN's parts that is not there, or "". libcudnn.so is a door to them. Where the part behind a call is
/// missing it ends the program, or finds no plan for any convolution: so none is called before they are all seen.
const std::string& missing_cudnn_part() {
    static const std::string missing = [] {
        Dl_info door;
        std::string folder;
        if (dladdr(reinterpret_cast<const void*>(cudnnGetVersion), &door) != 0 && door.dli_fname != nullptr)
            folder = door.dli_fname;
        folder.erase(folder.rfind('/') + 1);
        const std::vector<const char*> parts =
            CUDNN_MAJOR >= 9 ? std::vector<const char*>{"graph",
                                                        "ops",
                                                        "cnn",
                                                        "heuristic",
                                                        "engines_precompiled",
                                                        "engines_runtime_compiled"}
                             : std::vector<const char*>{"ops_infer", "ops_train", "cnn_infer", "cnn_train"};
        for (const char* part : parts) {
            const std::string name = cat("libcudnn_", part, ".so.", CUDNN_MAJOR);
            if (!loads(folder + name) && !loads(name)) return name;
        }
        return std::string();
    }();
    return missing;
}

ModuleFailure cudnn_failure() {
    if (!missing_cudnn_part().empty())
        return {cat("cuDNN is not complete: ", missing_cudnn_part(), " is not found"),
                cat("install the whole of NVIDIA's cuDNN ", CUDNN_MAJOR)};
    const size_t loaded = cudnnGetVersion();
    if (cudnn_major(loaded) == CUDNN_MAJOR) return {};
    return {
        cat("cuDNN ", cudnn_version(loaded), " is loaded, rn50_cuda.so is made with ", cudnn_version(CUDNN_VERSION)),
        cat("install cuDNN ", CUDNN_MAJOR, ", or build rn50 with the one that is here")};
}

/// What every GPU of this machine needs; `count` is set where the driver tells it.
ModuleFailure common_failure(int& count) {
    count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess) {
        cudaGetLastError();  // what was told is told once
        return driver_failure(error);
    }
    if (count == 0) return driver_failure(cudaErrorNoDevice);
    return cudnn_failure();
}

/// Why a GPU that the driver gives cannot be used.
ModuleFailure device_failure(int index, const CudaDevice& device, cudaError_t error) {
    const std::string name = cat("GPU ", index, " (", device.name, ")");
    char bus[32] = "";
    cudaDeviceGetPCIBusId(bus, sizeof bus, index);
    const std::string shared = cat("sudo nvidia-smi -i ", bus, " -c DEFAULT");
    const std::string other = "choose another with CUDA_VISIBLE_DEVICES";
    int mode = cudaComputeModeDefault;
    cudaDeviceGetAttribute(&mode, cudaDevAttrComputeMode, index);
    if (mode == cudaComputeModeProhibited)
        return {cat(name, " is set to take no programs (compute mode prohibited)"), shared};
    switch (error) {
        case cudaErrorDevicesUnavailable:
            if (mode == cudaComputeModeDefault)
                return {cat(name, " is busy or unavailable"), cat("see what nvidia-smi says, or ", other)};
            return {cat(name, " is taken by another program (compute mode exclusive)"),
                    cat("end that program (nvidia-smi names it), ", other, ", or ", shared)};
        case cudaErrorMemoryAllocation:
            return {cat(name, " has no memory left for another program"),
                    cat("end the program that has it (nvidia-smi names it), or ", other)};
        case cudaErrorNoKernelImageForDevice:
        case cudaErrorInvalidDeviceFunction:
            return {cat(name, " is of compute capability ", device.major, ".", device.minor,
                        ", rn50_cuda.so holds code for ", architectures),
                    device.major * 10 + device.minor < 75
                        ? std::string("use --device cpu: rn50 computes on GPUs from Turing (7.5) on")
                        : cat("make CUDA_ARCHS=", device.major, device.minor, ", or make dist for all GPUs")};
        case cudaErrorUnsupportedPtxVersion:
        case cudaErrorJitCompilerNotFound:
            return {
                cat("the driver cannot make code for ", name, " from the PTX of rn50_cuda.so (", architectures, ")"),
                cat("make CUDA_ARCHS=", device.major, device.minor, ", or install a newer driver")};
        case cudaErrorECCUncorrectable:
            return {cat(name, " has memory errors that ECC could not correct"),
                    cat("sudo nvidia-smi -i ", bus, " --gpu-reset; if it comes back, replace the GPU")};
        default:
            return {cat(name, " does not start: ", text_of(error)), cat("see what nvidia-smi says, or ", other)};
    }
}

/// Describes one GPU, and starts it to see whether it can be used.
CudaDevice examine(int index) {
    CudaDevice device;
    cudaDeviceProp properties;
    cudaError_t error = cudaGetDeviceProperties(&properties, index);
    if (error == cudaSuccess) {
        device.name = properties.name;
        device.major = properties.major;
        device.minor = properties.minor;
        device.total_memory = static_cast<int64_t>(properties.totalGlobalMem);
        error = cudaSetDevice(index);
    }
    cudaFuncAttributes attributes;
    if (error == cudaSuccess) error = cudaFuncGetAttributes(&attributes, architecture_probe);
    device.has_kernels = error == cudaSuccess;
    size_t free_bytes = 0, total_bytes = 0;
    if (error == cudaSuccess) error = cudaMemGetInfo(&free_bytes, &total_bytes);
    device.free_memory = static_cast<int64_t>(free_bytes);
    if (error != cudaSuccess) {
        cudaGetLastError();
        const ModuleFailure failure = device_failure(index, device, error);
        device.fault = failure.reason;
        device.remedy = failure.remedy;
    }
    return device;
}

std::vector<std::vector<bool>> peers_among(int count) {
    std::vector<std::vector<bool>> peers(static_cast<size_t>(count), std::vector<bool>(static_cast<size_t>(count)));
    for (int i = 0; i < count; ++i)
        for (int j = 0; j < count; ++j) {
            int reaches = 0;
            if (i != j && cudaDeviceCanAccessPeer(&reaches, i, j) != cudaSuccess) cudaGetLastError();
            peers[static_cast<size_t>(i)][static_cast<size_t>(j)] = reaches != 0;
        }
    return peers;
}

CudaModuleInfo info() {
    CudaModuleInfo info;
    info.toolkit = cuda_version(CUDART_VERSION);
    info.architectures = architectures;
    if (missing_cudnn_part().empty()) info.cudnn = cudnn_version(cudnnGetVersion());
    info.cudnn_built = cudnn_version(CUDNN_VERSION);
    info.cublaslt = cublaslt_version(cublasLtGetVersion());
    info.nccl = nccl_loaded();
    info.nccl_built = nccl_built();
    info.nvjpeg = nvjpeg_version();
    int number = 0;
    if (cudaRuntimeGetVersion(&number) == cudaSuccess) info.runtime = cuda_version(number);
    if (cudaDriverGetVersion(&number) == cudaSuccess && number > 0) info.driver_limit = cuda_version(number);

    int count = 0;
    const ModuleFailure common = common_failure(count);
    info.fault = common.reason;
    info.remedy = common.remedy;
    if (!info.fault.empty()) return info;
    int current = 0;
    cudaGetDevice(&current);
    for (int i = 0; i < count; ++i)
        info.devices.push_back(examine(i));
    cudaSetDevice(current);
    info.peers = peers_among(count);
    for (const CudaDevice& device : info.devices)
        if (device.fault.empty()) return info;
    info.fault = info.devices[0].fault;
    info.remedy = info.devices[0].remedy;
    return info;
}

int count_gpus() {
    int count = 0;
    const ModuleFailure common = common_failure(count);
    if (!common.reason.empty()) throw Error(Exit::device, common.reason, common.remedy);
    return count;
}

std::unique_ptr<Backend> make(int index) {
    const int count = count_gpus();
    if (index < 0 || index >= count)
        throw Error(Exit::device, cat("there is no GPU ", index, ": this machine shows ", count),
                    "see nvidia-smi and CUDA_VISIBLE_DEVICES");
    // Asked before examine(), which makes CUDA's context.
    char bus[32] = "";
    cudaDeviceGetPCIBusId(bus, sizeof bus, index);
    DriverMeter meter = make_driver_meter(bus);
    const int64_t free_before = meter ? meter() : 0;
    const CudaDevice device = examine(index);
    if (!device.fault.empty()) throw Error(Exit::device, device.fault, device.remedy);
    return std::make_unique<CudaBackend>(index, std::move(meter), free_before);
}

std::unique_ptr<Collectives> collectives(Backend& backend, StoreClient& store, const Place& place,
                                         std::chrono::milliseconds patience) {
    RN50_REQUIRE(backend.info().kind == "cuda", "NCCL for a backend of another kind");
    return make_nccl(static_cast<CudaBackend&>(backend).stream(), store, place, patience);
}

}  // namespace

}  // namespace rn50::cuda

extern "C" const rn50::CudaModule* rn50_cuda_module() {
    static const rn50::CudaModule module{
        rn50::CudaModule::current_version, rn50::cuda::info,       rn50::cuda::make, rn50::cuda::count_gpus,
        rn50::cuda::require_nccl,          rn50::cuda::collectives};
    return &module;
}
