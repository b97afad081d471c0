#include "train/trainer.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/pixel_ops.h"

namespace rn50 {

Trainer::Trainer(Backend& backend, Arena& arena, const TrainerOptions& options)
    : backend_(backend), context_{arena, arena.counting(), nullptr}, options_(options) {
    if (options_.net.eval_batch == 0) options_.net.eval_batch = options_.net.batch;
    scale_.dynamic = options_.net.precision == Precision::fp16 && options_.loss_scale == 0;
    if (options_.comm != nullptr && options_.sync_norm) {
        sync_norm_ = std::make_unique<SyncNorm>(backend_, *options_.comm);
        options_.net.norms = sync_norm_.get();
    }
    net_ = make_net(backend_, options_.net);
    net_->allocate(context_);
    if (options_.comm != nullptr)
        averaging_ = std::make_unique<GradientAveraging>(backend_, context_, *options_.comm, *net_,
                                                         options_.bucket_bytes, options_.wire);
    options_.optimizer.ranges = net_->table().ranges();
    backend_.prepare_optimizer(context_, options_.optimizer);

    const Shape parameters{net_->table().parameter_elements()};
    const int64_t batch = std::max(options_.net.batch, options_.net.eval_batch);
    moment1_ = arena.alloc(Use::optimizer, DType::f32, parameters);
    if (options_.optimizer.kind == OptimizerDesc::Kind::adamw)
        moment2_ = arena.alloc(Use::optimizer, DType::f32, parameters);
    step_state_ = arena.alloc(Use::optimizer, DType::u8, {int64_t{sizeof(StepState)}});
    allocate_places();
    if (!options_.class_weights.empty()) {
        RN50_REQUIRE(static_cast<int64_t>(options_.class_weights.size()) == options_.net.classes,
                     options_.class_weights.size(), " class weights");
        class_weights_ = arena.alloc(Use::input, DType::f32, {options_.net.classes});
        mean_weight_ = arena.alloc(Use::input, DType::f32, {1});
        backend_.copy_in(context_, options_.class_weights.data(), class_weights_);
        backend_.synchronize(context_);
    }
    step_number_ = arena.alloc(Use::input, DType::i32, {1});
    if (options_.mixed) share_ = arena.alloc(Use::input, DType::f32, {1});
    loss_ = arena.alloc(Use::input, DType::f32, {std::max(options_.net.accumulate * options_.net.batch, batch)});
    host_loss_.resize(static_cast<size_t>(loss_.count()));
    if (options_.record && !context_.dry)
        recorded_ = std::make_unique<RecordedSteps>(backend_, context_, options_.comm);
}

Trainer::~Trainer() {
    recorded_.reset();
    for (Place& place : places_) {
        place.upload.reset();  // waits for what is on its way into the tensors
        for (Tensor* tensor : {&place.pictures, &place.labels, &place.partners, &place.changes})
            context_.arena.release(*tensor);
    }
    for (Tensor* tensor : {&moment1_, &moment2_, &step_state_, &augmented_, &class_weights_, &mean_weight_, &loss_,
                           &step_number_, &share_})
        context_.arena.release(*tensor);
}

void Trainer::allocate_places() {
    Arena& arena = context_.arena;
    const int64_t size = options_.net.image_size, batch = options_.net.batch, channels = options_.net.channels;
    for (Place& place : places_) {
        // Evaluation takes the first place.
        const int64_t most = &place == places_.data() ? std::max(batch, options_.net.eval_batch) : batch;
        place.pictures = arena.alloc(Use::input, DType::u8, {most, size, size, channels});
        place.labels = arena.alloc(Use::input, DType::i32, {most});
        if (options_.mixed) place.partners = arena.alloc(Use::input, DType::i32, {batch});
        if (options_.changes)
            place.changes = arena.alloc(Use::input, DType::u8, {batch * int64_t{sizeof(pixel::Changes)}});
        if (!context_.dry) place.upload = backend_.upload();
    }
    if (options_.changes) augmented_ = arena.alloc(Use::input, DType::u8, {batch, size, size, channels});
}

void Trainer::initialize() {
    if (context_.dry) return;
    const std::vector<float> parameters = net_->table().initial_values(options_.seed);
    const std::vector<float> running = net_->table().initial_running();
    backend_.copy_in(context_, parameters.data(), net_->state().parameters);
    backend_.copy_in(context_, running.data(), net_->state().running);
    backend_.zero(context_, moment1_);
    if (moment2_) backend_.zero(context_, moment2_);
    StepState state;
    state.loss_scale = scale_.dynamic ? 65536 : options_.loss_scale > 0 ? options_.loss_scale : 1;
    backend_.copy_in(context_, &state, step_state_);
    backend_.synchronize(context_);
}

/// The sum of the weights of the batch's labels and partners.
double Trainer::total_weight(const HostBatch& batch) const {
    const std::vector<float>& weights = options_.class_weights;
    if (weights.empty() || context_.dry) return static_cast<double>(options_.net.batch);
    double total = 0;
    const auto add = [&](const void* labels, double share) {
        for (int64_t i = 0; i < options_.net.batch; ++i)
            total += share * static_cast<double>(weights[static_cast<size_t>(static_cast<const int32_t*>(labels)[i])]);
    };
    add(batch.labels, static_cast<double>(batch.share));
    if (batch.partners != nullptr) add(batch.partners, 1 - static_cast<double>(batch.share));
    return total;
}

void Trainer::follow_rank_0() {
    if (options_.comm == nullptr) return;
    const NetState& state = net_->state();
    for (const Tensor& tensor : {state.parameters, state.running, moment1_, moment2_, step_state_})
        if (tensor) options_.comm->broadcast(tensor);
}

void Trainer::stage(const HostBatch& batch) {
    RN50_REQUIRE(staged_ - taken_ < 2, "a third batch is staged");
    RN50_REQUIRE(options_.mixed || batch.partners == nullptr, "a batch with partners for a trainer without");
    RN50_REQUIRE(options_.changes || batch.changes == nullptr, "a batch with changes for a trainer without");
    Place& place = places_[static_cast<size_t>(staged_++ % 2)];
    const int64_t count = options_.net.batch;
    place.share = batch.share;
    place.partnered = batch.partners != nullptr;
    place.changed = batch.changes != nullptr;
    place.weight = total_weight(batch);
    if (context_.dry) return;
    place.upload->begin(batch.pictures, place.pictures.slice(0, count));
    place.upload->begin(batch.labels, place.labels.slice(0, count));
    if (place.partnered) place.upload->begin(batch.partners, place.partners);
    if (place.changed) place.upload->begin(batch.changes, place.changes);
}

void Trainer::uploaded() {
    if (context_.dry) return;
    for (Place& place : places_)
        place.upload->wait();
}

void Trainer::step(const HostBatch& batch, int64_t step, double lr, int64_t part) {
    stage(batch);
    this->step(step, lr, part);
    uploaded();
}

void Trainer::step(int64_t step, double lr, int64_t part) {
    RN50_REQUIRE(taken_ < staged_, "no batch is staged");
    Place& place = places_[static_cast<size_t>(taken_++ % 2)];
    if (part == 0) {
        lr_ = static_cast<float>(lr);
        static_assert(offsetof(StepState, lr) == 0, "the learning rate is written to the front of the state");
        backend_.copy_in(context_, &lr_, step_state_.slice(0, sizeof lr_));
        weights_ = 0;
    }
    weights_ += place.weight;
    write_numbers(place, step, part);
    if (!context_.dry) place.upload->use();
    if (recorded_)
        recorded_->run({&place - places_.data(), part, int64_t{place.partnered}, int64_t{place.changed}},
                       [&] { compute(place, part); });
    else
        compute(place, part);
    if (!context_.dry) place.upload->release();
}

/// What differs from step to step goes to the device beside the batch: a recorded step finds it there.
void Trainer::write_numbers(const Place& place, int64_t step, int64_t part) {
    if (part == 0) {
        host_step_ = static_cast<int32_t>(static_cast<uint32_t>(step));
        backend_.copy_in(context_, &host_step_, step_number_);
    }
    if (place.partnered) backend_.copy_in(context_, &place.share, share_);
    if (!mean_weight_ || part + 1 < options_.net.accumulate) return;
    mean_ = static_cast<float>(weights_ / static_cast<double>(options_.net.accumulate * options_.net.batch));
    backend_.copy_in(context_, &mean_, mean_weight_);
}

/// All that the device does with a batch. The losses of all ranks are divided by the weights of all their labels, which
/// go from device to device before the gradients do: the hosts need not wait for each other within a step.
void Trainer::compute(const Place& place, int64_t part) {
    const bool last = part + 1 == options_.net.accumulate;
    if (last && mean_weight_ && options_.comm != nullptr && !context_.dry) options_.comm->begin_average(mean_weight_);
    gradients_of(place, part);
    if (last) update();
}

void Trainer::gradients_of(const Place& place, int64_t part) {
    const int64_t count = options_.net.batch, parts = options_.net.accumulate;
    const int64_t rank = options_.comm != nullptr ? options_.comm->rank() : 0,
                  ranks = options_.comm != nullptr ? options_.comm->size() : 1;
    const Tensor loss = loss_.slice(part * count, count);
    Tensor input = place.pictures.slice(0, count);
    if (place.changed) {
        backend_.augment(context_, input, place.changes, augmented_);
        input = augmented_;
    }
    Targets targets(place.labels.slice(0, count));
    targets.class_weights = class_weights_;
    if (place.partnered) {
        targets.partners = place.partners;
        targets.share = share_;
    }
    targets.total = static_cast<float>(parts * count);  // the weights of all labels are known only at the end

    const Tensor logits =
        net_->forward(context_, input, {options_.seed, step_number_, (part * ranks + rank) * count}, part);
    const Scratch diff_logits(context_.arena, DType::f32, logits.shape, Use::activation_gradients);
    backend_.softmax_cross_entropy(context_, logits, targets, options_.label_smoothing, step_state_, loss,
                                   diff_logits.tensor());
    GradientsReady ready;
    if (averaging_ && part + 1 == parts) {
        averaging_->start();
        ready = [this](int64_t from) { averaging_->ready(from); };
    }
    net_->backward(context_, diff_logits.tensor(), part == 0 ? Write::overwrite : Write::add, ready);
}

void Trainer::update() {
    const NetState& state = net_->state();
    if (averaging_) averaging_->finish();
    backend_.check_gradients(context_, state.gradients, options_.clip_norm, scale_, step_state_, mean_weight_);
    backend_.optimize(context_, options_.optimizer, state.parameters, state.gradients, moment1_, moment2_, step_state_);
    net_->update_running(context_, step_state_);
}

StepResult Trainer::result() {
    StepResult result;
    const int64_t count = options_.net.accumulate * options_.net.batch;
    backend_.copy_out(context_, loss_.slice(0, count), host_loss_.data());
    backend_.copy_out(context_, step_state_, &result.state);
    float mean = 1;
    if (mean_weight_) backend_.copy_out(context_, mean_weight_, &mean);
    for (int64_t i = 0; i < count; ++i)
        result.loss += static_cast<double>(host_loss_[static_cast<size_t>(i)]);
    result.loss /= static_cast<double>(count) * static_cast<double>(mean);
    return result;
}

namespace {

bool all_finite(const float* values, int64_t count) {
    return std::all_of(values, values + count, [](float v) { return std::isfinite(v); });
}

}  // namespace

std::string Trainer::first_non_finite() {
    const NetState& state = net_->state();
    std::vector<float> values(static_cast<size_t>(state.observed.count()));
    backend_.copy_out(context_, state.observed, values.data());
    for (int64_t part = 0; part < options_.net.accumulate; ++part)
        for (const RunningStatistics& norm : net_->table().running())
            if (!all_finite(values.data() + part * net_->table().running_elements() + norm.offset, 2 * norm.channels))
                return cat("the activations before ", norm.name);
    // The gradients are made from the last layer to the first, and what is broken breaks all that comes after it.
    values.resize(static_cast<size_t>(state.gradients.count()));
    backend_.copy_out(context_, state.gradients, values.data());
    const std::vector<Parameter>& parameters = net_->table().parameters();
    for (auto parameter = parameters.rbegin(); parameter != parameters.rend(); ++parameter)
        if (!all_finite(values.data() + parameter->offset, parameter->count()))
            return cat("the gradient of ", parameter->name);
    return "";
}

void Trainer::infer(const void* pictures, const void* labels, int64_t count, const Tensor& logits) {
    const Tensor input = places_[0].pictures.slice(0, count), target = places_[0].labels.slice(0, count),
                 loss = loss_.slice(0, count);
    backend_.copy_in(context_, pictures, input);
    backend_.copy_in(context_, labels, target);
    net_->infer(context_, input, logits);
    backend_.softmax_cross_entropy(context_, logits, target, 0, {}, loss, {});
    backend_.copy_out(context_, logits, host_logits_.data());
    backend_.copy_out(context_, loss, host_loss_.data());
}

void Trainer::infer_all(Loader& loader, const Tensor& logits, EvalMetrics& metrics,
                        const std::function<bool(int64_t)>& each) {
    const int64_t classes = options_.net.classes;
    bool go_on = true;
    while (go_on) {
        const Batch* const batch = loader.next();
        if (batch == nullptr) break;
        infer(batch->images.data, batch->labels.data, batch->count, logits.slice(0, batch->count));
        for (int64_t i = 0; i < batch->count; ++i)
            metrics.add(host_logits_.data() + i * classes, batch->labels.as<int32_t>()[i],
                        static_cast<double>(host_loss_[static_cast<size_t>(i)]));
        if (options_.comm != nullptr) options_.comm->progress();
        go_on = each(metrics.images());
    }
}

EvalMetrics Trainer::evaluate(Loader& loader, const std::function<bool(int64_t)>& each) {
    const int64_t classes = options_.net.classes;
    const PaceFor evaluating(options_.comm, Pace::evaluating);
    RN50_REQUIRE(staged_ == taken_, "a batch to train on waits in the place of evaluation");
    EvalMetrics metrics(classes);
    host_logits_.resize(static_cast<size_t>(options_.net.eval_batch * classes));
    const Scratch logits(context_.arena, DType::f32, {options_.net.eval_batch, classes}, Use::activations);
    if (options_.comm != nullptr) options_.comm->broadcast(net_->state().running);
    net_->begin_inference(context_);
    try {
        infer_all(loader, logits.tensor(), metrics, each);
    } catch (...) {
        net_->end_inference(context_);
        throw;
    }
    net_->end_inference(context_);
    if (options_.comm == nullptr) return metrics;
    return EvalMetrics::from_flat(classes, options_.comm->sum(metrics.flat()));
}

MemoryPlan plan_memory(Backend& backend, const TrainerOptions& options) {
    Arena arena;
    Trainer trainer(backend, arena, options);
    const NetDesc& net = trainer.options_.net;
    // What is not there cannot be read, yet its presence decides what is planned for.
    static const char present = 0;
    trainer.step({nullptr, nullptr, nullptr, 1, options.changes ? &present : nullptr}, 0, 0, net.accumulate - 1);
    const Scratch logits(arena, DType::f32, {net.eval_batch, net.classes}, Use::activations);
    trainer.net_->begin_inference(trainer.context_);
    for (const int64_t count : {net.eval_batch, int64_t{1}})  // whole batches, and a rest
        trainer.infer(nullptr, nullptr, count, logits.tensor().slice(0, count));
    trainer.net_->end_inference(trainer.context_);
    return arena.plan();
}

}  // namespace rn50
