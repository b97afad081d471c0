#define RN50_SIMT
#include "simt_backend.h"

#include "cuda_backend.h"

namespace rn50::test {

std::unique_ptr<Backend> make_emulated_backend() {
    return std::make_unique<cuda::CudaBackend>(0);
}

void* emulated_stream(Backend& backend) {
    return static_cast<cuda::CudaBackend&>(backend).stream();
}

void fail_next_instance(int cuda_error) {
    simt::next_instance = static_cast<cudaError_t>(cuda_error);
}

void fail_next_allocation(int cuda_error) {
    simt::next_allocation = static_cast<cudaError_t>(cuda_error);
}

int last_cuda_error() {
    return simt::last_error;
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

int64_t emulated_bytes() {
    return simt::device_bytes;
}

void set_emulated_library_bytes(int64_t bytes) {
    simt::library_bytes = bytes;
}

const std::set<std::string>& emulated_kernels() {
    return simt::kernels_run();
}

namespace {

/// Without those of the emulator's own tests.
std::set<std::string> instances_of_cuda() {
    std::set<std::string> instances;
    for (const std::string& instance : simt::instances_known())
        if (instance.find("rn50::cuda::") != std::string::npos) instances.insert(instance);
    return instances;
}

}  // namespace

std::set<std::string> instances_not_emulated() {
    std::set<std::string> instances = instances_of_cuda();
    for (const std::string& run : simt::instances_run())
        instances.erase(run);
    return instances;
}

size_t instances_of_kernels() {
    return instances_of_cuda().size();
}

}  // namespace rn50::test
