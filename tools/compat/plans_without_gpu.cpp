// Asks the real cuDNN of this machine, without a GPU, for a plan of every convolution of ResNet-50 on GPUs from Turing
// to Blackwell, through the very code of cuda/. From version 9.8 on, cuDNN plans for a device that is only described;
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

/// True when every phase of every layer has a plan, and the tail of a batch too.
bool survey(const Gpu& gpu, const Precision& precision, int64_t batch, int64_t image) {
    PlannerOptions options;
    options.autotune = false;
    const auto planner = std::make_shared<ConvPlanner>(nullptr, options);
    int64_t workspace = 0, plans = 0, wide = 0, asked = 0;
    try {
        for (const Layer& layer : layers(image)) {
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
            plans += shape.backward_data ? 3 : 2;
            ++asked;
        }
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
