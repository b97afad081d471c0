// The commands. Each takes its options as parsed and gives the exit code; results go to stdout, all else to stderr.
#pragma once

#include "cli/options.h"

namespace rn50 {

int run_train(const Options& options);
int run_eval(const Options& options);
int run_predict(const Options& options);
int run_preview(const Options& options);
int run_bench(const Options& options);
int run_pack(const Options& options);  ///< and unpack
int run_inspect(const Options& options);
int run_doctor(const Options& options);

}  // namespace rn50
