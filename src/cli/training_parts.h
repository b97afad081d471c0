// What the parts of a training run are made with, from its options.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/options.h"
#include "pipeline/loader.h"
#include "train/fit.h"

namespace rn50 {

/// Batches in the ring of an evaluation.
constexpr int val_slots = 2;

/// Of `batch` pictures and their labels in host memory.
int64_t batch_bytes(const Options& options, int64_t batch);
LoaderOptions evaluation_loading(const Options& options);
LoaderOptions training_loading(const Options& options);

CheckpointInfo checkpoint_info(const Options& options, const NetDesc& net, const std::vector<std::string>& classes);
/// Warns of a warm-up that is longer than the run.
FitOptions fit_options(const Options& options, int64_t steps_per_epoch, const MemoryPlan& plan);

}  // namespace rn50
