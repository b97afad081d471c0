#include "cli/bench_kernels.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/math.h"
#include "cli/training_setup.h"
#include "report/table.h"

namespace rn50 {

namespace {

using Clock = std::chrono::steady_clock;

// Calls of one window are waited for together, so that what a launch costs the host does not count.
constexpr double window_seconds = 0.005;
constexpr int64_t most_calls = 100;
constexpr int64_t default_windows = 15;

constexpr int64_t classes = 1000, features = 2048, parameters = 25'557'032;  // of ResNet-50

struct Measured {
    std::string group, name;
    int64_t bytes = 0;
    double seconds = 0, copy_rate = 0;  ///< of one call; bytes a second of the group's copy

    double rate() const { return static_cast<double>(bytes) / seconds; }
};

/// Every pass at every size; with a counting arena each is only planned.
class KernelBench {
  public:
    KernelBench(Backend& backend, Arena& arena, const NetDesc& net, int64_t windows)
        : backend_(backend),
          ctx_{arena, arena.counting(), nullptr},
          batch_(net.batch),
          size_(net.image_size),
          channels_(net.channels),
          act_(activation_dtype(net.precision)),
          windows_(windows > 0 ? windows : default_windows) {}

    std::vector<Measured> run(bool adamw) {
        const int64_t half = ceil_div(size_, 2), quarter = ceil_div(half, 2);
        stage("stage 1", {batch_, quarter, quarter, 256});
        const double copy_rate = copy_rate_;
        stage("stage 1, narrow", {batch_, quarter, quarter, 64});
        const int64_t last = ceil_div(ceil_div(ceil_div(quarter, 2), 2), 2);
        stage("stage 4", {batch_, last, last, features});
        copy_rate_ = copy_rate;  // what has no copy of its own size is measured beside the large one
        pictures();
        max_pool({batch_, half, half, 64});
        avg_pool({batch_, last, last, features});
        classifier();
        optimizer(adamw);
        return std::move(measured_);
    }

  private:
    /// A tensor of small positive numbers, whatever its dtype, for as long as the arena.
    Tensor filled(DType dtype, const Shape& shape) {
        const Tensor tensor = ctx_.arena.alloc(Use::activations, dtype, shape);
        if (!ctx_.dry) backend_.memory().fill(tensor.data, 0x3C, tensor.bytes());
        held_.push_back(tensor);
        return tensor;
    }
    void release_all() {
        for (Tensor& tensor : held_)
            ctx_.arena.release(tensor);
        held_.clear();
    }
    Tensor vector(int64_t n) { return filled(DType::f32, {n}); }
    Norm norm(int64_t channels) { return {vector(channels), vector(channels), vector(channels), vector(channels)}; }
    NormSums sums_of(const Activation& of) {
        return {of.raw, of.norm.mean, of.norm.inv_std, filled(DType::f32, {2, of.raw.shape[3]})};
    }

    /// Median seconds of one call of `pass`.
    double seconds_of(const std::function<void(Context&)>& pass) {
        const auto window = [&](int64_t calls) {
            const Clock::time_point start = Clock::now();
            for (int64_t i = 0; i < calls; ++i)
                pass(ctx_);
            backend_.synchronize(ctx_);
            return std::chrono::duration<double>(Clock::now() - start).count() / static_cast<double>(calls);
        };
        window(1);
        const auto calls = static_cast<int64_t>(std::ceil(window_seconds / std::max(window(2), 1e-9)));
        std::vector<double> seconds;
        while (static_cast<int64_t>(seconds.size()) < windows_ && interrupt_requested() == 0)
            seconds.push_back(window(std::min(calls, most_calls)));
        if (seconds.empty()) throw Error(Exit::data, "nothing was measured", "let it run for longer");
        std::sort(seconds.begin(), seconds.end());
        return seconds[seconds.size() / 2];
    }

    void measure(const std::string& group, const std::string& name, int64_t bytes,
                 const std::function<void(Context&)>& pass) {
        if (ctx_.dry) return pass(ctx_);
        log::progress(cat(group, "  ", name));
        measured_.push_back({group, name, bytes, seconds_of(pass), 0});
        if (name == "copy") copy_rate_ = measured_.back().rate();
        measured_.back().copy_rate = copy_rate_;
    }

    void measure_passes(const std::string& group, const PassTensors& tensors, const std::string& suffix) {
        for (const Pass& pass : backend_.passes(tensors))
            measure(group, pass.name + suffix, pass.bytes, pass.run);
    }

