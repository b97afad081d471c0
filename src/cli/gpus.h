// --gpus: on which GPUs of this machine a run trains, one process each.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/options.h"

namespace rn50 {

/// --gpus as it was written: N, "all", or CUDA's numbers of two and more ("0,2").
struct GpuChoice {
    bool all = false;
    int64_t count = 1;          ///< of N and of a list
    std::vector<int64_t> list;  ///< empty: the first ones
};

/// Throws std::invalid_argument with the reason ("must be ...").
GpuChoice gpus_from(const std::string& text);

/// CUDA_VISIBLE_DEVICES for the chosen ones of those that it shows `now` ("" shows all). Throws Error(Exit::usage) when
/// it does not show one of them.
std::string visible_gpus(const std::string& now, const std::vector<int64_t>& list);

/// The ranks that --gpus asks for on this machine, and what their environment has beside their places.
struct GpuLaunch {
    int64_t ranks = 1;
    std::vector<std::string> environment;  ///< "CUDA_VISIBLE_DEVICES=0,2"
};

/// Throws Error(Exit::usage) for what does not fit --device or --ranks, Error(Exit::device) when there are fewer GPUs,
/// or several cannot train together (no NCCL).
GpuLaunch gpu_launch(const Options& options);

/// What to type so that the machine's other GPUs train too, for a run that has one of them because nothing was said;
/// "" when there are none.
std::string other_gpus(const Options& options);

/// Whether a process that others have started as one of `local_ranks` on this machine (1: not known) fits --gpus;
/// throws Error(Exit::usage).
void require_fit(const Options& options, int64_t local_ranks);

}  // namespace rn50
