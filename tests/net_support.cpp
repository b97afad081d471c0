#include "net_support.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "formula.h"
#include "golden.h"
#include "model/block.h"
#include "op_support.h"

namespace rn50::test {

namespace {

/// Gradients smaller than f16 can hold must not vanish.
float loss_scale_of(Precision precision) {
    return precision == Precision::fp16 ? 1024.0f : 1.0f;
}

/// The values of a row, in PyTorch's order.
std::vector<float> read(Backend& backend, Context& ctx, const Tensor& buffer, const Parameter& parameter) {
    std::vector<float> values(static_cast<size_t>(parameter.count()));
    backend.copy_out(ctx, buffer.slice(parameter.offset, parameter.count()), values.data());
    return to_torch_order(values, parameter.shape);
}

std::vector<float> scaled(std::vector<float> values, float factor) {
    for (float& v : values)
        v *= factor;
    return values;
}

const Parameter& find(const ParameterTable& table, const std::string& name) {
    for (const Parameter& parameter : table.parameters())
        if (parameter.name == name) return parameter;
    FAIL("no parameter ", name);
    return table.parameters()[0];
}

/// "bn1.running_var" of the running buffer.
std::vector<float> read_running(Backend& backend, Context& ctx, const Tensor& buffer, const ParameterTable& table,
                                const std::string& name) {
    for (const RunningStatistics& row : table.running())
        for (const bool variance : {false, true})
            if (name == row.name + (variance ? ".running_var" : ".running_mean")) {
                std::vector<float> values(static_cast<size_t>(row.channels));
                backend.copy_out(ctx, buffer.slice(row.offset + (variance ? row.channels : 0), row.channels),
                                 values.data());
                return values;
            }
    FAIL("no running statistics ", name);
    return {};
}

/// Fills parameters by formula and sets the running statistics to their start.
void fill(Backend& backend, Context& ctx, const NetState& state, const ParameterTable& table, double last_gamma,
          bool basic) {
    for (const Parameter& parameter : table.parameters()) {
        const std::vector<float> values = from_torch_order(
            formula_parameter(parameter.name, torch_shape(parameter.shape), last_gamma, basic), parameter.shape);
        backend.copy_in(ctx, values.data(), state.parameters.slice(parameter.offset, parameter.count()));
        backend.synchronize(ctx);
    }
    const std::vector<float> running = table.initial_running();
    backend.copy_in(ctx, running.data(), state.running);
    backend.synchronize(ctx);
}

}  // namespace

// --- whole nets --------------------------------------------------------------------------------------------------

struct NetBench::Parts {
    Backend& backend;
    NetDesc desc;
    std::unique_ptr<Net> net;
    std::unique_ptr<Arena> memory;
    Tensor pictures, labels, loss, diff_logits, eval_logits, moment1, moment2, step_state;
    StepState state;
    std::vector<float> logits;

