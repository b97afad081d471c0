// A set of JPEGs drawn into memory, to measure loading where there is no data set.
#pragma once

#include <memory>

#include "pipeline/source.h"

namespace rn50 {

/// 100,000 pictures of ten classes: 64 different JPEGs of side x side pixels (quality 90, about as large as photographs
/// of that size), again and again. The same at every call.
std::unique_ptr<Source> make_drawn_source(int64_t side);

}  // namespace rn50
