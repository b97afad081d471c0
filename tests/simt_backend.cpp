#define RN50_SIMT
#include "simt_backend.h"

#include "cuda_backend.h"

namespace rn50::test {

std::unique_ptr<Backend> make_emulated_backend() {
    return std::make_unique<cuda::CudaBackend>(0);
}

const char* name_of(EmulatorOrder order) {
    static const char* const names[] = {"forward", "backward", "shuffled"};
    return names[static_cast<int>(order)];
}

void set_emulator_order(EmulatorOrder order) {
    static uint64_t seed = 0;
    simt::set_order(static_cast<simt::Order>(order), ++seed);
}

int64_t emulated_allocations() {
    return simt::allocations;
}

const std::set<std::string>& emulated_kernels() {
    return simt::kernels_run();
}

}  // namespace rn50::test