    Parts(Backend& on, const NetDesc& of) : backend(on), desc(of), net(make_net(on, of)) {}
    Context context() { return Context{*memory, memory->counting()}; }
    void allocate();
    double forward_backward();
    std::vector<float> infer();
    void put_state(Context& ctx);
};

void NetBench::Parts::allocate() {
    Context ctx = context();
    net->allocate(ctx);
    const Shape outputs{desc.batch, desc.classes}, parameters = net->state().parameters.shape;
    pictures = memory->alloc(Use::input, DType::u8, {desc.batch, desc.image_size, desc.image_size, 3});
    labels = memory->alloc(Use::input, DType::i32, {desc.batch});
    loss = memory->alloc(Use::activations, DType::f32, {desc.batch});
    diff_logits = memory->alloc(Use::activation_gradients, DType::f32, outputs);
    eval_logits = memory->alloc(Use::activations, DType::f32, outputs);
    moment1 = memory->alloc(Use::optimizer, DType::f32, parameters);
    moment2 = memory->alloc(Use::optimizer, DType::f32, parameters);
    step_state = memory->alloc(Use::optimizer, DType::u8, {static_cast<int64_t>(sizeof(StepState))});
    backend.zero(ctx, moment1);
    backend.zero(ctx, moment2);
}

void NetBench::Parts::put_state(Context& ctx) {
    backend.copy_in(ctx, &state, step_state);
    backend.synchronize(ctx);
}

double NetBench::Parts::forward_backward() {
    Context ctx = context();
    const Tensor outputs = net->forward(ctx, pictures, {});
    std::vector<float> losses(static_cast<size_t>(desc.batch));
    logits.resize(static_cast<size_t>(outputs.count()));
    backend.softmax_cross_entropy(ctx, outputs, labels, 0, step_state, loss, diff_logits);
    backend.copy_out(ctx, outputs, logits.data());
    backend.copy_out(ctx, loss, losses.data());
    net->backward(ctx, diff_logits);
    net->update_running(ctx, step_state);
    backend.synchronize(ctx);
    return std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(desc.batch);
}

std::vector<float> NetBench::Parts::infer() {
    Context ctx = context();
    net->begin_inference(ctx);
    net->infer(ctx, pictures, eval_logits);
    net->end_inference(ctx);
    std::vector<float> values(static_cast<size_t>(eval_logits.count()));
    backend.copy_out(ctx, eval_logits, values.data());
    return values;
}

NetBench::NetBench(Backend& backend, Precision precision, int depth, int64_t batch, int64_t size, int64_t classes,
                   double last_gamma) {
    NetDesc desc;
    desc.model = cat("resnet", depth);
    desc.classes = classes;
    desc.image_size = size;
    desc.batch = batch;
    desc.precision = precision;
    desc.dropout = 0;
    parts_ = std::make_unique<Parts>(backend, desc);
    Parts& p = *parts_;

    // What was counted dry must do for real.
    p.memory = std::make_unique<Arena>();
    p.allocate();
    p.forward_backward();
    p.infer();
    p.memory = std::make_unique<Arena>(backend.memory(), p.memory->plan().peak);
    p.allocate();

    Context ctx = p.context();
    fill(backend, ctx, p.net->state(), p.net->table(), last_gamma, depth < 50);
    const std::vector<uint8_t> pictures = formula_pictures("pictures", batch, size);
    const std::vector<int32_t> labels = formula_labels("labels", batch, classes);
    backend.copy_in(ctx, pictures.data(), p.pictures);
    backend.copy_in(ctx, labels.data(), p.labels);
    p.state.loss_scale = loss_scale_of(precision);
    p.put_state(ctx);
}

NetBench::~NetBench() = default;

double NetBench::forward_backward() {
    return parts_->forward_backward();
}

void NetBench::optimize(OptimizerDesc desc, float lr) {
    Parts& p = *parts_;
    Context ctx = p.context();
    desc.ranges = p.net->table().ranges();
    p.backend.copy_out(ctx, p.step_state, &p.state);
    p.state.lr = lr;
    p.put_state(ctx);
    p.backend.check_gradients(ctx, p.net->state().gradients, 0, {}, p.step_state);
    const bool adamw = desc.kind == OptimizerDesc::Kind::adamw;
    p.backend.optimize(ctx, desc, p.net->state().parameters, p.net->state().gradients, p.moment1,
                       adamw ? p.moment2 : Tensor{}, p.step_state);
}

std::vector<float> NetBench::logits() {
    return parts_->logits;
}

std::vector<float> NetBench::eval_logits() {
    return parts_->infer();
}

std::vector<std::string> NetBench::parameter_names() const {
    std::vector<std::string> names;
    for (const Parameter& parameter : parts_->net->table().parameters())
        names.push_back(parameter.name);
    return names;
}

std::vector<float> NetBench::parameter(const std::string& name) {
    Context ctx = parts_->context();
    const Net& net = *parts_->net;
    return read(parts_->backend, ctx, net.state().parameters, find(net.table(), name));
}

std::vector<float> NetBench::gradient(const std::string& name) {
    Context ctx = parts_->context();
    const Net& net = *parts_->net;
    return scaled(read(parts_->backend, ctx, net.state().gradients, find(net.table(), name)),
                  1 / loss_scale_of(parts_->desc.precision));
}

std::vector<float> NetBench::running(const std::string& name) {
    Context ctx = parts_->context();
    const Net& net = *parts_->net;
    return read_running(parts_->backend, ctx, net.state().running, net.table(), name);
}

// --- one block ---------------------------------------------------------------------------------------------------

struct BlockBench::Parts {
    Rig rig;
    Kind kind;
    ParameterTable table;
    NetState state;
    std::unique_ptr<Block> block;
    Tensor dst, diff_src;

