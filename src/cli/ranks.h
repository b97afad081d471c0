// What a command does because it runs in several ranks.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "cli/gpus.h"
#include "cli/options.h"
#include "comm/comm.h"
#include "pipeline/loader.h"
#include "pipeline/source.h"
#include "train/trainer.h"

namespace rn50 {

/// Who started the processes has said how many there are: so many ranks are what the options say from now on. Throws
/// Error(Exit::usage) when they say something else.
void take_place(Options& options, const Place& place);

/// The ranks that are to be started here, or that others have started with this one at `place`; `options` then say so
/// too. Throws Error as gpu_launch() does, and where ranks on CPUs lack Gloo.
GpuLaunch settle_ranks(Options& options, const std::optional<Place>& place);

/// Makes `comm`, sees that the ranks have the same options, and does `work`, by whose end the other ranks learn of this
/// one's. Returns what `work` does.
int run_as_rank(const Place& place, const Options& options, std::unique_ptr<Communicator>& comm,
                const std::function<int()>& work);

/// The options as far as they depend on how many ranks share this machine.
Options options_here(Options options, int64_t sharers);

/// The loader's part of every batch; `comm` null: all.
LoaderOptions of_this_rank(LoaderOptions loading, const Communicator* comm);

/// How the trainer's steps are shared with the ranks of `comm`; null: not at all.
void share_among_ranks(TrainerOptions& setup, const Options& options, Communicator* comm);

/// ", on 2 x NVIDIA GeForce RTX 4090"; nothing on CPUs. All ranks ask.
std::string gpus_of_ranks(Communicator& comm, const Backend& backend);
/// After a first collective, all ranks: says by which ways the ranks reach each other, where NCCL tells it.
void tell_ways(Communicator& comm);

/// The data, opened. Where shards have no index yet, the ranks of `comm` do not all read through the same ones: rank 0
/// comes first, then one rank of each host, for disks that are the host's own, then the others. `comm` null: alone.
DataSplits open_in_turn(const Options& options, Communicator* comm);

/// How many ranks, this one included, have the cores of this process between them. All ranks ask.
int64_t ranks_on_these_cores(Communicator& comm);

/// What must be the same on all ranks, a line each: before the device is opened, once it is, when the data are known,
/// and last what was chosen on the way.
std::string common_options(const Options& options);
std::string common_device(const Options& options, const DeviceInfo& device);
std::string common_data(const DataSplits& data);
/// Reads some of the pictures. Throws ReadError when that fails for longer than ReadPatience.
std::string common_contents(const DataSplits& data);
/// Throws Error(Exit::usage) on all ranks, naming the first line in which one differs from rank 0; `remedy` says what
/// to do. All ranks ask.
void require_same(Communicator& comm, const std::string& mine, const std::string& remedy);
/// The first difference between what ranks 0 and `rank` have, in words.
std::string difference(const std::string& of_rank_0, const std::string& of_other, int rank);

}  // namespace rn50
