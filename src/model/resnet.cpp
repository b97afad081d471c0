#include "model/resnet.h"

#include <algorithm>
#include <array>

#include "base/math.h"

namespace rn50 {

namespace {

struct Architecture {
    const char* name;
    bool bottleneck;
    std::array<int, 4> blocks;  ///< of each stage
};

constexpr Architecture architectures[] = {
    {"resnet18", false, {2, 2, 2, 2}},  {"resnet34", false, {3, 4, 6, 3}},  {"resnet50", true, {3, 4, 6, 3}},
    {"resnet101", true, {3, 4, 23, 3}}, {"resnet152", true, {3, 8, 36, 3}},
};

constexpr int64_t stem_channels = 64;
constexpr int64_t min_image_size = 32;  // below, the last stage would see less than one pixel of its own

const Architecture& architecture_of(const std::string& name) {
    std::string known;
    for (const Architecture& architecture : architectures) {
        if (name == architecture.name) return architecture;
        known += cat(known.empty() ? "" : ", ", architecture.name);
    }
    throw Error(Exit::usage, cat("unknown model ", name), cat("models: ", known));
}

/// Pictures that pass through the net together. A processor is fastest while their activations stay in its caches,
/// though each group reads all weights; a GPU wants all pictures at once.
int64_t infer_batch_of(Backend& backend, const NetDesc& desc) {
    const DeviceInfo info = backend.info();
    if (info.kind != "cpu") return desc.eval_batch;
    const int64_t side = (desc.image_size + 1) / 2;
    const int64_t stem_bytes = side * side * stem_channels * size_of(activation_dtype(desc.precision));
    const int64_t threads = std::max(info.threads, 1), cache_bytes = int64_t{3 << 20} * threads;
    const int64_t fitting = std::max(cache_bytes / stem_bytes, threads);
    const int64_t even = ceil_div(desc.eval_batch, ceil_div(desc.eval_batch, fitting));  // groups of nearly one size
    return std::min(align_up(even, threads), desc.eval_batch);
}

NetDesc completed(NetDesc desc) {
    architecture_of(desc.model);
    if (desc.eval_batch == 0) desc.eval_batch = desc.batch;
    if (desc.image_size < min_image_size)
        throw Error(Exit::usage, cat("pictures of ", desc.image_size, " pixels a side are too small for ", desc.model),
                    cat("use an --image-size of at least ", min_image_size));
    RN50_REQUIRE(desc.channels == 1 || desc.channels == 3, "pictures of ", desc.channels, " channels");
    RN50_REQUIRE(desc.classes >= 1, "a net of ", desc.classes, " classes");
    RN50_REQUIRE(desc.accumulate >= 1, "steps of ", desc.accumulate, " batches");
    RN50_REQUIRE(desc.batch >= 1 && desc.eval_batch >= 1, "batches of ", desc.batch, " and ", desc.eval_batch);
    return desc;
}

}  // namespace

ResNet::ResNet(Backend& backend, const NetDesc& desc)
    : backend_(backend),
      desc_(completed(desc)),
      dtype_(activation_dtype(desc_.precision)),
      infer_batch_(infer_batch_of(backend_, desc_)) {
    const Architecture& architecture = architecture_of(desc_.model);
    const bool tf32 = desc_.precision == Precision::tf32;
    const NetBuild build{backend_, table_, dtype_, tf32, desc_.training, desc_.batch, infer_batch_, desc_.norm_eps,
                         desc_.norms};

    ConvDesc stem;
    stem.name = "conv1";
    stem.height = stem.width = desc_.image_size;
    stem.in_channels = desc_.channels;
    stem.out_channels = stem_channels;
    stem.kernel = 7;
    stem.stride = 2;
    stem.pad = 3;
    stem.src_dtype = DType::u8;
    stem_.emplace(build, stem, "bn1", Init::one);

    BlockDesc block;
    block.bottleneck = architecture.bottleneck;
    block.zero_init_residual = desc_.zero_init_residual;
    block.side = ((desc_.image_size + 1) / 2 + 1) / 2;
    block.in_channels = stem_channels;
    for (size_t stage = 0; stage < architecture.blocks.size(); ++stage)
        for (int i = 0; i < architecture.blocks[stage]; ++i) {
            block.name = cat("layer", stage + 1, ".", i);
            block.planes = int64_t{64} << stage;
            block.stride = stage > 0 && i == 0 ? 2 : 1;
            blocks_.emplace_back(build, block);
            block.side = block.out_side();
            block.in_channels = block.out_channels();
        }

    LinearDesc linear;
    linear.name = "fc";
    linear.batch = desc_.training ? std::max(desc_.batch, desc_.eval_batch) : desc_.eval_batch;
    linear.in_features = block.in_channels;
    linear.out_features = desc_.classes;
    linear.dtype = dtype_;
    linear.tf32 = tf32;
    table_.add("fc.weight", {linear.out_features, linear.in_features}, Init::uniform_fan_in, linear.in_features, true);
    table_.add("fc.bias", {linear.out_features}, Init::uniform_fan_in, linear.in_features, false);
    weights_ = table_.parameters()[table_.parameters().size() - 2];
    bias_ = table_.parameters().back();
    linear_ = backend_.linear(linear);
}

void ResNet::allocate(Context& ctx) {
    const auto take = [&](Use use, int64_t elements) {
        const Tensor tensor = ctx.arena.alloc(use, DType::f32, {elements});
        backend_.zero(ctx, tensor);
        return tensor;
    };
    state_ = {};
    state_.parameters = take(Use::parameters, table_.parameter_elements());
    if (stem_->takes_rounded_weights())
        state_.rounded = ctx.arena.alloc(Use::packed_weights, dtype_, {table_.parameter_elements()});
    state_.running = take(Use::statistics, table_.running_elements());
    if (desc_.training) {
        state_.gradients = take(Use::gradients, table_.parameter_elements());
        state_.observed = take(Use::statistics, desc_.accumulate * table_.running_elements());
    }
    picture_norm_ = ctx.arena.alloc(Use::statistics, DType::f32, {2, desc_.channels});
    float values[6];
    for (int64_t c = 0; c < desc_.channels; ++c) {
        values[c] = 1 / (255 * desc_.std[c]);
        values[desc_.channels + c] = -desc_.mean[c] / desc_.std[c];
    }
    backend_.copy_in(ctx, values, picture_norm_);
    backend_.synchronize(ctx);
}

Activation ResNet::picture_activation(const Tensor& pictures) const {
    Norm norm;
    norm.scale = picture_norm_.slice(0, 1).reshaped({desc_.channels});
    norm.shift = picture_norm_.slice(1, 1).reshaped({desc_.channels});
    return {pictures, norm, false};
}

bool ResNet::recomputed(size_t i) const {
    // Every second: the join that makes it again must find its own input.
    return desc_.lean && i % 2 == 0 && i + 1 < blocks_.size();
}

Tensor ResNet::observed_of(int64_t part) const {
    return state_.observed.slice(part * table_.running_elements(), table_.running_elements());
}

Tensor ResNet::forward(Context& ctx, const Tensor& pictures, const DropoutKey& key, int64_t part) {
    RN50_REQUIRE(desc_.training, "a net made for inference was asked to train");
    if (part == 0 && state_.rounded) backend_.convert(ctx, state_.parameters, state_.rounded);
    NetState state = state_;
    state.observed = observed_of(part);
    pictures_ = picture_activation(pictures);
    key_ = key;
    Unit& stem = *stem_;
    stem.forward(ctx, state, pictures_);
    const Shape s = stem.dst_shape();
    inputs_.assign(1, ctx.arena.alloc(Use::activations, dtype_, {s[0], (s[1] + 1) / 2, (s[2] + 1) / 2, s[3]}));
    backend_.max_pool(ctx, stem.pending(true), inputs_[0]);

    for (size_t i = 0; i < blocks_.size(); ++i) {
        inputs_.push_back(blocks_[i].forward(ctx, state, inputs_[i]));
        if (i > 0 && recomputed(i - 1)) ctx.arena.release(inputs_[i]);
    }

    features_ = ctx.arena.alloc(Use::activations, dtype_, {desc_.batch, weights_.shape[1]});
    backend_.avg_pool(ctx, inputs_.back(), features_);
    if (desc_.dropout > 0) backend_.dropout(ctx, features_, features_, desc_.dropout, key_);
    logits_ = ctx.arena.alloc(Use::activations, DType::f32, {desc_.batch, desc_.classes});
    linear_->forward(ctx, features_, part_of(state_.parameters, weights_), part_of(state_.parameters, bias_), logits_);
    return logits_;
}

void ResNet::backward(Context& ctx, const Tensor& diff_logits, Write write, const GradientsReady& ready) {
    const auto final_from = [&](int64_t offset) {
        if (ready) ready(offset);
    };
    Tensor g = classifier_gradient(ctx, diff_logits, write);
    final_from(weights_.offset);
    for (size_t i = blocks_.size(); i-- > 0;) {
        blocks_[i].backward_branch(ctx, state_, g, write);
        DiffSrc diff_x;  // below the first block lies the max pool: no ReLU, no norm
        if (i > 0) {
            if (!inputs_[i]) inputs_[i] = blocks_[i - 1].join(ctx, inputs_[i - 1]);
            diff_x = blocks_[i - 1].gradient_of_output(ctx, inputs_[i]);
        }
        g = blocks_[i].backward_input(ctx, state_, inputs_[i], g, diff_x, write);
        ctx.arena.release(inputs_[i]);
        final_from(blocks_[i].first_offset());
    }
    backward_stem(ctx, g, write);
    final_from(0);
    ctx.arena.release(logits_);
}

Tensor ResNet::classifier_gradient(Context& ctx, const Tensor& diff_logits, Write write) {
    Tensor diff_features = ctx.arena.alloc(Use::activation_gradients, dtype_, features_.shape);
    linear_->backward(ctx, features_, part_of(state_.parameters, weights_), diff_logits, diff_features,
                      part_of(state_.gradients, weights_), part_of(state_.gradients, bias_), write);
    ctx.arena.release(features_);
    if (desc_.dropout > 0) backend_.dropout(ctx, diff_features, diff_features, desc_.dropout, key_);
    DiffSrc diff = blocks_.back().gradient_of_output(ctx, inputs_.back());
    diff.diff = ctx.arena.alloc(Use::activation_gradients, dtype_, inputs_.back().shape);
    backend_.avg_pool_backward(ctx, diff_features, diff);
    ctx.arena.release(diff_features);
    ctx.arena.release(inputs_.back());
    return diff.diff;
}

void ResNet::backward_stem(Context& ctx, Tensor diff_pooled, Write write) {
    Unit& stem = *stem_;
    DiffSrc diff;
    diff.at = stem.pending(true);
    diff.norms[0] = stem.take_sums(ctx);
    diff.diff = ctx.arena.alloc(Use::activation_gradients, dtype_, stem.dst_shape());
    backend_.max_pool_backward(ctx, stem.pending(true), diff_pooled, diff);
    ctx.arena.release(diff_pooled);
    stem.backward(ctx, state_, pictures_, diff.diff, nullptr, write);
    ctx.arena.release(diff.diff);
}

void ResNet::update_running(Context& ctx, const Tensor& step_state) {
    for (int64_t part = 0; part < desc_.accumulate; ++part)
        backend_.norm_update_running(ctx, observed_of(part), state_.running, desc_.norm_momentum, step_state);
}

void ResNet::begin_inference(Context& ctx) {
    stem_->pack(ctx, state_);
    for (Block& block : blocks_)
        block.pack(ctx, state_);
}

void ResNet::infer(Context& ctx, const Tensor& pictures, const Tensor& logits) {
    const int64_t n = pictures.shape[0];
    RN50_REQUIRE(n >= 1 && n <= desc_.eval_batch, "prepared for ", desc_.eval_batch, " pictures, given ", n);
    const Scratch features(ctx.arena, dtype_, {n, weights_.shape[1]}, Use::activations);
    for (int64_t begin = 0; begin < n; begin += infer_batch_) {
        const int64_t m = std::min(infer_batch_, n - begin);
        infer_features(ctx, pictures.slice(begin, m), features.tensor().slice(begin, m));
    }
    linear_->forward(ctx, features.tensor(), part_of(state_.parameters, weights_), part_of(state_.parameters, bias_),
                     logits);
}

void ResNet::infer_features(Context& ctx, const Tensor& pictures, const Tensor& features) {
    const Unit& stem = *stem_;
    const Shape s = stem.infer_shape(pictures.shape[0]);
    Tensor x = ctx.arena.alloc(Use::activations, dtype_, {s[0], (s[1] + 1) / 2, (s[2] + 1) / 2, s[3]});
    {
        const Scratch raw(ctx.arena, dtype_, s, Use::activations);
        stem.infer(ctx, picture_activation(pictures), {}, true, raw.tensor());
        backend_.max_pool(ctx, {raw.tensor(), {}, false}, x);
    }
    for (const Block& block : blocks_)
        x = block.infer(ctx, x);
    backend_.avg_pool(ctx, x, features);
    ctx.arena.release(x);
}

void ResNet::end_inference(Context& ctx) {
    stem_->release_packed(ctx);
    for (Block& block : blocks_)
        block.release_packed(ctx);
}

std::unique_ptr<Net> make_net(Backend& backend, const NetDesc& desc) {
    return std::make_unique<ResNet>(backend, desc);
}

std::vector<std::string> model_names() {
    std::vector<std::string> names;
    for (const Architecture& architecture : architectures)
        names.push_back(architecture.name);
    return names;
}

}  // namespace rn50
