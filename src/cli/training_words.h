// What a training run tells of its data and of its epochs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/loading_advice.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "comm/comm.h"
#include "pipeline/loader.h"
#include "pipeline/source.h"
#include "train/fit.h"

namespace rn50 {

/// Numbers of pictures, the classes, and what is odd about them.
void describe_data(const DataSplits& data);
/// Says how uneven the classes are and what is done about it; nothing where they are even and nothing is done.
void describe_balance(const Options& options, const std::vector<std::string>& classes,
                      const std::vector<int64_t>& counts, const std::vector<float>& weights);
/// The progress line, and a line an epoch. The arguments must outlive it.
FitObserver training_observer(Progress& progress, const Options& options, int64_t val_images);
/// For loading_advice(). What differs between the ranks is that of the one which waited longest; they all ask. `comm`
/// null: there is one.
LoadingFacts loading_facts(const EpochSummary& epoch, const Options& options, const Loader& loader, Communicator* comm,
                           int ranks_here);

}  // namespace rn50
