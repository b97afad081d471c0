// The checked entries of the ops that need no preparation.
#include "backend/backend.h"

#include "backend/checks.h"
#include "backend/profile.h"
#include "base/pixel_ops.h"

namespace rn50 {

namespace {

const std::string norm_name = "norm", join_name = "join", pool_name = "pool", loss_name = "loss",
                  optimizer_name = "optimizer", augment_name = "augment";

void check_norm(const Norm& norm, int64_t channels) {
    for (const Tensor* part : {&norm.scale, &norm.shift, &norm.mean, &norm.inv_std})
        check_tensor(*part, DType::f32, {channels}, "norm");
}

Shape pooled(const Shape& s) {
    return {s[0], (s[1] + 1) / 2, (s[2] + 1) / 2, s[3]};
}

}  // namespace

void Backend::norm_from_batch(Context& ctx, const Tensor& stats, int64_t count, const Tensor& gamma, const Tensor& beta,
                              float eps, const Norm& norm, const Tensor& observed) {
    const int64_t channels = gamma.count();
    check_tensor(stats, DType::f32, {2, channels}, "stats");
    check_tensor(gamma, DType::f32, {channels}, "gamma");
    check_tensor(beta, DType::f32, {channels}, "beta");
    check_norm(norm, channels);
    if (observed) check_tensor(observed, DType::f32, {2, channels}, "observed");
    if (count < 2)
        throw Error(Exit::usage, "batch norm over a single value has no variance",
                    "use a larger --batch-size or --image-size");
    if (ctx.dry) return;
    const Timed timed(ctx.profile, norm_name, "from batch");
    do_norm_from_batch(stats, count, gamma, beta, eps, norm, observed);
}

void Backend::norm_from_running(Context& ctx, const Tensor& running, const Tensor& gamma, const Tensor& beta, float eps,
                                const Norm& norm) {
    const int64_t channels = gamma.count();
    check_tensor(running, DType::f32, {2, channels}, "running");
    check_tensor(gamma, DType::f32, {channels}, "gamma");
    check_tensor(beta, DType::f32, {channels}, "beta");
    check_norm(norm, channels);
    if (ctx.dry) return;
    const Timed timed(ctx.profile, norm_name, "from running");
    do_norm_from_running(running, gamma, beta, eps, norm);
}

void Backend::norm_backward(Context& ctx, const Tensor& sums, int64_t count, const Norm& norm, const Tensor& gamma,
                            const NormGradient& gradient, const Tensor& diff_gamma, const Tensor& diff_beta,
                            Write write) {
    const int64_t channels = gamma.count();
    check_tensor(sums, DType::f32, {2, channels}, "sums");
    check_norm(norm, channels);
    check_tensor(gamma, DType::f32, {channels}, "gamma");
    for (const Tensor* part : {&gradient.factor, &gradient.mean_dz, &gradient.slope})
        check_tensor(*part, DType::f32, {channels}, "gradient");
    check_tensor(diff_gamma, DType::f32, {channels}, "diff_gamma");
    check_tensor(diff_beta, DType::f32, {channels}, "diff_beta");
    RN50_REQUIRE(count >= 1, "count ", count);
    if (ctx.dry) return;
    const Timed timed(ctx.profile, norm_name, "backward");
    do_norm_backward(sums, count, norm, gamma, gradient, diff_gamma, diff_beta, write);
}

void Backend::norm_update_running(Context& ctx, const Tensor& observed, const Tensor& running, float momentum,
                                  const Tensor& state) {
    check_tensor(observed, DType::f32, running.shape, "observed");
    check_tensor(running, DType::f32, running.shape, "running");
    check_state(state);
    if (ctx.dry) return;
    const Timed timed(ctx.profile, norm_name, "update running");
    do_norm_update_running(observed, running, momentum, state);
}

void Backend::merge_statistics(Context& ctx, const Tensor& parts, int64_t count, const Tensor& stats) {
    check_tensor(stats, DType::f32, {2, stats.shape[1]}, "stats");
    check_tensor(parts, DType::f32, {parts.shape[0], 2, stats.shape[1]}, "parts");
    RN50_REQUIRE(count >= 1, "count ", count);
    if (ctx.dry) return;
    const Timed timed(ctx.profile, norm_name, "merge statistics");
    do_merge_statistics(parts, count, stats);
}

void Backend::sum_parts(Context& ctx, const Tensor& parts, const Tensor& sums) {
    check_tensor(sums, DType::f32, {2, sums.shape[1]}, "sums");
    check_tensor(parts, DType::f32, {parts.shape[0], 2, sums.shape[1]}, "parts");
    if (ctx.dry) return;
    const Timed timed(ctx.profile, norm_name, "sum parts");
    do_sum_parts(parts, sums);
}

void Backend::join(Context& ctx, const Activation& a, const Activation& b, const Tensor& dst) {
    check_tensor(dst, dst.dtype, dst.shape, "dst");
    check_activation(a, dst.dtype, dst.shape, "a");
    check_activation(b, dst.dtype, dst.shape, "b");
    RN50_REQUIRE(!a.relu && !b.relu, "a join takes its sides before the ReLU");
    if (ctx.dry) return;
    const Timed timed(ctx.profile, join_name, "forward");
    do_join(a, b, dst);
}

void Backend::max_pool(Context& ctx, const Activation& src, const Tensor& dst) {
    check_activation(src, dst.dtype, src.raw.shape, "src");
    check_tensor(dst, dst.dtype, pooled(src.raw.shape), "dst");
    if (ctx.dry) return;
    const Timed timed(ctx.profile, pool_name, "max forward");
    do_max_pool(src, dst);
}

void Backend::max_pool_backward(Context& ctx, const Activation& src, const Tensor& diff_dst, const DiffSrc& diff_src) {
    check_activation(src, diff_dst.dtype, src.raw.shape, "src");
    check_tensor(diff_dst, diff_dst.dtype, pooled(src.raw.shape), "diff_dst");
    check_diff_src(diff_src, diff_dst.dtype, src.raw.shape);
    const Scratch workspace(ctx.arena, DType::u8, {max_pool_workspace_bytes(src.raw.shape)});
    if (ctx.dry) return;
    const Timed timed(ctx.profile, pool_name, "max backward");
    do_max_pool_backward(src, diff_dst, diff_src, workspace.tensor());
}

void Backend::avg_pool(Context& ctx, const Tensor& src, const Tensor& dst) {
    check_tensor(src, dst.dtype, src.shape, "src");
    check_tensor(dst, dst.dtype, {src.shape[0], src.shape[3]}, "dst");
    if (ctx.dry) return;
    const Timed timed(ctx.profile, pool_name, "average forward");
    do_avg_pool(src, dst);
}

void Backend::avg_pool_backward(Context& ctx, const Tensor& diff_dst, const DiffSrc& diff_src) {
    const Shape& shape = diff_src.diff.shape;
    check_tensor(diff_dst, diff_dst.dtype, {shape[0], shape[3]}, "diff_dst");
    check_diff_src(diff_src, diff_dst.dtype, shape);
    const Scratch workspace(ctx.arena, DType::u8, {avg_pool_workspace_bytes(shape)});
    if (ctx.dry) return;
    const Timed timed(ctx.profile, pool_name, "average backward");
    do_avg_pool_backward(diff_dst, diff_src, workspace.tensor());
}

void Backend::dropout(Context& ctx, const Tensor& src, const Tensor& dst, float p, const DropoutKey& key) {
    RN50_REQUIRE(src.shape.rank() == 2, "dropout of ", src.shape.str());
    check_tensor(src, dst.dtype, dst.shape, "src");
    check_tensor(dst, dst.dtype, dst.shape, "dst");
    RN50_REQUIRE(p >= 0 && p < 1, "dropout of ", p);
    check_tensor(key.step, DType::i32, {1}, "the step");
    if (ctx.dry) return;
    const Timed timed(ctx.profile, loss_name, "dropout");
    do_dropout(src, dst, p, key);
}

void Backend::softmax_cross_entropy(Context& ctx, const Tensor& logits, const Targets& targets, float smoothing,
                                    const Tensor& state, const Tensor& loss, const Tensor& diff_logits) {
    const int64_t batch = logits.shape[0];
    check_tensor(logits, DType::f32, {batch, logits.shape[1]}, "logits");
    check_tensor(targets.labels, DType::i32, {batch}, "labels");
    if (targets.partners) check_tensor(targets.partners, DType::i32, {batch}, "partners");
    if (targets.class_weights) check_tensor(targets.class_weights, DType::f32, {logits.shape[1]}, "class weights");
    RN50_REQUIRE(static_cast<bool>(targets.share) == static_cast<bool>(targets.partners),
                 "partners without a share, or the reverse");
    if (targets.share) check_tensor(targets.share, DType::f32, {1}, "the share");
    RN50_REQUIRE(targets.total >= 0, "a total of ", targets.total);
    check_tensor(loss, DType::f32, {batch}, "loss");
    RN50_REQUIRE(smoothing >= 0 && smoothing <= 1, "label smoothing ", smoothing);
    if (diff_logits) {
        check_tensor(diff_logits, DType::f32, logits.shape, "diff_logits");
        check_state(state);
    }
    if (ctx.dry) return;
    const Timed timed(ctx.profile, loss_name, "softmax cross-entropy");
    do_softmax_cross_entropy(logits, targets, smoothing, state, loss, diff_logits);
}

void Backend::check_gradients(Context& ctx, const Tensor& gradients, float clip_norm, const ScalePolicy& policy,
                              const Tensor& state, const Tensor& divisor) {
    check_tensor(gradients, DType::f32, {gradients.count()}, "gradients");
    check_state(state);
    if (divisor) check_tensor(divisor, DType::f32, {1}, "divisor");
    const Scratch workspace(ctx.arena, gradients_workspace_bytes());
    if (ctx.dry) return;
    const Timed timed(ctx.profile, optimizer_name, "check gradients");
    do_check_gradients(gradients, clip_norm, policy, divisor, state, workspace.tensor());
}

void Backend::prepare_optimizer(Context& ctx, const OptimizerDesc& desc, const Tensor& table) {
    check_tensor(table, DType::u8, {optimizer_table_bytes(desc)}, "table");
    if (!ctx.dry) do_prepare_optimizer(desc, table);
}

void Backend::optimize(Context& ctx, const OptimizerDesc& desc, const Tensor& parameters, const Tensor& gradients,
                       const Tensor& moment1, const Tensor& moment2, const Tensor& state, const Tensor& table) {
    const Shape shape{parameters.count()};
    check_tensor(parameters, DType::f32, shape, "parameters");
    check_tensor(gradients, DType::f32, shape, "gradients");
    check_tensor(moment1, DType::f32, shape, "moment1");
    if (desc.kind == OptimizerDesc::Kind::adamw) check_tensor(moment2, DType::f32, shape, "moment2");
    check_state(state);
    int64_t end = 0;
    for (const ParameterRange& range : desc.ranges) {
        RN50_REQUIRE(range.begin >= end && range.end >= range.begin, "parameter ranges overlap or descend");
        end = range.end;
    }
    RN50_REQUIRE(end <= shape[0], "a parameter range ends at ", end, " of ", shape[0]);
    if (!table) {
        const Scratch own(ctx.arena, optimizer_table_bytes(desc));
        prepare_optimizer(ctx, desc, own.tensor());
        return optimize(ctx, desc, parameters, gradients, moment1, moment2, state, own.tensor());
    }
    check_tensor(table, DType::u8, {optimizer_table_bytes(desc)}, "table");
    if (ctx.dry) return;
    const Timed timed(ctx.profile, optimizer_name, "step");
    do_optimize(desc, parameters, gradients, moment1, moment2, state, table);
}

void Backend::zero(Context& ctx, const Tensor& dst) {
    RN50_REQUIRE(dst.data != nullptr, "dst is absent");
    if (!ctx.dry) do_zero(dst);
}

void Backend::convert(Context& ctx, const Tensor& src, const Tensor& dst) {
    check_tensor(src, src.dtype, dst.shape, "src");
    check_tensor(dst, dst.dtype, dst.shape, "dst");
    const auto half = [](DType dtype) { return dtype == DType::f16 || dtype == DType::bf16; };
    RN50_REQUIRE((src.dtype == DType::f32 && half(dst.dtype)) || (half(src.dtype) && dst.dtype == DType::f32),
                 name_of(src.dtype), " to ", name_of(dst.dtype));
    if (ctx.dry) return;
    const Timed timed(ctx.profile, optimizer_name, "convert");
    do_convert(src, dst);
}

void Backend::augment(Context& ctx, const Tensor& src, const Tensor& changes, const Tensor& dst) {
    const int64_t count = src.shape[0], size = src.shape[1], channels = src.shape[3];
    RN50_REQUIRE(channels == 1 || channels == 3, channels, " channels");
    RN50_REQUIRE(size <= 65536, "pictures of ", size, " pixels a side");
    check_tensor(src, DType::u8, {count, size, size, channels}, "src");
    check_tensor(dst, DType::u8, src.shape, "dst");
    RN50_REQUIRE(src.data != dst.data, "pictures are not augmented in place");
    check_tensor(changes, DType::u8, {count * int64_t{sizeof(pixel::Changes)}}, "changes");
    const Scratch workspace(ctx.arena, DType::u8, {augment_workspace_bytes(count)});
    if (ctx.dry) return;
    const Timed timed(ctx.profile, augment_name, "forward");
    do_augment(src, changes, dst, workspace.tensor());
}

void Backend::copy_in(Context& ctx, const void* host, const Tensor& dst) {
    RN50_REQUIRE(dst.data != nullptr, "dst is absent");
    if (!ctx.dry) do_copy_in(host, dst);
}

void Backend::copy_out(Context& ctx, const Tensor& src, void* host) {
    RN50_REQUIRE(src.data != nullptr, "src is absent");
    if (!ctx.dry) do_copy_out(src, host);
}

void Backend::synchronize(Context& ctx) {
    if (!ctx.dry) do_synchronize();
}

}  // namespace rn50
