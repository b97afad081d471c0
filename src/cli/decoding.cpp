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
constexpr double ample = 1.2;  ///< of what the net takes: reserve for the evaluation's pictures, and for other programs

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
        if (way == Decode::device) trial.device_bytes = device_.decoders->peak_bytes() / 4 * 5;
        workers_ = loader.workers();
        return trial;
    }
    /// For one that compares, and for one at all.
    bool enough() const { return source_.size() / loading_.ranks >= trial_batch * least_batches; }
    bool any() const { return source_.size() / loading_.ranks >= trial_batch; }
    int workers() const { return workers_; }

  private:
    const Source& source_;
    LoaderOptions loading_;
    const DeviceDecoding& device_;
    Memory& host_memory_;
    int workers_ = 0;
};

std::string rounded(double images_per_s) {
    return report::grouped(static_cast<int64_t>(images_per_s));
}

std::string rate_of(const Trial& trial) {
    return rounded(trial.images_per_s);
}

std::string workers_text(int workers) {
    return cat(workers, workers == 1 ? " worker" : " workers");
}

}  // namespace

double net_with_device(double decoded_by_device, double net, bool beside) {
    if (!(net > 0)) return decoded_by_device;
    return beside ? std::min(decoded_by_device, net) : 1 / (1 / decoded_by_device + 1 / net);
}

bool device_pays(double decoded_by_device, double decoded_by_cpu, double net, bool beside) {
    const double with_cpu = net > 0 ? std::min(decoded_by_cpu, net) : decoded_by_cpu;
    return net_with_device(decoded_by_device, net, beside) >= worth_it * with_cpu;
}

Decoding choose_decoding(const std::string& asked, const std::string& why_idle, DeviceDecoding device,
                         const Source& source, const LoaderOptions& loading, Memory& host_memory) {
    const bool insists = asked == "gpu";
    if (!insists && asked != "auto") return {asked, nullptr, 0, device.decoders != nullptr};
    if (!why_idle.empty()) {
        if (insists) log::warn_of_all(cat("--decode gpu has nothing to do: ", why_idle));
        return {"region", nullptr, 0, false};
    }
    if (!device.decoders) {
        if (insists) throw Error(Exit::device, cat("--decode gpu: ", device.why_not), "use --decode region");
        log::info(cat("decoding: by the CPU, for ", device.why_not));
        return {"region", nullptr, 0, false};
    }
    Trials trials(source, loading, device, host_memory);
    const std::string name = device.decoders->name();
    if (!insists && !trials.enough()) {
        log::info(cat("decoding: by the CPU, for too few pictures to compare it with ", name));
        return {"region", nullptr, 0, true};
    }
    if (!trials.any()) {
        log::info(cat("decoding: by ", name));
        return {"gpu", std::move(device.decoders), 0, false};
    }
    Trial by_cpu;
    double net = 0;
    if (!insists) {
        by_cpu = trials.run(Decode::region);
        if (device.net_images_per_s) net = device.net_images_per_s();
        if (net > 0 && by_cpu.images_per_s >= ample * net) {
            log::info(cat("decoding: the CPU makes ", rate_of(by_cpu), " images/s with ",
                          workers_text(trials.workers()), ", the net takes ", rounded(net), ": --decode region"));
            return {"region", nullptr, 0, true};
        }
    }
    const Trial by_device = trials.run(Decode::device);
    const double share = static_cast<double>(by_device.decoded.declined) /
                         static_cast<double>(std::max<int64_t>(1, by_device.decoded.all));
    const std::string left =
        share == 0 ? "" : cat(" (", report::fixed(100 * share, 0), "% of the crops are left to the CPU)");
    if (insists) {
        log::info(cat("decoding: by ", name, ", ", rate_of(by_device), " images/s", left));
        return {"gpu", std::move(device.decoders), by_device.device_bytes, false};
    }
    const bool beside = device.decoders->beside_other_work();
    const bool takes = device_pays(by_device.images_per_s, by_cpu.images_per_s, net, beside);
    log::info(cat("decoding: ", name, " makes ", rate_of(by_device), " images/s", left, ", the CPU ", rate_of(by_cpu),
                  " with ", workers_text(trials.workers()),
                  net > 0 ? cat(", the net takes ", rounded(net), ", with ", name, " on the same GPU ",
                                rounded(net_with_device(by_device.images_per_s, net, beside)))
                          : "",
                  ": --decode ", takes ? "gpu" : "region"));
    if (!takes) return {"region", nullptr, 0, false};
    return {"gpu", std::move(device.decoders), by_device.device_bytes, false};
}

Decoding resolve_decoding(Options& options, Backend& backend, Communicator* comm, const Source& source,
                          const LoaderOptions& loading, const std::function<double()>& net_images_per_s) {
    std::string why_idle;
    if (options.augment == "none" || options.augment == "flip") why_idle = "--augment " + options.augment;
    if (options.resize == "letterbox") why_idle = "--resize letterbox";
    if (options.cache_mb > 0) why_idle = "--cache-mb keeps whole pictures";
    DeviceDecoding device;
    if (why_idle.empty()) device.decoders = backend.picture_decoders(device.why_not);
    device.net_images_per_s = net_images_per_s;
    const bool on_cpu = backend.info().kind == "cpu";
    Decoding decoding = choose_decoding(on_cpu && options.decode == "auto" ? "region" : options.decode, why_idle,
                                        std::move(device), source, loading, backend.host_memory());
    if (comm != nullptr) {
        const std::vector<std::string> ways = comm->gather(decoding.way);
        if (std::count(ways.begin(), ways.end(), ways[0]) < static_cast<std::ptrdiff_t>(ways.size())) {
            log::info("decoding: the ranks found differently, so all take --decode region");
            decoding = {"region", nullptr, 0, false};
        }
    }
    options.decode = decoding.way;
    return decoding;
}

void tell_declined(const Loader& loader) {
    const Loader::Decoded decoded = loader.decoded();
    if (decoded.declined == 0) return;
    log::warn_once("declined", cat(report::grouped(decoded.declined), " of ", report::grouped(decoded.all),
                                   " crops were left to the CPU: nvJPEG takes whole JPEGs, in YCbCr or grey, while its memory lasts"));
}

}  // namespace rn50
