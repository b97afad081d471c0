#include "cli/training_parts.h"

#include <algorithm>
#include <cmath>

#include "base/log.h"
#include "cli/picture_options.h"

namespace rn50 {

int64_t batch_bytes(const Options& options, int64_t batch) {
    return batch * (options.image_size * options.image_size * options.channels + 2 * int64_t{sizeof(int32_t)});
}

LoaderOptions evaluation_loading(const Options& options) {
    LoaderOptions loading;
    loading.batch_size = options.batch_size;
    loading.workers = static_cast<int>(options.workers);
    loading.slots = val_slots;
    loading.max_bad = options.max_bad;
    // A rank that waits for its disk must not be taken for one that hangs.
    if (options.ranks > 1) loading.read_patience_s = std::min(loading.read_patience_s, 0.6 * options.peer_timeout);
    loading.pictures = evaluation_pictures(options);
    return loading;
}

LoaderOptions training_loading(const Options& options) {
    LoaderOptions loading = evaluation_loading(options);
    loading.slots = ring_slots(batch_bytes(options, options.batch_size));
    loading.seed = static_cast<uint64_t>(options.seed);
    loading.shuffle = loading.drop_last = loading.replace_bad = true;
    loading.accumulate = options.accumulate;
    loading.balanced = options.sampler == "balanced";
    loading.pictures = training_pictures(options);
    loading.mix = mixing(options);
    return loading;
}

CheckpointInfo checkpoint_info(const Options& options, const NetDesc& net, const std::vector<std::string>& classes) {
    CheckpointInfo info;
    info.model = options.model;
    info.classes = classes;
    info.image_size = options.image_size;
    info.channels = static_cast<int>(options.channels);
    info.bits = static_cast<int>(options.bits);
    info.resize = resize_from(options.resize);
    std::copy(std::begin(net.mean), std::end(net.mean), info.mean.begin());
    std::copy(std::begin(net.std), std::end(net.std), info.std.begin());
    info.precision = name_of(net.precision);
    return info;
}

FitOptions fit_options(const Options& options, int64_t steps_per_epoch, const MemoryPlan& plan) {
    FitOptions fit;
    fit.epochs = options.epochs;
    fit.max_steps = options.max_steps;
    fit.save_seconds = 60 * options.save_minutes;
    fit.schedule.base_lr = options.lr;
    fit.schedule.total_steps = options.epochs * steps_per_epoch;
    fit.schedule.warmup_steps = std::llround(options.warmup_epochs * static_cast<double>(steps_per_epoch));
    if (fit.schedule.warmup_steps > fit.schedule.total_steps) {
        log::warn_of_all(cat("--warmup-epochs ", options.warmup_epochs, " is longer than the run of ", options.epochs,
                             options.epochs == 1 ? " epoch" : " epochs", ": the learning rate never reaches --lr"));
    }
    fit.memory_mb = static_cast<double>(plan.total()) / 1e6;
    return fit;
}

}  // namespace rn50
