#include "cli/ranks.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <sstream>

#include "base/error.h"
#include "base/log.h"
#include "base/machine.h"
#include "cli/picture_options.h"
#include "cli/training_setup.h"
#include "cli/version.h"
#include "report/table.h"

namespace rn50 {

void take_place(Options& options, const Place& place) {
    require_fit(options, place.local_size);
    if (options.is_set("ranks") && options.ranks != place.size && options.gpus == "1")
        throw Error(
            Exit::usage,
            cat("--ranks ", options.ranks, " does not fit the ", place.size, " ranks that ", place.source, " tells of"),
            "leave --ranks out: who starts the ranks decides");
    options.ranks = place.size;
    options.origins["ranks"] = Origin::command_line;
}

GpuLaunch settle_ranks(Options& options, const std::optional<Place>& place) {
    const GpuLaunch launch = place ? GpuLaunch{place->size, {}} : gpu_launch(options);
    options.ranks = launch.ranks;
    if (options.gpus != "1") options.device = "cuda";
    if (launch.ranks > 1 && options.device == "cpu") require_gloo();
    return launch;
}

int run_as_rank(const Place& place, const Options& options, std::unique_ptr<Communicator>& comm,
                const std::function<int()>& work) {
    const auto milliseconds = [](double s) { return std::chrono::milliseconds(std::llround(s * 1000)); };
    comm = std::make_unique<Communicator>(
        place, Patience{milliseconds(options.peer_timeout), milliseconds(options.hang_timeout)});
    try {
        const int code = work();
        comm->leave();
        return code;
    } catch (const std::exception& error) {
        comm->fail(error.what());
        throw;
    }
}

Options options_here(Options options, int64_t sharers) {
    const int64_t cores = std::max<int64_t>(1, cores_of_process().usable() / sharers);
    if (sharers > 1 && options.threads == 0) options.threads = cores;
    if (sharers > 1 && options.workers == 0) options.workers = cores;
    return options;
}

LoaderOptions of_this_rank(LoaderOptions loading, const Communicator* comm) {
    if (comm == nullptr) return loading;
    loading.rank = comm->rank();
    loading.ranks = comm->size();
    return loading;
}

void share_among_ranks(TrainerOptions& setup, const Options& options, Communicator* comm) {
    setup.comm = comm;
    setup.sync_norm = options.sync_bn;
    setup.bucket_bytes = options.bucket_mb << 20;
    setup.wire = activation_dtype(precision_from(options.wire));
}

std::string gpus_of_ranks(Communicator& comm, const Backend& backend) {
    if (backend.info().kind == "cpu") return "";
    std::map<std::string, int> counts;
    for (const std::string& name : comm.gather(backend.info().name))
        ++counts[name];
    std::string text;
    for (const auto& [name, count] : counts)
        text += cat(text.empty() ? ", on " : " and ", count, " x ", name);
    return text;
}

DataSplits open_in_turn(const Options& options, Communicator* comm) {
    const auto open = [&] { return open_data(options.data, data_options(options)); };
    if (comm == nullptr) return open();
    const std::vector<double> lacking = comm->gather(std::vector<double>{lacks_indices(options.data) ? 1.0 : 0.0});
    if (std::count(lacking.begin(), lacking.end(), 0.0) == comm->size()) return open();
    log::info("the other ranks wait for the indices of the shards");
    const int mine = comm->rank() == 0 ? 0 : comm->place().local_rank == 0 ? 1 : 2;
    DataSplits data;
    for (int turn = 0; turn < 3; ++turn) {
        if (turn == mine) data = open();
        comm->barrier();
    }
    return data;
}

std::string common_ground(const Options& options, const DataSplits& data) {
    std::string text = cat("rn50 ", version, "\n");
    std::istringstream lines(to_toml(options));
    for (std::string line; std::getline(lines, line);) {
        const std::string name = line.substr(0, line.find(' '));
        if (name != "data" && name != "threads" && name != "workers" && name != "#") text += line + "\n";
    }
    text += cat("pictures to train on = ", data.train->size(), "\npictures to judge on = ", data.val->size(),
                "\nfingerprint of those to train on = ", fingerprint_of(*data.train),
                "\nfingerprint of those to judge on = ", fingerprint_of(*data.val), "\nclasses = ", data.classes.size(),
                "\n");
    for (size_t i = 0; i < data.classes.size(); ++i)
        text += cat("class ", i, " = ", report::shown(data.classes[i]), "\n");
    return text;
}

void require_same(const std::vector<std::string>& of_ranks) {
    for (size_t rank = 1; rank < of_ranks.size(); ++rank) {
        if (of_ranks[rank] == of_ranks[0]) continue;
        std::istringstream first(of_ranks[0]), other(of_ranks[rank]);
        std::string here, there;
        while (std::getline(first, here) && std::getline(other, there) && here == there) {
        }
        throw Error(Exit::usage, cat("the ranks differ: rank 0 has ", here, ", rank ", rank, " has ", there),
                    "start all ranks with the same program, options and data");
    }
}

}  // namespace rn50
