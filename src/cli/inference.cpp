#include "cli/inference.h"

#include "base/error.h"
#include "cli/training_setup.h"

namespace rn50 {

namespace {

int64_t dry_run(Backend& backend, const NetDesc& desc) {
    Arena arena;
    Inference inference(backend, arena, desc);
    inference.begin();
    for (const int64_t count : {desc.batch, int64_t{1}})  // whole batches, and a rest
        inference.run(nullptr, count, nullptr);
    return arena.plan().peak;
}

}  // namespace

int64_t Inference::plan(Backend& backend, const NetDesc& desc) {
    const DeviceInfo device = backend.info();
    const auto peak_of = [&](int64_t batch) {
        NetDesc tried = desc;
        tried.batch = tried.eval_batch = batch;
        return dry_run(backend, tried) + ring_bytes_a_picture(device, desc.image_size, desc.channels, 4) * batch;
    };
    const auto peak = dry_run(backend, desc);
    // Looked at after the plan, which loads the library's code onto a GPU.
    const int64_t usable = usable_memory(backend.info());
    const int64_t all = peak + ring_bytes_a_picture(device, desc.image_size, desc.channels, 4) * desc.batch;
    if (usable == 0 || all <= usable) return peak;
    const int64_t largest = largest_that_fits(desc.batch, [&](int64_t batch) { return peak_of(batch) <= usable; });
    throw_too_large(desc, cat("needs ", show_bytes(all), ", and ", show_bytes(usable), " of memory are free"), largest);
}

Inference::Inference(Backend& backend, Arena& arena, const NetDesc& desc)
    : backend_(backend), context_{arena, arena.counting(), nullptr}, net_(make_net(backend, desc)) {
    net_->allocate(context_);
    pictures_ = arena.alloc(Use::input, DType::u8, {desc.batch, desc.image_size, desc.image_size, desc.channels});
    logits_ = arena.alloc(Use::activations, DType::f32, {desc.batch, desc.classes});
}

Inference::~Inference() {
    if (begun_) net_->end_inference(context_);
}

void Inference::initialize(uint64_t seed) {
    const std::vector<float> parameters = net_->table().initial_values(seed);
    const std::vector<float> running = net_->table().initial_running();
    backend_.copy_in(context_, parameters.data(), net_->state().parameters);
    backend_.copy_in(context_, running.data(), net_->state().running);
    backend_.synchronize(context_);
}

void Inference::begin() {
    net_->begin_inference(context_);
    begun_ = true;
}

void Inference::run(const void* pictures, int64_t count, float* logits) {
    const Tensor input = pictures_.slice(0, count), output = logits_.slice(0, count);
    backend_.copy_in(context_, pictures, input);
    net_->infer(context_, input, output);
    backend_.copy_out(context_, output, logits);
}

}  // namespace rn50
