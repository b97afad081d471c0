// The one place that knows which backends this build and this machine have.
#include "backend/cuda_module.h"
#include "base/log.h"
#include "base/machine.h"

#ifndef RN50_GPU_ONLY
#include "backend/cpu/cpu_backend.h"
#endif

namespace rn50 {

namespace {

#ifdef RN50_GPU_ONLY
constexpr bool has_cpu = false;
std::unique_ptr<Backend> make_cpu_backend(int) {
    throw Error(Exit::device, "this build has no CPU backend: it was made for GPUs alone",
                "use --device cuda, or build again without GPU_ONLY=1");
}
#else
constexpr bool has_cpu = true;
std::unique_ptr<Backend> make_cpu_backend(int threads) {
    return std::make_unique<cpu::CpuBackend>(threads > 0 ? threads : cores_of_process().usable());
}
#endif

}  // namespace

std::vector<std::string> backends_built_in() {
    std::vector<std::string> names;
    if (!cuda_module_path().empty()) names.push_back("cuda");
    if (has_cpu) names.push_back("cpu");
    return names;
}

std::unique_ptr<Backend> make_backend(const std::string& device, int threads, int local_rank) {
    if (device == "cpu") return make_cpu_backend(threads);
    if (device == "cuda") return make_cuda_backend(local_rank);
    if (device != "auto") throw Error(Exit::usage, cat("unknown device '", device, "'"), "choose auto, cpu or cuda");
    try {
        return make_cuda_backend(local_rank);
    } catch (const Error& error) {
        if (!has_cpu || error.code() != Exit::device) throw;
        if (gpu_expected())
            log::warn_once("no GPU", cat("the CPU computes: ", error.what(),
                                         error.remedy().empty() ? "" : cat(" (", error.remedy(), ")")));
    }
    return make_cpu_backend(threads);
}

}  // namespace rn50