    Parts(Backend& backend, Precision precision, const Kind& of) : rig(backend, precision), kind(of) {}
    Tensor take(int64_t elements) {
        const Tensor tensor = rig.arena.alloc(Use::parameters, DType::f32, {elements});
        rig.backend.zero(rig.ctx, tensor);
        return tensor;
    }
    Tensor put_act(const Shape& shape, const std::vector<float>& values) {
        Array array(shape);
        std::copy(values.begin(), values.end(), array.values.begin());
        return rig.put_act(rounded(std::move(array), rig.act));
    }
};

namespace {

std::vector<float> floats(const Array& array) {
    return {array.values.begin(), array.values.end()};
}

/// The sums that an op would have gathered, from `dz`.
void gather(Rig& rig, const NormSums& norm, const Array& dz) {
    if (!norm) return;
    const Array raw = rig.get(norm.raw), mean = rig.get(norm.mean), inv_std = rig.get(norm.inv_std);
    const int64_t channels = mean.count();
    std::vector<double> sums(static_cast<size_t>(2 * channels));
    for (int64_t i = 0; i < dz.count(); ++i) {
        const int64_t c = i % channels;
        sums[static_cast<size_t>(c)] += dz[i];
        sums[static_cast<size_t>(channels + c)] += dz[i] * (raw[i] - mean[c]) * inv_std[c];
    }
    const std::vector<float> rounded_sums(sums.begin(), sums.end());
    rig.backend.copy_in(rig.ctx, rounded_sums.data(), norm.sums);
    rig.backend.synchronize(rig.ctx);
}

}  // namespace

BlockBench::BlockBench(Backend& backend, Precision precision, const Kind& kind)
    : parts_(std::make_unique<Parts>(backend, precision, kind)) {
    Parts& p = *parts_;
    const NetBuild build{backend, p.table,    p.rig.act,  p.rig.precision == Precision::tf32,
                         true,    kind.batch, kind.batch, 1e-5f};
    p.block = std::make_unique<Block>(
        build, BlockDesc{kind.name, kind.bottleneck, kind.side, kind.channels, kind.planes, kind.stride, true});
    p.state.parameters = p.take(p.table.parameter_elements());
    p.state.gradients = p.take(p.table.parameter_elements());
    p.state.running = p.take(p.table.running_elements());
    p.state.observed = p.take(p.table.running_elements());
    fill(backend, p.rig.ctx, p.state, p.table, 1.0, !kind.bottleneck);
}

BlockBench::~BlockBench() = default;

void BlockBench::forward_backward(const std::vector<float>& src, const std::vector<float>& diff_dst) {
    Parts& p = *parts_;
    Rig& rig = p.rig;
    std::vector<float> clipped = src;
    for (float& v : clipped)
        v = std::max(v, 0.0f);
    const Tensor x = p.put_act({p.kind.batch, p.kind.side, p.kind.side, p.kind.channels}, clipped);
    p.dst = p.block->forward(rig.ctx, p.state, x);

    const DiffSrc output = p.block->gradient_of_output(rig.ctx, p.dst);
    const Array y = rig.get(p.dst);
    std::vector<float> dz = diff_dst;
    for (size_t i = 0; i < dz.size(); ++i)
        if (!(y[static_cast<int64_t>(i)] > 0)) dz[i] = 0;
    const Tensor g = p.put_act(p.dst.shape, dz);
    for (const NormSums& norm : output.norms)
        gather(rig, norm, rig.get(g));

    p.block->backward_branch(rig.ctx, p.state, g, Write::overwrite);
    DiffSrc diff_x;
    diff_x.at = {x, {}, true};
    p.diff_src = p.block->backward_input(rig.ctx, p.state, x, g, diff_x, Write::overwrite);
    const Tensor step = rig.put(StepState{});
    rig.backend.norm_update_running(rig.ctx, p.state.observed, p.state.running, 0.1f, step);
}

std::vector<float> BlockBench::dst() {
    return floats(parts_->rig.get(parts_->dst));
}

std::vector<float> BlockBench::diff_src() {
    return floats(parts_->rig.get(parts_->diff_src));
}

std::vector<std::string> BlockBench::parameter_names() const {
    std::vector<std::string> names;
    for (const Parameter& parameter : parts_->table.parameters())
        names.push_back(parameter.name.substr(parts_->kind.name.size() + 1));
    return names;
}

std::vector<float> BlockBench::gradient(const std::string& name) {
    Parts& p = *parts_;
    return read(p.rig.backend, p.rig.ctx, p.state.gradients, find(p.table, p.kind.name + "." + name));
}

std::vector<float> BlockBench::running(const std::string& name) {
    Parts& p = *parts_;
    return read_running(p.rig.backend, p.rig.ctx, p.state.running, p.table, p.kind.name + "." + name);
}

}  // namespace rn50::test
