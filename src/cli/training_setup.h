// From options to a trainer: device, precision, recipe, and whether the memory suffices. Shared by train and bench.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "backend/backend.h"
#include "cli/options.h"
#include "train/trainer.h"

namespace rn50 {

/// The backend of --device and --threads, on a GPU for this rank of its machine; says in one line what it is.
std::unique_ptr<Backend> open_backend(const Options& options, int local_rank = 0);

/// --precision; auto: fp16 on a GPU that has it, else fp32; mixed: what multiplies in 16 bit on this device, fp16
/// before bf16 on a GPU, bf16 on a CPU, else fp32, which is said. Throws Error(Exit::device) when the device lacks what
/// is asked.
Precision resolve_precision(const std::string& name, const DeviceInfo& device);

TrainerOptions trainer_options(const Options& options, const DeviceInfo& device, int64_t classes);

/// What loading takes of the device's memory for each picture of a batch, in a ring of `slots` batches: nothing on a
/// GPU.
int64_t ring_bytes_a_picture(const DeviceInfo& device, int64_t image_size, int64_t channels, int slots);

/// The memory plan of `trainer`, of whose net `lean` is set by --memory (auto: only where the full plan does not fit,
/// which is said). `sharers` ranks have the memory between them. Throws Error(Exit::device) before anything is taken
/// when the plan and what loading takes of the same memory, `loading` bytes for a batch size, are more than this
/// process may use, naming the largest batch that fits.
MemoryPlan plan_that_fits(Backend& backend, TrainerOptions& trainer, const std::string& memory,
                          const std::function<int64_t(int64_t batch)>& loading, int64_t sharers = 1);

/// Lets the libraries of a device take what they need of its memory, by a rehearsal of `trainer`, and returns how much
/// that is by then, which it says with what stays free; nothing of the kind (a CPU): "" and no rehearsal. After this the
/// run takes no more. Throws Error(Exit::device) when there is no room for it.
NamedBytes settle_libraries(const Backend& backend, Trainer& trainer);

/// Images/s that one rank of `trainer` takes when it need not wait for pictures or other ranks: some steps on noise, in
/// memory that is taken for them and given back.
double net_images_per_s(Backend& backend, TrainerOptions trainer);

/// Bytes that a run may take now: of the device, or of this machine when the device is its processor; 0: not known.
int64_t usable_memory(const DeviceInfo& device);

/// The largest batch below `batch` that `fits` takes; 0: none. An Error from it means no.
int64_t largest_that_fits(int64_t batch, const std::function<bool(int64_t)>& fits);

/// Throws Error(Exit::device): the net's batch is too large for `reason`, `largest` would do.
[[noreturn]] void throw_too_large(const NetDesc& net, const std::string& reason, int64_t largest);

/// "3.2 GB"
std::string show_bytes(int64_t bytes);

}  // namespace rn50
