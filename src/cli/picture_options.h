// From the words of the command line to what the pipeline understands.
#pragma once

#include "cli/options.h"
#include "pipeline/augment.h"
#include "pipeline/mix.h"
#include "pipeline/source.h"

namespace rn50 {

/// Pictures for training: --image-size, --resize, --augment and all that varies pictures. For evaluation take
/// evaluation_pictures() or the checkpoint's own.
PictureOptions training_pictures(const Options& options);
PictureOptions evaluation_pictures(const Options& options);
/// --mixup, --cutmix.
MixOptions mixing(const Options& options);

/// How DATA is opened: --val-split, --seed, --label-offset.
DataOptions data_options(const Options& options);

}  // namespace rn50