    /// What happens between two convolutions and at the end of a block.
    void stage(const std::string& name, const Shape& shape) {
        const std::string group = cat(name, ": ", shape.str());
        const int64_t channels = shape[3], count = shape.count() / channels;
        const Tensor a = filled(act_, shape), b = filled(act_, shape), c = filled(act_, shape), d = filled(act_, shape),
                     e = filled(act_, shape);
        const Activation src{a, norm(channels), true}, other{b, norm(channels), false};
        const Tensor stats = filled(DType::f32, {2, channels}), gamma = vector(channels), beta = vector(channels);
        const NormGradient gradient{vector(channels), vector(channels), vector(channels), src.norm.mean};

        PassTensors tensors{src, b, stats, {c, a, gradient}, b, c, {d, Write::overwrite, src, {sums_of(src), {}}}};
        measure_passes(group, tensors, "");
        tensors = {};
        tensors.g = c;
        tensors.diff_src = {d, Write::add, {e, {}, true}, {sums_of(src), sums_of(other)}};
        measure_passes(group, tensors, " (join)");
        const Activation plain{a, src.norm, false};
        measure(group, "join", 3 * a.bytes(), [&](Context& ctx) { backend_.join(ctx, plain, other, e); });
        measure(group, "zero", d.bytes(), [&](Context& ctx) { backend_.zero(ctx, d); });
        measure(group, "norm from batch", 9 * gamma.bytes(),
                [&](Context& ctx) { backend_.norm_from_batch(ctx, stats, count, gamma, beta, 1e-5f, other.norm, {}); });
        const NormSums sums = sums_of(src);
        const Tensor diff_gamma = vector(channels), diff_beta = vector(channels);
        measure(group, "norm backward", 9 * gamma.bytes(), [&](Context& ctx) {
            backend_.norm_backward(ctx, sums.sums, count, src.norm, gamma, gradient, diff_gamma, diff_beta,
                                   Write::overwrite);
        });
        release_all();
    }

    /// The way of the pictures: to the device, and into what the first convolution reads.
    void pictures() {
        const Shape shape{batch_, size_, size_, channels_};
        const Tensor raw = filled(DType::u8, shape);
        const int64_t channels = act_ == DType::f32 ? 4 : 8;  // of the first convolution's source on Tensor Cores
        PassTensors tensors;
        tensors.src = {raw, norm(3), false};
        tensors.dst = filled(act_, {batch_, size_, size_, channels});
        const std::string group = cat("pictures: ", shape.str());
        measure_passes(group, tensors, "");
        Memory& pinned = backend_.host_memory();
        void* const host = ctx_.dry ? nullptr : pinned.allocate(raw.bytes());
        if (host != nullptr) pinned.fill(host, 0x3C, raw.bytes());
        measure(group, "copy to the device", raw.bytes(), [&](Context& ctx) { backend_.copy_in(ctx, host, raw); });
        if (host != nullptr) pinned.release(host, raw.bytes());
        release_all();
    }

    void max_pool(const Shape& shape) {
        const std::string group = cat("pools: ", shape.str());
        const Activation src{filled(act_, shape), norm(shape[3]), true};
        const Tensor dst = filled(act_, {shape[0], ceil_div(shape[1], 2), ceil_div(shape[2], 2), shape[3]});
        const DiffSrc target{filled(act_, shape), Write::overwrite, src, {sums_of(src), {}}};
        measure(group, "max pool", src.raw.bytes() + dst.bytes(),
                [&](Context& ctx) { backend_.max_pool(ctx, src, dst); });
        // Both twins look for the maxima again, then read src once more for its ReLU and norm. On a GPU the places of
        // the maxima go through memory in between, a byte each.
        const int64_t places = backend_.info().kind == "cpu" ? 0 : 2 * dst.count();
        measure(group, "max pool backward", 3 * src.raw.bytes() + dst.bytes() + places,
                [&](Context& ctx) { backend_.max_pool_backward(ctx, src, dst, target); });
        release_all();
    }

    void avg_pool(const Shape& shape) {
        const std::string group = cat("pools: ", shape.str());
        const Tensor src = filled(act_, shape), dst = filled(act_, {shape[0], shape[3]});
        const Activation a{filled(act_, shape), norm(shape[3]), false}, b{filled(act_, shape), norm(shape[3]), false};
        const DiffSrc target{filled(act_, shape), Write::overwrite, {src, {}, true}, {sums_of(a), sums_of(b)}};
        measure(group, "avg pool", src.bytes() + dst.bytes(), [&](Context& ctx) { backend_.avg_pool(ctx, src, dst); });
        measure(group, "avg pool backward", 4 * src.bytes() + dst.bytes(),
                [&](Context& ctx) { backend_.avg_pool_backward(ctx, dst, target); });
        release_all();
    }

    Tensor step_state() {
        const Tensor state = filled(DType::u8, {int64_t{sizeof(StepState)}});
        StepState values;
        values.t = 1;
        backend_.copy_in(ctx_, &values, state);
        backend_.synchronize(ctx_);
        return state;
    }

