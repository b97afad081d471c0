// NCCL: the collectives of ranks on GPUs, one process a GPU.
#pragma once

#include <cuda_runtime.h>

#include <chrono>
#include <memory>
#include <string>

#include "comm/comm.h"

namespace rn50::cuda {

struct NcclLibrary;

/// NCCL's version: of the header that this module was built with, "" where it was built without; of the library that
/// is found now, "" where none is.
std::string nccl_built();
std::string nccl_loaded();
/// Throws Error(Exit::device) with what to install where one of both is missing.
void require_nccl();

/// The ranks' engine on the current device, whose backend works on `stream`; every rank calls it at the same time.
/// Throws Error(Exit::device) where NCCL is missing or fails here, or when two ranks have the same GPU, and
/// Error(Exit::peer_lost) when the ranks do not come together within `patience`.
std::unique_ptr<Collectives> make_nccl(cudaStream_t stream, StoreClient& store, const Place& place,
                                       std::chrono::milliseconds patience);
/// The same by a library that is loaded.
std::unique_ptr<Collectives> make_nccl(const NcclLibrary& nccl, cudaStream_t stream, StoreClient& store,
                                       const Place& place, std::chrono::milliseconds patience);

}  // namespace rn50::cuda
