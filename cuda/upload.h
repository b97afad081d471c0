// Batches on their way to the GPU while it computes, and what it has found on its way back.
#pragma once

#include <memory>

#include "backend/backend.h"
#include "portable.h"

namespace rn50::cuda {

/// Copies on a stream of its own beside `compute`, the backend's.
std::unique_ptr<Upload> make_upload(cudaStream_t compute);
/// Copies on `compute` itself: they are small, and what comes after may overwrite what they read.
std::unique_ptr<Download> make_download(cudaStream_t compute);

}  // namespace rn50::cuda