    void classifier() {
        const std::string group = cat("classifier: ", batch_, " pictures");
        const Tensor src = filled(act_, {batch_, features}), dst = filled(act_, {batch_, features});
        const Tensor step = filled(DType::i32, {1});
        measure(group, "dropout", 2 * src.bytes(), [&](Context& ctx) {
            backend_.dropout(ctx, src, dst, 0.3f, {0, step, 0});
        });
        const Tensor logits = filled(DType::f32, {batch_, classes}), diff = filled(DType::f32, {batch_, classes});
        const Tensor labels = filled(DType::i32, {batch_}), loss = vector(batch_), state = step_state();
        backend_.zero(ctx_, labels);
        measure(group, "softmax cross-entropy", 2 * logits.bytes() + labels.bytes() + loss.bytes(),
                [&](Context& ctx) { backend_.softmax_cross_entropy(ctx, logits, labels, 0, state, loss, diff); });
        release_all();
    }

    void optimizer(bool adamw) {
        const std::string group = cat("optimizer: ", report::grouped(parameters), " parameters");
        const Tensor p = vector(parameters), g = vector(parameters), m = vector(parameters), state = step_state();
        const Tensor v = adamw ? vector(parameters) : Tensor{};
        OptimizerDesc desc;
        desc.kind = adamw ? OptimizerDesc::Kind::adamw : OptimizerDesc::Kind::sgd;
        desc.weight_decay = 1e-5f;
        desc.ranges = {{0, parameters, true}};
        measure(group, "check gradients", g.bytes(),
                [&](Context& ctx) { backend_.check_gradients(ctx, g, 0, ScalePolicy(), state); });
        measure(group, adamw ? "AdamW" : "SGD", (adamw ? 7 : 5) * p.bytes(),
                [&](Context& ctx) { backend_.optimize(ctx, desc, p, g, m, v, state); });
        const Tensor observed = vector(53120), running = vector(53120);  // of all norms
        measure(group, "update running statistics", 3 * running.bytes(),
                [&](Context& ctx) { backend_.norm_update_running(ctx, observed, running, 0.1f, state); });
        release_all();
    }

    Backend& backend_;
    Context ctx_;
    const int64_t batch_, size_, channels_;
    const DType act_;
    const int64_t windows_;
    std::vector<Tensor> held_;
    std::vector<Measured> measured_;
    double copy_rate_ = 0;
};

void print_table(const std::vector<Measured>& all) {
    std::string group;
    std::unique_ptr<report::Table> table;
    const auto flush = [&] {
        if (table) std::printf("%s\n%s", group.c_str(), table->str().c_str());
    };
    for (const Measured& one : all) {
        if (one.group != group) {
            flush();
            group = one.group;
            table = std::make_unique<report::Table>(
                std::vector<std::string>{"pass", ">MB", ">microseconds", ">GB/s", ">of the copy"});
        }
        table->row({one.name, report::fixed(static_cast<double>(one.bytes) / 1e6, 2),
                    report::fixed(1e6 * one.seconds, 1), report::fixed(one.rate() / 1e9, 1),
                    report::fixed(100 * one.rate() / one.copy_rate, 0) + "%"});
    }
    flush();
}

void print_json(const Options& options, const std::string& device, const std::string& precision,
                const std::vector<Measured>& all) {
    using Json = nlohmann::ordered_json;
    Json rows = Json::array();
    for (const Measured& one : all)
        rows.push_back({{"group", one.group},
                        {"name", one.name},
                        {"bytes", one.bytes},
                        {"us", 1e6 * one.seconds},
                        {"gb_s", one.rate() / 1e9},
                        {"of_copy", one.rate() / one.copy_rate}});
    const Json object{{"device", device},
                      {"precision", precision},
                      {"batch_size", options.batch_size},
                      {"image_size", options.image_size},
                      {"copy_gb_s", all.front().copy_rate / 1e9},
                      {"kernels", rows}};
    std::puts(object.dump().c_str());
}

}  // namespace

void bench_kernels(const Options& options) {
    const std::unique_ptr<Backend> backend = open_backend(options);
    const DeviceInfo device = backend->info();
    const NetDesc net = trainer_options(options, device, classes).net;
    const bool adamw = options.optimizer == "adamw";
    Arena counting;
    KernelBench(*backend, counting, net, 0).run(adamw);
    const int64_t bytes = counting.plan().peak, usable = usable_memory(device);
    if (usable > 0 && bytes > usable)
        throw Error(Exit::device,
                    cat("the tensors take ", show_bytes(bytes), ", and ", show_bytes(usable), " are free"),
                    "give a smaller --batch-size or --image-size");
    Arena arena(backend->memory(), bytes);
    const std::vector<Measured> all = KernelBench(*backend, arena, net, options.max_steps).run(adamw);
    log::progress_done();
    if (options.json)
        print_json(options, device.name, name_of(net.precision), all);
    else
        print_table(all);
}

}  // namespace rn50
