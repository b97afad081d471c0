// Recorded work as a CUDA graph.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "backend/backend.h"
#include "portable.h"

namespace rn50::cuda {

/// As Backend::record, of what `work` gives to `stream` and to streams that it joins to it by events.
std::unique_ptr<Recording> record_graph(cudaStream_t stream, const std::function<void()>& work, std::string& why);

}  // namespace rn50::cuda
