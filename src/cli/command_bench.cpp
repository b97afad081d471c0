// rn50 bench: how fast a step, an inference, the loader or single passes over memory are here.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "backend/profile.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "cli/bench_comm.h"
#include "cli/bench_kernels.h"
#include "cli/commands.h"
#include "cli/drawn_pictures.h"
#include "cli/inference.h"
#include "cli/launcher.h"
#include "cli/loading_advice.h"
#include "cli/picture_options.h"
#include "cli/ranks.h"
#include "cli/synthetic_batch.h"
#include "cli/training_setup.h"
#include "report/table.h"
#include "train/fit.h"

namespace rn50 {

namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t classes_of_imagenet = 1000;
constexpr int warm_up_calls = 2;
/// Steps until all are recorded, of the two places of a batch on the device.
constexpr int recording_calls = 6;
constexpr int64_t least_calls = 10, most_calls = 200;
constexpr size_t times_kept = 4096;  ///< of the last calls: a bench that runs for days is to measure memory too
constexpr double seconds_of_calls = 15;
/// What bench buckets tries as --bucket-mb; 0: all gradients at once, after the backward pass.
constexpr int64_t bucket_sizes_mb[] = {0, 1, 2, 4, 8, 16, 25, 50};

struct BenchResult {
    double images_per_s = 0;
    int64_t calls = 0;
    int64_t planned_bytes = 0;
    std::optional<int64_t> taken_bytes;  ///< where a MemoryMeter looked
    std::string device, precision;
};

/// The most memory that this process has held, in bytes.
int64_t peak_rss() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return int64_t{usage.ru_maxrss} * 1024;
}

/// Median seconds of one call, of the last few thousand: `max_steps` calls, or when that is 0 as many as take about a
/// quarter of a minute. Ranks make as many as rank 0 wants.
template <class Call>
double median_seconds(int64_t max_steps, int64_t& calls, const Call& call, Communicator* comm = nullptr) {
    std::vector<double> seconds;
    double sum = 0;
    int64_t done = 0;
    const auto enough = [&] {
        if (max_steps > 0) return done >= max_steps;
        return done >= most_calls || (done >= least_calls && sum >= seconds_of_calls);
    };
    const auto go_on = [&] {
        const bool stop = agreed_signal(comm) != 0, mine = !stop && !enough();
        return comm == nullptr ? mine : comm->gather(std::vector<double>{mine ? 1.0 : 0.0})[0] != 0;
    };
    while (go_on()) {
        const Clock::time_point start = Clock::now();
        if (!call()) break;
        const double took = std::chrono::duration<double>(Clock::now() - start).count();
        if (seconds.size() < times_kept)
            seconds.push_back(took);
        else
            seconds[static_cast<size_t>(done) % times_kept] = took;
        ++done;
        sum += took;
        log::progress(cat("call ", done, ", ", report::fixed(1000 * took, 1), " ms"));
    }
    log::progress_done();
    calls = done;
    if (seconds.empty()) throw Error(Exit::data, "nothing was measured", "let it run for longer");
    std::nth_element(seconds.begin(), seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2), seconds.end());
    return seconds[seconds.size() / 2];
}

