#include "cli/ranks.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <sstream>
#include <vector>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/machine.h"
#include "cli/picture_options.h"
#include "cli/training_setup.h"
#include "cli/version.h"
#include "pipeline/patience.h"
#include "report/table.h"

namespace rn50 {

namespace {

constexpr size_t longest_compared = 500'000;  // what the store takes in one piece is twice that
constexpr int64_t compared_pictures = 16;

/// Of the contents of so many pictures, size() at most, evenly spread over all. Names can be the same where pictures
/// are not: packed anew, or cut otherwise, on one of the machines.
uint32_t digest_of_some(const Source& source, int64_t count) {
    uint32_t digest = 0;
    std::vector<uint8_t> bytes;
    for (int64_t i = 0; i < count; ++i) {
        const int64_t picture = i * source.size() / count;
        with_patience({}, [&] {
            try {
                source.read(picture, bytes);
            } catch (const ReadError&) {
                throw;
            } catch (const Error&) {  // no picture: to be skipped, on all ranks alike
                bytes.clear();
            }
        });
        digest = crc32c(bytes.data(), bytes.size(), digest);
    }
    return digest;
}

}  // namespace

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
    if (options.device != "cpu") keep_nccl_log();
    comm = std::make_unique<Communicator>(
        place, Patience{milliseconds(options.peer_timeout), milliseconds(options.hang_timeout)});
    if (comm->rank() == 0 && place.token.empty() && !is_loopback(place.address))
        log::warn(cat("RN50_TOKEN is not set, so whoever reaches ", place.address, ":", comm->place().port,
                      " can take part in this run; set it to the same secret for all ranks"));
    try {
        require_same(*comm, common_options(options), "start all ranks with the same program and options");
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

void tell_ways(Communicator& comm) {
    const std::string ways = comm.ways();
    if (!ways.empty()) log::info(cat("NCCL goes by ", ways));
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

int64_t ranks_on_these_cores(Communicator& comm) {
    const std::string mine = core_set_of_process();
    const uint32_t key = crc32c(mine.data(), mine.size());
    // Sets that several ranks have, with their numbers.
    std::istringstream shared(comm.consult(std::to_string(key), [](const std::vector<std::string>& keys) {
        std::map<std::string, int> counts;
        for (const std::string& one : keys)
            ++counts[one];
        std::string text;
        for (const auto& [one, count] : counts)
            if (count > 1) text += cat(one, " ", count, "\n");
        return text;
    }));
    uint32_t of = 0;
    for (int64_t count = 1; shared >> of >> count;)
        if (of == key) return count;
    return 1;
}

std::string common_options(const Options& options) {
    std::string text = cat("rn50 ", version, "\n");
    std::istringstream lines(to_toml(options));
    for (std::string line; std::getline(lines, line);) {
        const std::string name = line.substr(0, line.find(' '));
        if (name != "data" && name != "threads" && name != "workers" && name != "#") text += line + "\n";
    }
    return text + cat("resume = ", options.resume.empty() ? "nothing" : options.resume, "\n");
}

std::string common_device(const Options& options, const DeviceInfo& device) {
    return cat("device = ", device.kind, "\nprecision = ", options.precision, "\n");
}

std::string common_data(const DataSplits& data) {
    std::string text = cat("classes = ", data.classes.size(), "\n");
    for (size_t i = 0; i < data.classes.size(); ++i)
        text += cat("class ", i, " = ", report::shown(data.classes[i]), "\n");
    const auto describe = [&](const std::string& name, const Source& source) {
        text += cat(name, " = ", source.size(), " pictures\n");
        text += cat(name, " = ", source.size(), " pictures with names and labels of digest ", std::hex,
                    fingerprint_of(source), "\n");
    };
    describe("train", *data.train);
    describe("val", *data.val);
    for (const auto& [name, source] : data.extra)
        describe(report::shown(name), *source);
    return text;
}

std::string common_contents(const DataSplits& data) {
    const auto describe = [](const std::string& name, const Source& source) {
        const int64_t some = std::min(compared_pictures, source.size());
        return cat(name, " = ", source.size(), " pictures, ", some, " of which have contents of digest ", std::hex,
                   digest_of_some(source, some), "\n");
    };
    return describe("train", *data.train) + describe("val", *data.val);
}

std::string difference(const std::string& of_rank_0, const std::string& of_other, int rank) {
    std::istringstream first(of_rank_0), other(of_other);
    std::string here, there;
    do {
        const bool more = static_cast<bool>(std::getline(first, here)), more_there = !!std::getline(other, there);
        if (!more && !more_there) return cat("rank 0 and rank ", rank, " differ");
        if (!more) here = "nothing like it";
        if (!more_there) there = "nothing like it";
    } while (here == there);
    return cat("rank 0 has ", here, ", rank ", rank, " has ", there);
}

void require_same(Communicator& comm, const std::string& mine, const std::string& remedy) {
    // First short ones for all, then in full for the two that differ: rank 0 need not hold the names of a thousand
    // classes for each of a thousand ranks.
    const std::string other =
        comm.consult(std::to_string(crc32c(mine.data(), mine.size())), [](const std::vector<std::string>& digests) {
            for (size_t rank = 1; rank < digests.size(); ++rank)
                if (digests[rank] != digests[0]) return std::to_string(rank);
            return std::string();
        });
    if (other.empty()) return;
    const int rank = std::stoi(other);
    const bool asked = comm.rank() == 0 || comm.rank() == rank;
    const std::string found =
        comm.consult(asked ? mine.substr(0, longest_compared) : "", [rank](const std::vector<std::string>& texts) {
            return difference(texts[0], texts[static_cast<size_t>(rank)], rank);
        });
    comm.part();
    throw Error(Exit::usage, cat("the ranks differ: ", found), remedy);
}

}  // namespace rn50
