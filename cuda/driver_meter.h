// The free memory of a GPU as NVIDIA's management library tells it, which takes no memory of the GPU itself: CUDA can
// only be asked once its context is there.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace rn50::cuda {

/// Bytes that are free now; absent: the library is not there, or does not tell.
using DriverMeter = std::function<int64_t()>;

/// Of the GPU at this place on PCI ("0000:3b:00.0").
DriverMeter make_driver_meter(const std::string& bus);
/// The same with a library whose functions `find` gives by name; null where it has none.
DriverMeter make_driver_meter(const std::string& bus, const std::function<void*(const char*)>& find);

}  // namespace rn50::cuda
