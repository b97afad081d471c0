// The CUDA backend on the emulator: its own kernels from cuda/, and naive products where a GPU has cuDNN and cuBLASLt.
#pragma once

#include <memory>
#include <set>
#include <string>

#include "backend/backend.h"

namespace rn50::test {

std::unique_ptr<Backend> make_emulated_backend();

/// A streams::Stream, on which all of its work goes.
void* emulated_stream(Backend& backend);

/// The next graph cannot be instantiated, by this error of CUDA's.
void fail_next_instance(int cuda_error);
/// The next allocation of its device or pinned memory returns this error of CUDA's in place of memory.
void fail_next_allocation(int cuda_error);
/// What the runtime keeps of the last error for the next launch to return.
int last_cuda_error();

/// How the emulator takes the threads of a block from now on. Each call shuffles differently.
enum class EmulatorOrder { forward, backward, shuffled };
const char* name_of(EmulatorOrder order);
void set_emulator_order(EmulatorOrder order);

/// Blocks of device memory that all of them have taken so far, and bytes that they hold.
int64_t emulated_allocations();
int64_t emulated_bytes();
/// From now on the libraries hold so many bytes of the device's memory.
void set_emulated_library_bytes(int64_t bytes);
/// The kernels that have run on it: "join_kernel".
const std::set<std::string>& emulated_kernels();
/// Those instances of templates among cuda/'s kernels that are launched somewhere and have not run:
/// "rn50::cuda::{anonymous}::join_kernel<float, 1>".
std::set<std::string> instances_not_emulated();
/// How many are launched somewhere.
size_t instances_of_kernels();

}  // namespace rn50::test
