#include "check.h"

#include "base/error.h"

namespace rn50::cuda {

namespace {

const char lost[] =
    "the GPU was lost: `dmesg | grep -i xid` tells why (13, 31: a faulty access of a program; 48, 63, 64, 94, 95: its "
    "memory; 79: it fell off the bus); when nvidia-smi shows it again, continue with --resume auto";
const char mps[] =
    "MPS, through which several programs share this GPU, failed: /var/log/nvidia-mps/server.log tells why; end the "
    "others and start it anew (`echo quit | nvidia-cuda-mps-control`, then `nvidia-cuda-mps-control -d`), or do "
    "without "
    "it, and continue with --resume auto";
const char mps_full[] =
    "MPS, through which several programs share this GPU, takes no more of them: end one (nvidia-smi shows which), or "
    "do "
    "without MPS";
const char no_device[] =
    "nvidia-smi must list a GPU, and CUDA_VISIBLE_DEVICES must not hide it; or train on the processor with --device "
    "cpu";
const char memory_taken[] =
    "another process has taken memory of this GPU since the plan was made: nvidia-smi shows which; end it, or choose a "
    "smaller --batch-size";
const char no_code[] =
    "rn50_cuda.so holds no code for this GPU: build it on this machine (make clean, make), or take one that was built "
    "by `make dist`";
const char install_whole[] =
    "install cuDNN anew, whole and of one version: `ldconfig -p | grep cudnn` and LD_LIBRARY_PATH show which files are "
    "found";
const char report[] = "please report this with the output of `rn50 doctor`";

/// Without any driver the runtime speaks of one that is too old.
std::string driver_too_old() {
    int runtime = 0, driver = 0;
    if (cudaRuntimeGetVersion(&runtime) != cudaSuccess || cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
        return cat("NVIDIA's driver is not loaded: ", no_device);
    return cat("NVIDIA's driver is too old (it runs CUDA up to ", cuda_version_text(driver), ", rn50_cuda.so needs ",
               cuda_version_text(runtime), "): install a newer driver, or build with an older CUDA toolkit");
}

/// The library's own sentence about its last error, where it keeps one.
std::string last_words() {
#if CUDNN_MAJOR >= 9
    char text[1024] = "";
    cudnnGetLastErrorString(text, sizeof text);
    if (text[0] != '\0') return cat(" (", text, ")");
#endif
    return {};
}

std::string remedy_for(cudnnStatus_t status) {
    switch (status) {
        case CUDNN_STATUS_NOT_INITIALIZED:
            return cat("cuDNN could not start: ", no_device);
#if CUDNN_MAJOR >= 9
        case CUDNN_STATUS_SUBLIBRARY_VERSION_MISMATCH:
        case CUDNN_STATUS_SUBLIBRARY_LOADING_FAILED:
        case CUDNN_STATUS_NOT_SUPPORTED_SUBLIBRARY_UNAVAILABLE:
        case CUDNN_STATUS_NOT_SUPPORTED_RUNTIME_PREREQUISITE_MISSING:
            return install_whole;
        case CUDNN_STATUS_NOT_SUPPORTED_INCOMPATIBLE_CUDA_DRIVER:
            return driver_too_old();
        case CUDNN_STATUS_NOT_SUPPORTED_INCOMPATIBLE_CUDART:
            return "this cuDNN was built for another CUDA: install the one for the toolkit rn50_cuda.so was built with";
        case CUDNN_STATUS_NOT_SUPPORTED_ARCH_MISMATCH:
            return "this cuDNN does not serve this GPU: install another version of it, or use --device cpu";
        case CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED:
            return memory_taken;
#else
        case CUDNN_STATUS_VERSION_MISMATCH:
        case CUDNN_STATUS_RUNTIME_PREREQUISITE_MISSING:
            return install_whole;
        case CUDNN_STATUS_ARCH_MISMATCH:
            return "this cuDNN does not serve this GPU: install another version of it, or use --device cpu";
        case CUDNN_STATUS_ALLOC_FAILED:
            return memory_taken;
#endif
        default:
            break;
    }
        // The execution failures of cuDNN 9 are a family; the CUDA error behind them is what to look at.
#if CUDNN_MAJOR >= 9
    const bool execution = status >= CUDNN_STATUS_EXECUTION_FAILED;
    const bool unsupported = CUDNN_STATUS_CATEGORY(status) == CUDNN_STATUS_NOT_SUPPORTED;
#else
    const bool execution = status == CUDNN_STATUS_EXECUTION_FAILED;
    const bool unsupported = status == CUDNN_STATUS_NOT_SUPPORTED;
#endif
    if (execution) return lost;
    if (unsupported) return "try another version of cuDNN or another --precision";
    return report;
}

std::string remedy_for(cublasStatus_t status) {
    switch (status) {
        case CUBLAS_STATUS_NOT_INITIALIZED:
            return cat("cuBLASLt could not start: ", no_device);
        case CUBLAS_STATUS_ALLOC_FAILED:
            return memory_taken;
        case CUBLAS_STATUS_ARCH_MISMATCH:
            return "this cuBLASLt does not serve this GPU: install another version of CUDA's libraries, or use "
                   "--device cpu";
        case CUBLAS_STATUS_EXECUTION_FAILED:
            return lost;
        case CUBLAS_STATUS_NOT_SUPPORTED:
            return "try another version of CUDA's libraries or another --precision";
        default:
            return report;
    }
}

}  // namespace

std::string remedy_for(cudaError_t status) {
    // Younger than CUDA 12.2, whose headers do not name it: a memory error that ended this program's part of the GPU.
    constexpr int contained = 226;
    switch (static_cast<int>(status)) {
        case cudaErrorNoDevice:
        case cudaErrorInvalidDevice:
            return no_device;
        case cudaErrorInsufficientDriver:
        case cudaErrorCallRequiresNewerDriver:
        case cudaErrorUnsupportedPtxVersion:
            return driver_too_old();
        case cudaErrorMemoryAllocation:
            return memory_taken;
        case cudaErrorNoKernelImageForDevice:
        case cudaErrorInvalidKernelImage:
        case cudaErrorInvalidPtx:
        case cudaErrorInvalidDeviceFunction:
            return no_code;
        case cudaErrorDevicesUnavailable:
            return "another process holds this GPU for itself: nvidia-smi shows which, and `nvidia-smi -c DEFAULT` "
                   "lets "
                   "several share it";
        case cudaErrorInitializationError:
        case cudaErrorSystemDriverMismatch:
        case cudaErrorSystemNotReady:
            return "the driver is not ready: load it anew (`modprobe nvidia`, or restart the machine), until "
                   "nvidia-smi "
                   "works; machines with NVSwitch need nvidia-fabricmanager running too";
        case cudaErrorCompatNotSupportedOnDevice:
            return "this GPU cannot use CUDA's forward-compatibility package: take it off LD_LIBRARY_PATH, or install "
                   "a "
                   "newer driver";
        case cudaErrorECCUncorrectable:
        case cudaErrorNvlinkUncorrectable:
        case cudaErrorIllegalAddress:
        case cudaErrorIllegalInstruction:
        case cudaErrorMisalignedAddress:
        case cudaErrorInvalidAddressSpace:
        case cudaErrorInvalidPc:
        case cudaErrorHardwareStackError:
        case cudaErrorLaunchFailure:
        case cudaErrorLaunchTimeout:
        case cudaErrorAssert:
        case cudaErrorUnknown:
        case contained:
        case cudaErrorDeviceUninitialized:  // what is left of a GPU that was reset
        case cudaErrorContextIsDestroyed:
        case cudaErrorExternalDevice:
            return lost;
        case cudaErrorMpsConnectionFailed:
        case cudaErrorMpsRpcFailure:
        case cudaErrorMpsServerNotReady:
        case cudaErrorMpsClientTerminated:
            return mps;
        case cudaErrorMpsMaxClientsReached:
        case cudaErrorMpsMaxConnectionsReached:
            return mps_full;
        default:
            return report;
    }
}

namespace {

/// The error of CUDA behind a library's failure. Each library has a runtime of its own, which keeps the error of its
/// last launch to itself; one that has ended the context is seen by all, and asking a stream tells it.
cudaError_t error_behind() {
    cudaError_t behind = cudaGetLastError();
    if (behind == cudaSuccess) behind = cudaStreamQuery(cudaStreamLegacy);
    cudaGetLastError();  // else the next launch would return it once more
    return behind == cudaErrorNotReady ? cudaSuccess : behind;
}

}  // namespace

bool device_lives() {
    return error_behind() == cudaSuccess;
}

void check(cudaError_t status, const std::string& what) {
    if (status == cudaSuccess) return;
    const char* name = cudaGetErrorName(status);
    const char* words = cudaGetErrorString(status);
    // An error that is not sticky would be returned once more by the next launch.
    cudaGetLastError();
    throw Error(Exit::device, cat(what, ": ", words, " (", name, ")"), remedy_for(status));
}

void check(cudnnStatus_t status, const std::string& what) {
    if (status == CUDNN_STATUS_SUCCESS) return;
    const cudaError_t behind = error_behind();
    const std::string because = behind == cudaSuccess ? last_words() : cat(" (", cudaGetErrorString(behind), ")");
    throw Error(Exit::device, cat(what, ": ", cudnnGetErrorString(status), because),
                behind == cudaSuccess ? remedy_for(status) : remedy_for(behind));
}

void check(cublasStatus_t status, const std::string& what) {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    const cudaError_t behind = error_behind();
    const std::string because = behind == cudaSuccess ? "" : cat(" (", cudaGetErrorString(behind), ")");
    throw Error(Exit::device, cat(what, ": ", cublasLtGetStatusName(status), because),
                behind == cudaSuccess ? remedy_for(status) : remedy_for(behind));
}

std::string cuda_version_text(int version) {
    return cat(version / 1000, ".", version % 1000 / 10);
}

std::string cudnn_version_text(size_t version) {
    const size_t major = version >= 90000 ? 10000 : 1000;
    return cat(version / major, ".", version % major / 100, ".", version % 100);
}

std::string cublaslt_version_text(size_t version) {
    return cat(version / 10000, ".", version % 10000 / 100, ".", version % 100);
}

}  // namespace rn50::cuda
