#include "cli/training_setup.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "base/machine.h"
#include "cli/synthetic_batch.h"
#include "report/table.h"

namespace rn50 {

namespace {

bool fits(const MemoryPlan& plan, int64_t ring, int64_t usable) {
    return usable == 0 || plan.peak + ring <= usable;  // 0: the system does not tell
}

}  // namespace

int64_t usable_memory(const DeviceInfo& device) {
    if (device.kind == "cpu") return memory_of_process().usable();
    // CUDA loads kernels, its own and the libraries', when they first run. An estimate: no GPU has measured it yet.
    constexpr int64_t for_code = int64_t{256} << 20;
    return std::max<int64_t>(device.free_memory - for_code, 1);
}

int64_t largest_that_fits(int64_t batch, const std::function<bool(int64_t)>& fits) {
    const auto tried = [&](int64_t candidate) {
        try {
            return fits(candidate);
        } catch (const Error&) {
            return false;  // beyond what the device's library can do, or too few for batch norm
        }
    };
    int64_t good = 0, bad = batch;
    for (int64_t candidate = 1; candidate < bad; candidate *= 2) {  // from below: small plans are quick
        if (tried(candidate)) {
            good = candidate;
        } else if (candidate > 1) {
            bad = candidate;
        }
    }
    while (bad - good > 1) {
        const int64_t middle = good + (bad - good) / 2;
        (tried(middle) ? good : bad) = middle;
    }
    return good;
}

void throw_too_large(const NetDesc& net, const std::string& reason, int64_t largest) {
    throw Error(Exit::device, cat("batch ", net.batch, " at ", net.image_size, " px ", reason),
                largest > 0 ? cat("the largest batch that fits is --batch-size ", largest)
                            : "not even one picture fits: choose a smaller --image-size or --model");
}

std::string show_bytes(int64_t bytes) {
    const double mb = static_cast<double>(bytes) / 1e6;
    return mb < 1000 ? report::fixed(mb, mb < 10 ? 1 : 0) + " MB"
                     : report::fixed(mb / 1000, mb < 10000 ? 2 : 1) + " GB";
}

std::unique_ptr<Backend> open_backend(const Options& options, int local_rank) {
    std::unique_ptr<Backend> backend = make_backend(options.device, static_cast<int>(options.threads), local_rank);
    const DeviceInfo device = backend->info();
    const int64_t usable = usable_memory(device);
    log::info(cat("device: ", device.name, ", ", device.library,
                  device.threads > 0 ? cat(", ", device.threads, device.threads == 1 ? " thread" : " threads") : "",
                  usable > 0 ? cat(", ", show_bytes(usable), " free") : ""));
    return backend;
}

Precision resolve_precision(const std::string& name, const DeviceInfo& device) {
    const bool gpu_fp16 = device.kind != "cpu" && device.fp16;
    if (name == "auto") return gpu_fp16 ? Precision::fp16 : Precision::fp32;
    if (name == "mixed") {
        if (gpu_fp16 || device.bf16) return gpu_fp16 ? Precision::fp16 : Precision::bf16;
        log::info(cat("precision: fp32, because ", device.name, " multiplies neither fp16 nor bf16"));
        return Precision::fp32;
    }
    const Precision precision = precision_from(name);
    const bool has = precision == Precision::fp32 || (precision == Precision::tf32 && device.tf32) ||
                     (precision == Precision::fp16 && device.fp16) || (precision == Precision::bf16 && device.bf16);
    if (!has) {
        std::string others = "fp32";
        if (device.tf32) others += ", tf32";
        if (device.fp16) others += ", fp16";
        if (device.bf16) others += ", bf16";
        throw Error(Exit::device, cat(device.name, " does not compute in ", name), cat("it has --precision ", others));
    }
    return precision;
}

TrainerOptions trainer_options(const Options& options, const DeviceInfo& device, int64_t classes) {
    TrainerOptions trainer;
    trainer.net.model = options.model;
    trainer.net.classes = classes;
    trainer.net.image_size = options.image_size;
    trainer.net.channels = options.channels;
    if (options.channels == 1) {
        trainer.net.mean[0] = gray_mean;
        trainer.net.std[0] = gray_std;
    }
    trainer.net.batch = options.batch_size;
    trainer.net.accumulate = options.accumulate;
    trainer.net.precision = resolve_precision(options.precision, device);
    trainer.net.dropout = static_cast<float>(options.dropout);
    trainer.net.zero_init_residual = options.zero_init_residual == "yes";
    trainer.net.lean = options.memory == "lean";
    trainer.optimizer.kind = options.optimizer == "sgd" ? OptimizerDesc::Kind::sgd : OptimizerDesc::Kind::adamw;
    trainer.optimizer.momentum = static_cast<float>(options.momentum);
    trainer.optimizer.weight_decay = static_cast<float>(options.weight_decay);
    trainer.label_smoothing = static_cast<float>(options.label_smoothing);
    trainer.mixed = options.mixup > 0 || options.cutmix > 0;
    trainer.clip_norm = static_cast<float>(options.clip_norm);
    trainer.loss_scale = static_cast<float>(options.loss_scale);
    trainer.seed = static_cast<uint64_t>(options.seed);
    trainer.record = options.cuda_graph == "yes";
    return trainer;
}

int64_t ring_bytes_a_picture(const DeviceInfo& device, int64_t image_size, int64_t channels, int slots) {
    if (device.kind != "cpu") return 0;
    return slots * (image_size * image_size * channels + 2 * int64_t{sizeof(int32_t)});
}

MemoryPlan plan_that_fits(Backend& backend, TrainerOptions& trainer, const std::string& memory,
                          const std::function<int64_t(int64_t batch)>& loading, int64_t sharers) {
    // Looked at after each plan: making it loads code onto a GPU, of the library and to time its convolutions, which
    // stays.
    const auto usable_now = [&] { return usable_memory(backend.info()) / sharers; };
    int64_t usable = 0;
    const int64_t ring = loading(trainer.net.batch);
    std::optional<MemoryPlan> plan;
    std::string reason;
    const auto try_plan = [&](bool lean) {
        trainer.net.lean = lean;
        try {
            plan = plan_memory(backend, trainer);
        } catch (const Error& error) {
            if (error.code() != Exit::device) throw;
            plan.reset();
            reason = error.what();
        }
        usable = usable_now();
        return plan && fits(*plan, ring, usable);
    };
    if (try_plan(memory == "lean")) return *plan;
    if (memory == "auto" && try_plan(true)) {
        log::info("memory: lean, because the full plan is more than there is free");
        return *plan;
    }
    const int64_t largest = largest_that_fits(trainer.net.batch, [&](int64_t batch) {
        TrainerOptions smaller = trainer;
        smaller.net.batch = smaller.net.eval_batch = batch;
        const MemoryPlan small = plan_memory(backend, smaller);
        usable = usable_now();
        return fits(small, loading(batch), usable);
    });
    throw_too_large(
        trainer.net,
        plan ? cat("needs ", show_bytes(plan->peak + ring), ", and ", show_bytes(usable), " of memory are free")
             : cat("is beyond this device: ", reason),
        largest);
}

double net_images_per_s(Backend& backend, TrainerOptions trainer) {
    constexpr int64_t to_warm_up = 3, measured = 8;
    trainer.comm = nullptr;
    trainer.sync_norm = trainer.mixed = trainer.record = false;
    trainer.net.accumulate = 1;
    const NetDesc& net = trainer.net;
    Arena arena(backend.memory(), plan_memory(backend, trainer).peak);
    Trainer trial(backend, arena, trainer);
    trial.initialize();
    const SyntheticBatch data(backend.host_memory(), net.batch, net.image_size, net.channels, net.classes);
    auto start = std::chrono::steady_clock::now();
    for (int64_t step = 0; step < to_warm_up + measured; ++step) {
        if (step == to_warm_up) start = std::chrono::steady_clock::now();
        trial.step(data.pictures.data, data.labels.data, step, 0);
        trial.result();
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    return static_cast<double>(measured * net.batch) / took.count();
}

}  // namespace rn50
