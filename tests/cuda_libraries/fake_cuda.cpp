#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "fake.h"

namespace {

using rn50::fake::world;

std::mutex mutex;
std::map<void*, size_t> blocks;
thread_local cudaError_t last_error = cudaSuccess;

}  // namespace

extern "C" {

// --- CUDA's runtime ----------------------------------------------------------------------------------------------
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
    std::strncpy(properties->name, world.gpu.c_str(), sizeof properties->name - 1);
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    *value = attribute == cudaDevAttrComputeCapabilityMajor ? 8 : 9;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
    *version = world.driver;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
    *version = 13000;
    return cudaSuccess;
}
const char* cudaGetErrorName(cudaError_t) {
    return "cudaErrorMadeUp";
}
const char* cudaGetErrorString(cudaError_t) {
    return "something made up";
}
cudaError_t cudaGetLastError() {
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}
cudaError_t cudaMalloc(void** memory, size_t bytes) {
    if (const cudaError_t status = rn50::fake::refuse_in_capture("cudaMalloc")) return status;
    if (const cudaError_t status = rn50::fake::told("cudaMalloc")) return status;
    const std::lock_guard<std::mutex> lock(mutex);
    if (world.allocated + static_cast<int64_t>(bytes) > world.free_memory)
        return last_error = cudaErrorMemoryAllocation;
    *memory = std::malloc(bytes);
    blocks[*memory] = bytes;
    world.allocated += static_cast<int64_t>(bytes);
    world.most_allocated = std::max(world.most_allocated, world.allocated);
    ++world.allocations;
    return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
    if (memory == nullptr) return cudaSuccess;
    if (const cudaError_t status = rn50::fake::refuse_in_capture("cudaFree")) return status;
    rn50::fake::drain();
    const std::lock_guard<std::mutex> lock(mutex);
    world.allocated -= static_cast<int64_t>(blocks.at(memory));
    blocks.erase(memory);
    std::free(memory);
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
    rn50::fake::refuse_in_capture("cudaDeviceSynchronize");
    rn50::fake::drain();
    return cudaSuccess;
}
cudaError_t cudaMemset(void* memory, int value, size_t bytes) {
    std::memset(memory, value, bytes);
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
    rn50::fake::push(stream, [=] { std::memset(memory, value, bytes); });
    return cudaSuccess;
}
}
