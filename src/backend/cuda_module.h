// What rn50_cuda.so, the CUDA twin, offers to the program that loads it. The module is optional: `rn50` starts without
// it, without a driver and without any of CUDA's libraries, and can then say what is missing.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace rn50 {

class Collectives;
class StoreClient;
struct Place;

/// One GPU as the module's runtime sees it.
struct CudaDevice {
    std::string name;                           ///< "NVIDIA GeForce RTX 4090"
    int major = 0, minor = 0;                   ///< compute capability
    int64_t total_memory = 0, free_memory = 0;  ///< bytes
    bool has_kernels = false;                   ///< the module holds machine code or PTX that runs on it
    std::string fault, remedy;                  ///< why this one cannot be used; "" when it can
};

/// What the module was built with and what it finds; nothing here needs a device.
struct CudaModuleInfo {
    std::string toolkit;                       ///< "13.0": compiled with
    std::string runtime, driver_limit;         ///< "13.0" and the newest CUDA the driver can run, "" without a driver
    std::string cudnn, cudnn_built, cublaslt;  ///< loaded; compiled against
    std::string nccl, nccl_built;              ///< likewise; "" where it is not found, and was not
    std::string nvjpeg;                        ///< "12.2.5", loaded; "" where it is not found
    std::string architectures;                 ///< "sm_89 sm_90 compute_90"
    std::string fault;                         ///< why no GPU can be used, in words; "" when one can
    std::string remedy;                        ///< the one thing to do about it
    std::vector<CudaDevice> devices;
    std::vector<std::vector<bool>> peers;  ///< by two devices: the one reaches the other's memory without the host
};

/// The one symbol that the module exports is `extern "C" const CudaModule* rn50_cuda_module()`.
struct CudaModule {
    static constexpr int current_version = 7;
    int version;  ///< of this struct and of backend.h; a module of another version is refused
    CudaModuleInfo (*info)();
    /// Throws Error(Exit::device) with the remedy when GPU `index` cannot be used.
    std::unique_ptr<Backend> (*make)(int index);
    /// How many GPUs the driver gives; takes none of them. Throws Error(Exit::device) when they cannot be used.
    int (*count)();
    /// Throws Error(Exit::device) with what to install when several GPUs cannot train together.
    void (*require_collectives)();
    /// The engine under a Communicator (comm/comm.h), for tensors of a backend of this module.
    std::unique_ptr<Collectives> (*collectives)(Backend& backend, StoreClient& store, const Place& place,
                                                std::chrono::milliseconds patience);
};

/// Why something of it cannot be used, and the one thing to do; both "" when it can.
struct ModuleFailure {
    std::string reason, remedy;
};

/// Where the module lies: where RN50_CUDA_MODULE points (set to nothing: nowhere), else rn50_cuda.so beside the program
/// or one folder above it. "" where there is none.
std::string cuda_module_path();
/// The module, loaded once. Null when it is not there or does not load: then `why` says why.
const CudaModule* cuda_module(ModuleFailure& why);
/// What keeps every GPU from use before any module is loaded: CUDA_VISIBLE_DEVICES set to nothing, no driver, or one
/// that is too old for the module.
ModuleFailure gpus_out_of_reach();
/// The last of these alone. The module's file names the CUDA that it was made with, in the libraries that it needs: so
/// it is told before one of them is missed, which a new driver's user would then install in vain.
ModuleFailure driver_behind_module();
/// In words: a driver that runs CUDA up to `driver` (12020 is 12.2), and a module made with CUDA `cuda` (13).
ModuleFailure driver_too_old(int driver, int cuda);

/// How a module built for `architectures` ("sm_89 compute_75") serves a GPU of a compute capability.
enum class ModuleCode : uint8_t {
    none,
    ptx,      ///< the driver makes machine code when it first meets it, and keeps that
    machine,  ///< holds its machine code
};
ModuleCode module_code(const std::string& architectures, int major, int minor);
/// Whether something speaks of a GPU: the module, RN50_CUDA_MODULE, or an NVIDIA device that is not hidden. Where
/// nothing does, nobody needs to be told that the CPU computes.
bool gpu_expected();
/// The module, or Error(Exit::device) in the words in which doctor tells the same fault.
const CudaModule& require_cuda_module();
/// A backend on the GPU of this rank of its machine. Throws as above.
std::unique_ptr<Backend> make_cuda_backend(int local_rank);

/// CUDA's number of the GPU for a rank, where `visible` GPUs are to be seen. All are (torchrun, Open MPI, --gpus): each
/// rank takes the one of its number. One is: whoever started the ranks gave each its own (Slurm's --gpus-per-task), or
/// they will be found on the same one when they meet. Throws Error(Exit::usage) for more ranks than GPUs.
int gpu_of_rank(int local_rank, int visible);

}  // namespace rn50
