#include "driver_meter.h"

#include <dlfcn.h>

#include <cstring>

namespace rn50::cuda {

namespace {

// Of nvml.h, whose functions and structs keep their names and forms for good.
struct NvmlMemory {
    unsigned long long total, free, used;
};
using NvmlDevice = struct NvmlDeviceTag*;
constexpr int nvml_success = 0;

struct Nvml {
    int (*Init)() = nullptr;
    int (*DeviceGetHandleByPciBusId)(const char* bus, NvmlDevice* device) = nullptr;
    int (*DeviceGetMemoryInfo)(NvmlDevice device, NvmlMemory* memory) = nullptr;
};

template <class Function>
bool look(const std::function<void*(const char*)>& find, const char* name, Function& function) {
    void* const found = find(name);
    std::memcpy(&function, &found, sizeof found);
    return found != nullptr;
}

}  // namespace

DriverMeter make_driver_meter(const std::string& bus, const std::function<void*(const char*)>& find) {
    Nvml nvml;
    NvmlDevice device = nullptr;
    NvmlMemory memory{};
    if (!look(find, "nvmlInit_v2", nvml.Init) ||
        !look(find, "nvmlDeviceGetHandleByPciBusId_v2", nvml.DeviceGetHandleByPciBusId) ||
        !look(find, "nvmlDeviceGetMemoryInfo", nvml.DeviceGetMemoryInfo) || nvml.Init() != nvml_success ||
        nvml.DeviceGetHandleByPciBusId(bus.c_str(), &device) != nvml_success ||
        nvml.DeviceGetMemoryInfo(device, &memory) != nvml_success)
        return nullptr;
    return [nvml, device, last = static_cast<int64_t>(memory.free)]() mutable {
        NvmlMemory now{};
        if (nvml.DeviceGetMemoryInfo(device, &now) == nvml_success) last = static_cast<int64_t>(now.free);
        return last;
    };
}

DriverMeter make_driver_meter(const std::string& bus) {
    // It comes with the driver, and stays loaded.
    void* const library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return nullptr;
    return make_driver_meter(bus, [library](const char* name) { return dlsym(library, name); });
}

}  // namespace rn50::cuda
