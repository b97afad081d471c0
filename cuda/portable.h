// What every file of cuda/ starts from: CUDA's own headers, and launch(). Tests compile the same files with the host's
// compiler and RN50_SIMT defined; then an emulator stands in for the device (tests/simt.h).
#pragma once

#ifdef RN50_SIMT
#include "simt.h"
#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "check.h"

/// An array in shared memory: RN50_SHARED(float, name, count).
#define RN50_SHARED(type, name, count) __shared__ type name[count]
/// Here `bytes` are read or written at once, for which the emulator wants a multiple of them.
#define RN50_PACK_AT(address, bytes) static_cast<void>(0)

namespace rn50::cuda {

/// Runs `kernel` over grid x block threads on `stream`. Arguments are converted to the kernel's own parameter types.
template <auto kernel, class... Args>
void launch(dim3 grid, dim3 block, cudaStream_t stream, Args&&... args) {
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.stream = stream;
    check(cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...), "kernel launch");
}

}  // namespace rn50::cuda

#endif
