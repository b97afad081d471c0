// Asks the real cuDNN of this machine, without a GPU, for a plan of every convolution of ResNet-50 and of the tests on
// GPUs from Turing to Blackwell, and whether each can be made again from what is kept of it, through the very code of
// cuda/. From version 9.8 on, cuDNN plans for a device that is only described;
// the description takes the place of the handle by --wrap (check_compat.sh has the command). What JSON it is written in
// is not documented: a version that wants another says so, and then nothing is proven.
//
//   plans_without_gpu [BATCH [IMAGE_SIZE]]
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>

#include "base/error.h"
#include "base/math.h"
#include "conv_products.h"

using namespace rn50;
using namespace rn50::cuda;

namespace {

struct Gpu {
    const char* name;
    int capability, multiprocessors, shared_memory, blocks, threads;
    int64_t memory, l2;
};

constexpr Gpu gpus[] = {
    {"NVIDIA GeForce RTX 2080 Ti", 750, 68, 65536, 16, 1024, 11'000'000'000, 5767168},
    {"NVIDIA A100", 800, 108, 166912, 32, 2048, 40'000'000'000, 41943040},
    {"NVIDIA GeForce RTX 3090", 860, 82, 101376, 16, 1536, 24'000'000'000, 6291456},
    {"NVIDIA GeForce RTX 4090", 890, 128, 101376, 24, 1536, 24'000'000'000, 75497472},
    {"NVIDIA H200", 900, 132, 232448, 32, 2048, 141'000'000'000, 52428800},
    {"NVIDIA B200", 1000, 148, 232448, 32, 2048, 180'000'000'000, 132644864},
    {"NVIDIA GeForce RTX 5090", 1200, 170, 101376, 24, 1536, 32'000'000'000, 100663296},
};

std::string described(const Gpu& gpu) {
    return cat(R"({"maxGridSize":[2147483647,65535,65535],"maxBlockSize":[1024,1024,64],"regsPerBlock":65536,)",
               R"("warpSize":32,"maxSharedMemoryPerBlock":49152,"reservedSharedMemoryPerBlock":1024,)",
               R"("maxRegistersPerSM":65536,"maxThreadsPerBlock":1024,"pciDeviceId":0,"isTccDriver":0,)",
               R"("supportCoopLaunch":1,"smClockRateKHz":1700000,"memClockRateKHz":5000000,"cudaDeviceId":0,)",
               R"("driverVer":13000,"deviceVer":)", gpu.capability, R"(,"multiProcessorCount":)", gpu.multiprocessors,
               R"(,"maxSharedMemoryPerBlockOptin":)", gpu.shared_memory, R"(,"maxCtasPerSM":)", gpu.blocks,
               R"(,"maxThreadsPerSM":)", gpu.threads, R"(,"totalGlobalMem":)", gpu.memory, R"(,"l2CacheSize":)", gpu.l2,
               R"(,"deviceName":")", gpu.name, R"("})");
}

cudnnBackendDescriptor_t device = nullptr;
std::map<cudnnBackendDescriptor_t, cudnnBackendDescriptorType_t> types;

struct Layer {
    int64_t side, in, out, kernel, stride;
};

/// The convolutions of tests/test_ops_conv.cpp and test_ops_infer.cpp, small and odd, before their channels are padded:
/// batch, height, width, channels in and out, kernel, stride, padding.
constexpr int64_t of_tests[][8] = {
    {1, 1, 1, 5, 3, 1, 1, 0},     {3, 7, 5, 13, 19, 1, 1, 0},  {2, 9, 7, 16, 32, 1, 2, 0},
    {1, 8, 8, 24, 40, 3, 1, 1},   {3, 7, 9, 12, 20, 3, 2, 1},  {5, 1, 1, 7, 9, 3, 1, 1},
    {1, 3, 3, 8, 8, 3, 2, 1},     {2, 2, 1, 33, 17, 1, 2, 0},  {2, 14, 14, 64, 64, 3, 1, 1},
    {4, 7, 7, 128, 256, 1, 1, 0}, {1, 12, 11, 3, 24, 7, 2, 3}, {2, 17, 19, 3, 20, 7, 2, 3},
    {3, 5, 6, 3, 8, 3, 1, 1},     {1, 3, 3, 1, 1, 3, 1, 1},    {3, 24, 24, 4, 12, 1, 1, 0},
    {2, 9, 9, 1, 9, 1, 1, 0},     {2, 7, 9, 16, 24, 3, 2, 1},  {2, 6, 5, 24, 12, 1, 1, 0},
    {1, 7, 7, 20, 28, 1, 2, 0},   {1, 9, 9, 16, 32, 1, 2, 0},  {8, 6, 6, 24, 40, 3, 1, 1},
    {2, 19, 17, 3, 24, 7, 2, 3},  {2, 5, 5, 10, 6, 3, 1, 1},
};

/// The distinct convolutions of ResNet-50 v1.5 at an image size.
std::vector<Layer> layers(int64_t image) {
    std::vector<Layer> all{{image, 8, 64, 7, 2}, {image / 4, 64, 64, 1, 1}};
    int64_t side = image / 4, in = 64;
    for (const int64_t width : {64, 128, 256, 512}) {
        const int64_t stride = width == 64 ? 1 : 2, out = 4 * width;
        all.insert(all.end(), {{side, in, width, 1, 1},
                               {side, width, width, 3, stride},
                               {side, in, out, 1, stride},
                               {side / stride, width, out, 1, 1},
                               {side / stride, out, width, 1, 1},
                               {side / stride, width, width, 3, 1}});
        side /= stride;
        in = out;
    }
    return all;
}

struct Precision {
    const char* name;
    DType dtype;
    bool tf32;
};

ConvShape shape_of(const Layer& layer, const Precision& precision, int64_t batch) {
    ConvShape shape;
    shape.name = cat(layer.kernel, "x", layer.kernel, " ", layer.in, " to ", layer.out, " at ", layer.side);
    shape.batch = batch;
    shape.height = shape.width = layer.side;
    shape.in_channels = layer.in;
    shape.out_channels = layer.out;
    shape.kernel = layer.kernel;
    shape.stride = layer.stride;
    shape.pad = layer.kernel / 2;
    shape.dtype = precision.dtype;
    shape.tf32 = precision.tf32;
    return shape;
}

/// What is kept of a plan must make that plan again: a later start or a resumed run takes no other.
void require_restored(const CudnnHandle& handle, const ConvShape& shape) {
    for (const auto phase :
         {ConvProducts::Phase::forward, ConvProducts::Phase::backward_data, ConvProducts::Phase::backward_weights}) {
        const auto graph = std::make_shared<const ConvGraph>(handle, shape, phase, shape.dtype);
        for (EngineConfig& config : graph->propose(CUDNN_HEUR_MODE_A)) {
            if (!allowed(shape, config.numerical_notes, config.behavior_notes)) continue;
            const auto plan = ConvPlan::make(handle, graph, std::move(config));
            if (!plan) continue;
            auto again = graph->restore(plan->choice());
            const auto made = again.empty() ? nullptr : ConvPlan::make(handle, graph, std::move(again[0]));
            if (!made || !(made->choice() == plan->choice()) || made->workspace_bytes() != plan->workspace_bytes())
                throw Error(Exit::device, cat("engine ", plan->choice().engine, " is not made again for ", shape.name));
        }
    }
}

void require_plans_of_tests(const std::shared_ptr<ConvPlanner>& planner, const Precision& precision) {
    const int64_t multiple = precision.dtype == DType::f32 ? 4 : 8;
    for (const auto& [batch, height, width, in, out, kernel, stride, pad] : of_tests) {
        ConvShape shape =
            shape_of({height, align_up(in, multiple), align_up(out, multiple), kernel, stride}, precision, batch);
        shape.width = width;
        shape.pad = pad;
        make_conv_products(planner, shape);
    }
}

/// True when every phase of every layer has a plan, which can be made again, and the tail of a batch too.
bool survey(const Gpu& gpu, const Precision& precision, int64_t batch, int64_t image) {
    PlannerOptions options;
    options.autotune = false;
    const auto planner = std::make_shared<ConvPlanner>(nullptr, options);
    int64_t workspace = 0, plans = 0, wide = 0, asked = 0;
    try {
        for (const Layer& layer : layers(image)) {
            ConvShape shape = shape_of(layer, precision, batch);
            shape.backward_data = layer.side != image;  // nobody wants the gradient of a picture
            const auto conv = make_conv_products(planner, shape);
            for (const auto phase : {ConvProducts::Phase::forward, ConvProducts::Phase::backward_data,
                                     ConvProducts::Phase::backward_weights})
                workspace = std::max(workspace, conv->workspace_bytes(phase));
            wide += conv->diff_weights_dtype() == DType::f32;
            const auto whole = planner->best(shape, ConvProducts::Phase::forward, shape.dtype);
            ConvShape tail = shape;
            tail.batch = 1;
            if (!planner->smaller(tail, *whole, whole->workspace_bytes()))
                throw Error(Exit::device, cat("no plan for the tail of ", shape.name));
            require_restored(planner->handle(), shape);
            plans += shape.backward_data ? 3 : 2;
            ++asked;
        }
        require_plans_of_tests(planner, precision);
    } catch (const Error& error) {
        std::printf("%-28s %s: %s\n", gpu.name, precision.name, error.what());
        return false;
    }
    std::printf("%-28s %s: %lld plans, workspace at most %.1f MB, f32 weight gradients from %lld of %lld layers\n",
                gpu.name, precision.name, static_cast<long long>(plans), static_cast<double>(workspace) / 1e6,
                static_cast<long long>(wide), static_cast<long long>(asked));
    return true;
}

}  // namespace

extern "C" {

cudnnStatus_t __real_cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t, cudnnBackendDescriptor_t*);
cudnnStatus_t __real_cudnnBackendSetAttribute(cudnnBackendDescriptor_t, cudnnBackendAttributeName_t,
                                              cudnnBackendAttributeType_t, int64_t, const void*);
cudnnStatus_t __real_cudnnBackendFinalize(cudnnBackendDescriptor_t);

cudnnStatus_t __wrap_cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t* made) {
    const cudnnStatus_t status = __real_cudnnBackendCreateDescriptor(type, made);
    types[*made] = type;
    return status;
}
cudnnStatus_t __wrap_cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                              cudnnBackendAttributeType_t type, int64_t count, const void* values) {
    if (name == CUDNN_ATTR_OPERATIONGRAPH_HANDLE || name == CUDNN_ATTR_EXECUTION_PLAN_HANDLE)
        return CUDNN_STATUS_SUCCESS;
    return __real_cudnnBackendSetAttribute(descriptor, name, type, count, values);
}
cudnnStatus_t __wrap_cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
    const auto describe = [&](cudnnBackendAttributeName_t name) {
        __real_cudnnBackendSetAttribute(descriptor, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &device);
    };
    if (types[descriptor] == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR) describe(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP);
    if (types[descriptor] == CUDNN_BACKEND_ENGINE_DESCRIPTOR) describe(CUDNN_ATTR_ENGINE_DEVICEPROP);
    return __real_cudnnBackendFinalize(descriptor);
}
cudnnStatus_t __wrap_cudnnCreate(cudnnHandle_t* handle) {
    *handle = reinterpret_cast<cudnnHandle_t>(&device);
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t __wrap_cudnnDestroy(cudnnHandle_t) {
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t __wrap_cudnnSetStream(cudnnHandle_t, cudaStream_t) {
    return CUDNN_STATUS_SUCCESS;
}
cudaError_t __wrap_cudaGetDevice(int* index) {
    *index = 0;
    return cudaSuccess;
}
cudaError_t __wrap_cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
    std::strcpy(properties->name, "described");
    return cudaSuccess;
}
cudaError_t __wrap_cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
    *value = 0;
    return cudaSuccess;
}
cudaError_t __wrap_cudaDriverGetVersion(int* version) {
    *version = 13000;
    return cudaSuccess;
}
}

int main(int argc, char** argv) {
    const int64_t batch = argc > 1 ? std::atoll(argv[1]) : 256, image = argc > 2 ? std::atoll(argv[2]) : 224;
    std::printf("cuDNN %s, batch %lld, %lld px\n", cudnn_version_text(cudnnGetVersion()).c_str(),
                static_cast<long long>(batch), static_cast<long long>(image));
    bool all = true;
    for (const Gpu& gpu : gpus) {
        const std::string json = described(gpu);
        __real_cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &device);
        __real_cudnnBackendSetAttribute(device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                                        static_cast<int64_t>(json.size()), json.data());
        if (__real_cudnnBackendFinalize(device) != CUDNN_STATUS_SUCCESS) {
            std::printf("this cuDNN does not take the description of a GPU: nothing is proven\n");
            return 2;
        }
        for (const Precision& precision : {Precision{"fp32", DType::f32, false}, Precision{"tf32", DType::f32, true},
                                           Precision{"fp16", DType::f16, false}, Precision{"bf16", DType::bf16, false}})
            // Turing has no bf16.
            all = survey(gpu, precision, batch, image) || (gpu.capability < 800 && precision.dtype == DType::bf16)
                      ? all
                      : false;
        cudnnBackendDestroyDescriptor(device);
    }
    return all ? 0 : 1;
}
