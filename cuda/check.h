// One way to look at what a library returned: its error becomes an rn50::Error with the library's words and a remedy.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>
#include <cudnn.h>

#include <string>

namespace rn50::cuda {

/// Throws Error(Exit::device) unless the call succeeded. `what` names the call or the op: "cudaMalloc", "layer1.0.conv1
/// forward".
void check(cudaError_t status, const std::string& what);
void check(cudnnStatus_t status, const std::string& what);
void check(cublasStatus_t status, const std::string& what);

/// Whether the current device can still be used. An error of a kernel ends its context for good, and nothing that lives
/// in it can be given back: what the libraries' own functions for that do then is not documented, and the error which
/// is on its way must be told all the same.
bool device_lives();

/// What to do about an error of the runtime, in words: also for those who only report it.
std::string remedy_for(cudaError_t status);

/// "12.2" from the runtime's and the driver's 12020.
std::string cuda_version_text(int version);
/// "8.9.7" from cuDNN's 8907, "9.13.0" from its 91300.
std::string cudnn_version_text(size_t version);
/// "12.2.5" from cuBLASLt's 120205.
std::string cublaslt_version_text(size_t version);

}  // namespace rn50::cuda
