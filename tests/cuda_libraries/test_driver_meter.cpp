// The driver's meter of free memory, on a stand-in for NVIDIA's management library.
#include <doctest/doctest.h>

#include <cstring>
#include <map>
#include <string>

#include "driver_meter.h"

using namespace rn50::cuda;

namespace {

unsigned long long free_bytes = 0;
bool knows_device = true, answers = true;

int init() {
    return 0;
}
int handle(const char* bus, void** device) {
    *device = &free_bytes;
    return knows_device && bus == std::string("0000:3b:00.0") ? 0 : 6;
}
int memory_info(void* device, unsigned long long* total_free_used) {
    if (!answers || device != &free_bytes) return 999;
    total_free_used[0] = 24000;
    total_free_used[1] = free_bytes;
    total_free_used[2] = 24000 - free_bytes;
    return 0;
}

template <class Function>
void* address(Function* function) {
    void* result;
    std::memcpy(&result, &function, sizeof result);
    return result;
}

DriverMeter meter_without(const std::string& absent, const char* bus = "0000:3b:00.0") {
    const std::map<std::string, void*> functions{{"nvmlInit_v2", address(init)},
                                                 {"nvmlDeviceGetHandleByPciBusId_v2", address(handle)},
                                                 {"nvmlDeviceGetMemoryInfo", address(memory_info)}};
    return make_driver_meter(bus, [=](const char* name) -> void* {
        const auto found = functions.find(name);
        return found == functions.end() || name == absent ? nullptr : found->second;
    });
}

}  // namespace

TEST_CASE("the driver's meter tells what is free, and keeps the last answer where there is none") {
    free_bytes = 20000;
    const DriverMeter meter = meter_without("");
    REQUIRE(meter);
    CHECK(meter() == 20000);
    free_bytes = 12345;
    CHECK(meter() == 12345);
    answers = false;
    free_bytes = 1;
    CHECK(meter() == 12345);
    answers = true;
}

TEST_CASE("there is no meter where the library lacks something, or does not know the GPU") {
    for (const char* name : {"nvmlInit_v2", "nvmlDeviceGetHandleByPciBusId_v2", "nvmlDeviceGetMemoryInfo"})
        CHECK_FALSE(meter_without(name));
    CHECK_FALSE(meter_without("", "0000:04:00.0"));
    knows_device = false;
    CHECK_FALSE(meter_without(""));
    knows_device = true;
    answers = false;
    CHECK_FALSE(meter_without(""));
    answers = true;
}