void print_profile(const Profile& profile, int64_t calls) {
    std::vector<std::pair<std::string, Profile::Row>> rows(profile.rows().begin(), profile.rows().end());
    std::sort(rows.begin(), rows.end(),
              [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
    double sum = 0;
    for (const auto& [name, row] : rows)
        sum += row.seconds;
    report::Table table({"operation", ">calls", ">ms a step", ">share"});
    const auto add = [&](const std::string& name, double count, double seconds) {
        const double share = sum > 0 ? seconds / sum : 0;
        table.row({name, report::fixed(count / static_cast<double>(calls), 0),
                   report::fixed(1000 * seconds / static_cast<double>(calls), 2), report::fixed(100 * share, 1) + "%"});
    };
    double calls_of_all = 0;
    for (const auto& [name, row] : rows) {
        add(name, static_cast<double>(row.calls), row.seconds);
        calls_of_all += static_cast<double>(row.calls);
    }
    add("all", calls_of_all, sum);
    log::info("time by operation:");
    std::fputs(table.str().c_str(), stderr);
}

/// What was in use before a bench took its own: of this process on a CPU, of the whole device elsewhere.
class MemoryMeter {
  public:
    explicit MemoryMeter(const Backend& backend) : backend_(backend), idle_(used()) {}
    /// The most taken since, or on a GPU what is taken now: bytes.
    int64_t taken() const { return used() - idle_; }
    /// `taken` with what it is a measure of.
    std::string report(int64_t taken) const {
        return cat(
            on_cpu() ? "peak resident memory above idle: " : "device memory taken, the libraries' own included: ",
            show_bytes(taken));
    }

  private:
    bool on_cpu() const { return backend_.info().kind == "cpu"; }
    int64_t used() const { return on_cpu() ? peak_rss() : -backend_.info().free_memory; }

    const Backend& backend_;
    int64_t idle_;
};

/// Notes what was taken, and tells it beside the plan.
void note_memory(BenchResult& result, const MemoryMeter& memory, bool speaks) {
    result.taken_bytes = memory.taken();
    if (speaks) log::info(cat(memory.report(*result.taken_bytes), ", planned ", show_bytes(result.planned_bytes)));
}

void describe(const TrainerOptions& setup, const MemoryPlan& plan) {
    log::info(cat(setup.net.model, ", ", setup.net.image_size, " px, batch ", setup.net.batch, ", ",
                  name_of(setup.net.precision), setup.net.lean ? ", lean memory" : ""));
    std::string table = plan.table();
    if (!table.empty()) table.pop_back();
    log::info("memory plan:\n" + table);
}

/// Times calls of a net that is set up, after some to warm up.
template <class Call>
BenchResult measure(const Options& options, Backend& backend, Context& ctx, const NetDesc& net, int64_t planned_bytes,
                    const Call& call, Communicator* comm = nullptr) {
    for (int i = 0; i < warm_up_calls; ++i)
        call();
    Profile profile([&] { backend.synchronize(ctx); });
    const bool leads = comm == nullptr || comm->rank() == 0;
    if (options.verbose) ctx.profile = &profile;
    BenchResult result;
    const double seconds = median_seconds(options.max_steps, result.calls, call, comm);
    ctx.profile = nullptr;
    if (options.verbose && leads) print_profile(profile, result.calls);
    result.images_per_s = static_cast<double>(options.ranks * net.batch) / seconds;
    result.planned_bytes = planned_bytes;
    result.device = backend.info().name;
    result.precision = name_of(net.precision);
    return result;
}

/// `speaks`: describes what it measures.
BenchResult bench_step(const Options& options, Backend& backend, const std::optional<Place>& place, Communicator* comm,
                       bool speaks) {
    TrainerOptions setup = trainer_options(options, backend.info(), classes_of_imagenet);
    share_among_ranks(setup, options, comm);
    const MemoryPlan plan = plan_that_fits(
        backend, setup, options.memory,
        [bytes = ring_bytes_a_picture(backend.info(), options.image_size, options.channels, 1)](int64_t batch) {
            return batch * bytes;
        },
        place && backend.info().kind == "cpu" ? place->local_size : 1);
    if (speaks) describe(setup, plan);
    const SyntheticBatch data(backend.host_memory(), setup.net.batch, setup.net.image_size, setup.net.channels,
                              setup.net.classes);
    const MemoryMeter memory(backend);
    Arena arena(backend.memory(), plan.peak);
    Trainer trainer(backend, arena, setup);
    trainer.initialize();
    trainer.follow_rank_0();
    if (comm != nullptr) tell_ways(*comm);
    // As a run does it: the next batch is brought beside the step.
    const HostBatch batch{data.pictures.data, data.labels.data, nullptr, 1};
    trainer.stage(batch);
    int64_t step = 0;
    const auto one = [&] {
        trainer.step(step++, options.lr);
        trainer.stage(batch);
        trainer.result();
        return true;
    };
    for (int i = 0; setup.record && i < recording_calls; ++i)
        one();
    BenchResult result = measure(options, backend, trainer.context(), setup.net, plan.peak, one, comm);
    note_memory(result, memory, speaks);
    return result;
}

/// The speed of a step by the size of the gradients' buckets: {--bucket-mb, images/s}.
std::vector<std::pair<int64_t, double>> bench_buckets(Options options, Backend& backend,
                                                      const std::optional<Place>& place, Communicator& comm) {
    std::vector<std::pair<int64_t, double>> rows;
    for (const int64_t size : bucket_sizes_mb) {
        if (agreed_signal(&comm) != 0) break;
        options.bucket_mb = size;
        rows.emplace_back(size, bench_step(options, backend, place, &comm, rows.empty()).images_per_s);
    }
    return rows;
}

void print_buckets(const Options& options, const std::vector<std::pair<int64_t, double>>& rows) {
    if (options.json) {
        nlohmann::ordered_json list = nlohmann::ordered_json::array();
        for (const auto& [size, rate] : rows)
            list.push_back({{"bucket_mb", size}, {"images_per_s", rate}});
        std::puts(nlohmann::ordered_json{{"ranks", options.ranks}, {"buckets", list}}.dump().c_str());
        return;
    }
    report::Table table({">--bucket-mb", ">images/s", ">of the best"});
    double best = 0;
    for (const auto& [size, rate] : rows)
        best = std::max(best, rate);
    for (const auto& [size, rate] : rows)
        table.row(
            {std::to_string(size), report::fixed(rate, rate < 100 ? 2 : 1), report::fixed(100 * rate / best, 1) + "%"});
    std::printf("buckets: batch %lld at %lld px, each of %lld ranks, --wire %s\n%s",
                static_cast<long long>(options.batch_size), static_cast<long long>(options.image_size),
                static_cast<long long>(options.ranks), options.wire.c_str(), table.str().c_str());
}

BenchResult bench_infer(const Options& options) {
    const std::unique_ptr<Backend> backend = open_backend(options);
    NetDesc desc = trainer_options(options, backend->info(), classes_of_imagenet).net;
    desc.training = false;
    desc.eval_batch = desc.batch;
    const int64_t peak = Inference::plan(*backend, desc);
    const SyntheticBatch data(backend->host_memory(), desc.batch, desc.image_size, desc.channels, desc.classes);
    const MemoryMeter memory(*backend);
    Arena arena(backend->memory(), peak);
    Inference inference(*backend, arena, desc);
    inference.initialize(static_cast<uint64_t>(options.seed));
    inference.begin();
    std::vector<float> logits(static_cast<size_t>(desc.batch * desc.classes));
    const auto one = [&] {
        inference.run(data.pictures.data, desc.batch, logits.data());
        return true;
    };
    BenchResult result = measure(options, *backend, inference.context(), desc, peak, one);
    note_memory(result, memory, true);
    return result;
}

/// The pictures to train on; without DATA drawn ones, of which a crop has as many pixels as of photographs made ready
/// for that size.
std::unique_ptr<Source> source_of(const Options& options) {
    if (options.data.empty()) return make_drawn_source(2 * options.image_size);
    std::vector<std::string> warnings;
    std::unique_ptr<Source> source = open_training(options.data, data_options(options), warnings);
    for (const std::string& warning : warnings)
        log::warn(warning);
    return source;
}

/// The pictures of a data folder as training takes them, without a net behind.
BenchResult bench_loader(const Options& options) {
    const std::unique_ptr<Backend> backend = open_backend(options);
    const std::unique_ptr<Source> source = source_of(options);
    LoaderOptions loading;
    loading.batch_size = options.batch_size;
    loading.workers = static_cast<int>(options.workers);
    loading.slots = ring_slots(options.batch_size * options.image_size * options.image_size * options.channels);
    loading.seed = static_cast<uint64_t>(options.seed);
    loading.max_bad = options.max_bad;
    loading.shuffle = loading.drop_last = loading.replace_bad = true;
    loading.balanced = options.sampler == "balanced";
    loading.pictures = training_pictures(options);
    PictureCache cache(options.cache_mb * 1'000'000);
    if (options.cache_mb > 0) loading.cache = &cache;
    loading.mix = mixing(options);
    std::unique_ptr<PictureDecoders> decoders;
    if (options.decode == "gpu") {
        std::string why;
        decoders = backend->picture_decoders(why);
        if (!decoders) throw Error(Exit::device, cat("--decode gpu: ", why), "use --decode region");
        loading.decoders = decoders.get();
        log::info(cat("decoding: by ", decoders->name()));
    }
    Loader loader(*source, loading, backend->host_memory());
    log::info(cat(report::grouped(source->size()),
                  options.data.empty() ? cat(" drawn pictures of ", 2 * options.image_size, " px, ") : " pictures, ",
                  loader.workers(), loader.workers() == 1 ? " worker" : " workers"));
    int64_t epoch = 0, left = 0;
    const auto one = [&] {
        if (left == 0) {
            loader.start_epoch(epoch++);
            left = loader.batches_per_epoch();
        }
        --left;
        return loader.next() != nullptr;
    };
    for (int i = 0; i < warm_up_calls; ++i)
        one();
    BenchResult result;
    // The ring delivers in bursts, so single calls say little: all of them together do.
    const Clock::time_point start = Clock::now();
    median_seconds(options.max_steps, result.calls, one);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    result.images_per_s = static_cast<double>(options.batch_size * result.calls) / seconds;
    result.planned_bytes = loader.memory_bytes();
    tell_unused_bits(loader.seen(), options.bits, true);
    if (const Loader::Decoded decoded = loader.decoded(); decoded.declined > 0)
        log::warn(cat(decoded.declined, " of ", decoded.all, " crops were left to the CPU"));
    result.device = backend->info().name;
    result.precision = "u8";
    return result;
}

void print(const Options& options, const BenchResult& result) {
    const double memory_mb = static_cast<double>(result.planned_bytes) / 1e6;
    if (options.json) {
        nlohmann::ordered_json object{{"images_per_s", result.images_per_s}, {"memory_mb", memory_mb}};
        if (result.taken_bytes) object["memory_taken_mb"] = static_cast<double>(*result.taken_bytes) / 1e6;
        object["device"] = result.device;
        object["precision"] = result.precision;
        object["batch_size"] = options.batch_size;
        object["image_size"] = options.image_size;
        if (options.ranks > 1) object["ranks"] = options.ranks;
        std::puts(object.dump().c_str());
        return;
    }
    std::printf("%s: %s images/s (%s%lld calls), %s, batch %lld at %lld px, %s%s\n", options.bench.c_str(),
                report::fixed(result.images_per_s, result.images_per_s < 100 ? 2 : 1).c_str(),
                options.bench == "loader" ? "" : "median of ", static_cast<long long>(result.calls),
                show_bytes(result.planned_bytes).c_str(), static_cast<long long>(options.batch_size),
                static_cast<long long>(options.image_size), result.precision.c_str(),
                options.ranks > 1 ? cat(", each of ", options.ranks, " ranks").c_str() : "");
}

int exit_code() {
    const int signal = interrupt_requested();
    return signal != 0 ? exit_code_of_signal(signal) : static_cast<int>(Exit::ok);
}

/// The benches that several ranks run.
int bench_in_ranks(Options options) {
    const std::optional<Place> place = place_from(process_environment());
    if (place) take_place(options, *place);
    const GpuLaunch launch = settle_ranks(options, place);
    if (launch.ranks == 1 && options.bench != "step")
        throw Error(Exit::usage, cat("bench ", options.bench, " measures what several ranks do together"),
                    "add --ranks 2, or --gpus all");
    if (launch.ranks > 1 && !place) return launch_ranks(launch.ranks, launch.environment, options.peer_timeout);
    const bool leads = !place || place->rank == 0;
    catch_interrupts(leads);
    std::unique_ptr<Communicator> comm;
    const auto work = [&] {
        if (options.bench == "comm") {
            bench_comm(options, *place, *comm);
            return exit_code();
        }
        const Options here = options_here(options, comm ? ranks_on_these_cores(*comm) : 1);
        const std::unique_ptr<Backend> backend = open_backend(here, place ? place->local_rank : 0);
        if (comm) {
            comm->connect(engine_for(*backend));
            log::info(cat("ranks: ", comm->size(), " by ", comm->engine(), gpus_of_ranks(*comm, *backend)));
        }
        if (options.bench == "buckets") {
            const auto rows = bench_buckets(here, *backend, place, *comm);
            if (leads) print_buckets(options, rows);
        } else {
            const BenchResult result = bench_step(here, *backend, place, comm.get(), true);
            if (leads) print(options, result);
        }
        return exit_code();
    };
    return launch.ranks > 1 ? run_as_rank(*place, options, comm, work) : work();
}

}  // namespace

int run_bench(const Options& options) {
    for (const char* const kind : {"step", "comm", "buckets"})
        if (options.bench == kind) return bench_in_ranks(options);
    for (const char* const name : {"ranks", "gpus"})
        if (options.origin(name) == Origin::command_line)
            throw Error(Exit::usage, cat("bench ", options.bench, " runs in one process"),
                        cat("leave --", name, " to bench step, bench comm and bench buckets"));
    Options alone = options;
    alone.ranks = 1;  // whatever the run was whose file gave the options
    catch_interrupts();
    if (options.bench == "kernels")
        bench_kernels(alone);
    else
        print(alone, alone.bench == "infer" ? bench_infer(alone) : bench_loader(alone));
    return exit_code();
}

}  // namespace rn50
