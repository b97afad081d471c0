#include "cli/decoding.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "base/log.h"
#include "base/math.h"
#include "report/table.h"

namespace rn50 {

namespace {

constexpr int64_t trial_batch = 8, trial_batches = 32, least_batches = 8;
constexpr double worth_it = 1.1;  ///< less is within what two measurements of the same differ by

struct Trial {
    double images_per_s = 0;
    Loader::Decoded decoded{};
    int64_t device_bytes = 0;
};

/// The training's loader without its net, over the first pictures of its first epoch.
class Trials {
  public:
    Trials(const Source& source, LoaderOptions loading, const DeviceDecoding& device, Memory& host_memory)
        : source_(source), loading_(std::move(loading)), device_(device), host_memory_(host_memory) {
        loading_.batch_size = trial_batch;
        loading_.slots = static_cast<int>(ceil_div(int64_t{2} * std::max(loading_.workers, 32), trial_batch));
        loading_.max_bad = 1;  // the training will say what is bad
        loading_.mix = {};
    }

    Trial run(Decode way) {
        loading_.pictures.decode = way;
        loading_.decoders = way == Decode::device ? device_.decoders.get() : nullptr;
        const int64_t free_before = device_.free_memory();
        Loader loader(source_, loading_, host_memory_);
        Trial trial;
        // Once to bring the files into memory and to grow what grows; then the better of two, for what else runs here.
        for (int pass = 0; pass < 3; ++pass) {
            const auto begin = std::chrono::steady_clock::now();
            loader.start_epoch(0);
            const int64_t batches = std::min(trial_batches, loader.batches_per_epoch());
            for (int64_t i = 0; i < batches; ++i)
                loader.next();
            const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
            const double rate = static_cast<double>(batches * trial_batch) / took.count();
            if (pass > 0) trial.images_per_s = std::max(trial.images_per_s, rate);
        }
        trial.decoded = loader.decoded();
        trial.device_bytes = std::max<int64_t>(0, free_before - device_.free_memory());
        workers_ = loader.workers();
        return trial;
    }
    bool enough() const { return source_.size() / loading_.ranks >= trial_batch * least_batches; }
    int workers() const { return workers_; }

  private:
    const Source& source_;
    LoaderOptions loading_;
    const DeviceDecoding& device_;
    Memory& host_memory_;
    int workers_ = 0;
};

std::string rate_of(const Trial& trial) {
    return report::grouped(static_cast<int64_t>(trial.images_per_s));
}

}  // namespace

Decoding choose_decoding(const std::string& asked, const std::string& why_idle, DeviceDecoding device,
                         const Source& source, const LoaderOptions& loading, Memory& host_memory) {
    const bool insists = asked == "gpu";
    if (!insists && asked != "auto") return {asked, nullptr, 0};
    if (!why_idle.empty()) {
        if (insists) log::warn_of_all(cat("--decode gpu has nothing to do: ", why_idle));
        return {"region", nullptr, 0};
    }
    if (!device.decoders) {
        if (insists) throw Error(Exit::device, cat("--decode gpu: ", device.why_not), "use --decode region");
        log::info(cat("decoding: by the CPU, for ", device.why_not));
        return {"region", nullptr, 0};
    }
    Trials trials(source, loading, device, host_memory);
    const std::string name = device.decoders->name();
    if (!trials.enough()) {
        log::info(
            cat("decoding: by ", insists ? name : cat("the CPU, for too few pictures to compare it with ", name)));
        return {insists ? "gpu" : "region", insists ? std::move(device.decoders) : nullptr, 0};
    }
    const Trial by_device = trials.run(Decode::device);
    const double share = static_cast<double>(by_device.decoded.declined) /
                         static_cast<double>(std::max<int64_t>(1, by_device.decoded.all));
    const std::string left =
        share == 0 ? "" : cat(" (", report::fixed(100 * share, 0), "% of the crops are left to the CPU)");
    if (insists) {
        log::info(cat("decoding: by ", name, ", ", rate_of(by_device), " images/s", left));
        return {"gpu", std::move(device.decoders), by_device.device_bytes};
    }
    const Trial by_cpu = trials.run(Decode::region);
    const bool takes = by_device.images_per_s >= worth_it * by_cpu.images_per_s;
    log::info(cat("decoding: ", name, " makes ", rate_of(by_device), " images/s", left, ", the CPU ", rate_of(by_cpu),
                  " with ", trials.workers(), trials.workers() == 1 ? " worker" : " workers", ": --decode ",
                  takes ? "gpu" : "region"));
    if (!takes) return {"region", nullptr, 0};
    return {"gpu", std::move(device.decoders), by_device.device_bytes};
}

Decoding resolve_decoding(Options& options, Backend& backend, Communicator* comm, const Source& source,
                          const LoaderOptions& loading) {
    std::string why_idle;
    if (options.augment == "none" || options.augment == "flip") why_idle = "--augment " + options.augment;
    if (options.resize == "letterbox") why_idle = "--resize letterbox";
    if (options.cache_mb > 0) why_idle = "--cache-mb keeps whole pictures";
    DeviceDecoding device;
    if (why_idle.empty()) device.decoders = backend.picture_decoders(device.why_not);
    device.free_memory = [&] { return backend.info().free_memory; };
    const bool on_cpu = backend.info().kind == "cpu";
    Decoding decoding = choose_decoding(on_cpu && options.decode == "auto" ? "region" : options.decode, why_idle,
                                        std::move(device), source, loading, backend.host_memory());
    if (comm != nullptr) {
        const std::vector<std::string> ways = comm->gather(decoding.way);
        if (std::count(ways.begin(), ways.end(), ways[0]) < static_cast<std::ptrdiff_t>(ways.size())) {
            log::info("decoding: the ranks found differently, so all take --decode region");
            decoding = {"region", nullptr, 0};
        }
    }
    options.decode = decoding.way;
    return decoding;
}

void tell_declined(const Loader& loader) {
    const Loader::Decoded decoded = loader.decoded();
    if (decoded.declined == 0) return;
    log::warn_once("declined", cat(report::grouped(decoded.declined), " of ", report::grouped(decoded.all),
                                   " crops were left to the CPU: nvJPEG takes whole JPEGs, in YCbCr or grey"));
}

}  // namespace rn50
