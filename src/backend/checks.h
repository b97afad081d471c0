// What the entries of the backend page check: presence, dtype and shape of every tensor, by name.
#pragma once

#include "backend/types.h"

namespace rn50 {

void check_tensor(const Tensor& tensor, DType dtype, const Shape& shape, const char* name);
/// raw as given, and a norm (when present) of as many channels as raw's last dimension.
void check_activation(const Activation& activation, DType dtype, const Shape& shape, const char* name);
/// A diff of that shape, an `at` and norms of the same shape.
void check_diff_src(const DiffSrc& diff_src, DType dtype, const Shape& shape);
/// A StepState in device memory.
void check_state(const Tensor& state);

}  // namespace rn50
