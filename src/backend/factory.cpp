#include "backend/backend.h"
#include "backend/cpu/cpu_backend.h"
#include "base/machine.h"

namespace rn50 {

std::vector<std::string> backends_built_in() {
    return {"cpu"};
}

std::unique_ptr<Backend> make_backend(const std::string& device, int threads) {
    if (device == "cuda")
        throw Error(Exit::device, "this build has no CUDA backend", "use --device cpu; `rn50 doctor` shows what is there");
    if (device != "cpu" && device != "auto")
        throw Error(Exit::usage, cat("unknown device '", device, "'"), "choose auto, cpu or cuda");
    return std::make_unique<cpu::CpuBackend>(threads > 0 ? threads : cores_of_process().usable());
}

}  // namespace rn50
