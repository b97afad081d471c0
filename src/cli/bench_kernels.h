// rn50 bench kernels: each pass over memory alone, beside what a plain copy reaches.
#pragma once

#include "cli/options.h"

namespace rn50 {

/// Times the passes over memory of --device at the sizes that the net has for --image-size and --batch-size, and prints
/// a table, or with --json one object. Throws Error(Exit::device) when their tensors do not fit.
void bench_kernels(const Options& options);

}  // namespace rn50
