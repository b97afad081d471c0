#include "backend/checks.h"

namespace rn50 {

void check_tensor(const Tensor& tensor, DType dtype, const Shape& shape, const char* name) {
    RN50_REQUIRE(tensor.data != nullptr, name, " is absent");
    RN50_REQUIRE(tensor.dtype == dtype, name, " is ", name_of(tensor.dtype), ", not ", name_of(dtype));
    RN50_REQUIRE(tensor.shape == shape, name, " is ", tensor.shape.str(), ", not ", shape.str());
}

void check_activation(const Activation& activation, DType dtype, const Shape& shape, const char* name) {
    check_tensor(activation.raw, dtype, shape, name);
    if (!activation.norm) return;
    const int64_t channels = shape[shape.rank() - 1];
    check_tensor(activation.norm.scale, DType::f32, {channels}, name);
    check_tensor(activation.norm.shift, DType::f32, {channels}, name);
}

void check_diff_src(const DiffSrc& diff_src, DType dtype, const Shape& shape) {
    const int64_t channels = shape[shape.rank() - 1];
    check_tensor(diff_src.diff, dtype, shape, "diff_src.diff");
    if (diff_src.at.raw) check_activation(diff_src.at, dtype, shape, "diff_src.at");
    for (const NormSums& norm : diff_src.norms) {
        if (!norm) continue;
        check_tensor(norm.raw, dtype, shape, "diff_src.norms.raw");
        check_tensor(norm.mean, DType::f32, {channels}, "diff_src.norms.mean");
        check_tensor(norm.inv_std, DType::f32, {channels}, "diff_src.norms.inv_std");
        check_tensor(norm.sums, DType::f32, {2, channels}, "diff_src.norms.sums");
    }
    RN50_REQUIRE(diff_src.norms[0] || !diff_src.norms[1], "the first norm of diff_src is absent, the second is not");
}

void check_state(const Tensor& state) {
    check_tensor(state, DType::u8, {static_cast<int64_t>(sizeof(StepState))}, "state");
}

}  // namespace rn50
