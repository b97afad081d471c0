// The checked entries of the prepared ops: contract, workspace, then the backend's own implementation.
#include "backend/backend.h"
#include "backend/checks.h"
#include "backend/profile.h"

namespace rn50 {

namespace {

void check_norm_gradient(const NormGradient& norm, int64_t channels, const char* what) {
    for (const Tensor* part : {&norm.factor, &norm.mean_dz, &norm.slope, &norm.mean})
        check_tensor(*part, DType::f32, {channels}, what);
}

}  // namespace

void Conv::check_weights(const Tensor& weights) const {
    const bool rounded = takes_rounded_weights() && weights.dtype == desc_.dtype;
    check_tensor(weights, rounded ? desc_.dtype : DType::f32, desc_.weights_shape(), "weights");
}

void Conv::forward(Context& ctx, const Activation& src, const Tensor& weights, const Tensor& dst, const Tensor& stats) {
    RN50_REQUIRE(desc_.training, desc_.name, " was prepared for inference");
    check_activation(src, desc_.src_dtype, desc_.src_shape(), "src");
    check_weights(weights);
    check_tensor(dst, desc_.dtype, desc_.dst_shape(), "dst");
    if (stats) check_tensor(stats, DType::f32, {2, desc_.out_channels}, "stats");
    const Scratch workspace(ctx.arena, workspace_bytes(Phase::forward), library_workspace_bytes(Phase::forward));
    if (ctx.dry) return;
    const Timed timed(ctx.profile, desc_.name, "forward");
    do_forward(src, weights, dst, stats, workspace.tensor());
}

void Conv::backward(Context& ctx, const Activation& src, const Tensor& weights, const DiffDst& diff_dst,
                    const DiffSrc* diff_src, const Tensor& diff_weights, Write write_weights) {
    RN50_REQUIRE(desc_.training, desc_.name, " was prepared for inference");
    check_activation(src, desc_.src_dtype, desc_.src_shape(), "src");
    check_weights(weights);
    check_tensor(diff_dst.dz, desc_.dtype, desc_.dst_shape(), "diff_dst.dz");
    check_tensor(diff_dst.raw, desc_.dtype, desc_.dst_shape(), "diff_dst.raw");
    check_norm_gradient(diff_dst.norm, desc_.out_channels, "diff_dst.norm");
    check_tensor(diff_weights, DType::f32, desc_.weights_shape(), "diff_weights");
    RN50_REQUIRE(!diff_src || desc_.src_dtype != DType::u8, desc_.name, ": pictures have no gradient");
    if (diff_src) check_diff_src(*diff_src, desc_.dtype, desc_.src_shape());
    const Scratch workspace(ctx.arena, workspace_bytes(Phase::backward), library_workspace_bytes(Phase::backward));
    if (ctx.dry) return;
    const Timed timed(ctx.profile, desc_.name, "backward");
    do_backward(src, weights, diff_dst, diff_src, diff_weights, write_weights, workspace.tensor());
}

void Conv::pack(Context& ctx, const Tensor& weights, const Norm& norm, const Tensor& packed) {
    check_tensor(weights, DType::f32, desc_.weights_shape(), "weights");
    check_tensor(norm.scale, DType::f32, {desc_.out_channels}, "norm.scale");
    check_tensor(norm.shift, DType::f32, {desc_.out_channels}, "norm.shift");
    check_tensor(packed, DType::u8, {packed_bytes()}, "packed");
    const Scratch workspace(ctx.arena, workspace_bytes(Phase::pack), library_workspace_bytes(Phase::pack));
    if (ctx.dry) return;
    const Timed timed(ctx.profile, desc_.name, "pack");
    do_pack(weights, norm, packed, workspace.tensor());
}

void Conv::infer(Context& ctx, const Activation& src, const Tensor& packed, const Tensor& residual, bool relu,
                 const Tensor& dst) {
    const int64_t batch = src.raw.shape[0];
    RN50_REQUIRE(batch >= 1 && batch <= desc_.batch, desc_.name, " prepared for ", desc_.batch, " pictures, given ",
                 batch);
    ConvDesc given = desc_;
    given.batch = batch;
    check_activation(src, desc_.src_dtype, given.src_shape(), "src");
    check_tensor(packed, DType::u8, {packed_bytes()}, "packed");
    check_tensor(dst, desc_.dtype, given.dst_shape(), "dst");
    if (residual) check_tensor(residual, desc_.dtype, given.dst_shape(), "residual");
    const Scratch workspace(ctx.arena, workspace_bytes(Phase::infer), library_workspace_bytes(Phase::infer));
    if (ctx.dry) return;
    const Timed timed(ctx.profile, desc_.name, "infer");
    do_infer(src, packed, residual, relu, dst, workspace.tensor());
}

void Linear::forward(Context& ctx, const Tensor& src, const Tensor& weights, const Tensor& bias, const Tensor& dst) {
    const int64_t batch = src.shape[0];
    RN50_REQUIRE(batch >= 1 && batch <= desc_.batch, desc_.name, " prepared for ", desc_.batch, " rows, given ", batch);
    check_tensor(src, desc_.dtype, {batch, desc_.in_features}, "src");
    check_tensor(weights, DType::f32, {desc_.out_features, desc_.in_features}, "weights");
    check_tensor(bias, DType::f32, {desc_.out_features}, "bias");
    check_tensor(dst, DType::f32, {batch, desc_.out_features}, "dst");
    const Scratch workspace(ctx.arena, workspace_bytes(), library_workspace_bytes());
    if (ctx.dry) return;
    const Timed timed(ctx.profile, desc_.name, "forward");
    do_forward(src, weights, bias, dst, workspace.tensor());
}

void Linear::backward(Context& ctx, const Tensor& src, const Tensor& weights, const Tensor& diff_dst,
                      const Tensor& diff_src, const Tensor& diff_weights, const Tensor& diff_bias,
                      Write write_weights) {
    const int64_t batch = src.shape[0];
    RN50_REQUIRE(batch >= 1 && batch <= desc_.batch, desc_.name, " prepared for ", desc_.batch, " rows, given ", batch);
    check_tensor(src, desc_.dtype, {batch, desc_.in_features}, "src");
    check_tensor(weights, DType::f32, {desc_.out_features, desc_.in_features}, "weights");
    check_tensor(diff_dst, DType::f32, {batch, desc_.out_features}, "diff_dst");
    check_tensor(diff_src, desc_.dtype, {batch, desc_.in_features}, "diff_src");
    check_tensor(diff_weights, DType::f32, {desc_.out_features, desc_.in_features}, "diff_weights");
    check_tensor(diff_bias, DType::f32, {desc_.out_features}, "diff_bias");
    const Scratch workspace(ctx.arena, workspace_bytes(), library_workspace_bytes());
    if (ctx.dry) return;
    const Timed timed(ctx.profile, desc_.name, "backward");
    do_backward(src, weights, diff_dst, diff_src, diff_weights, diff_bias, write_weights, workspace.tensor());
}

}  // namespace rn50
