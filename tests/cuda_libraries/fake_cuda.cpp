#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "fake.h"

namespace {

using rn50::fake::world;

std::mutex mutex;
std::map<void*, size_t> blocks;
thread_local cudaError_t last_error = cudaSuccess;

struct Matmul {
    cublasOperation_t first = CUBLAS_OP_N, second = CUBLAS_OP_N;
};
struct Layout {
    cudaDataType type;
    int64_t rows, columns, ld;
};

float read(const void* memory, cudaDataType type, int64_t i) {
    float value;
    if (type == CUDA_R_32F) {
        std::memcpy(&value, static_cast<const float*>(memory) + i, 4);
        return value;
    }
    const uint32_t bits = uint32_t{static_cast<const uint16_t*>(memory)[i]} << 16;  // the tests use bf16
    std::memcpy(&value, &bits, 4);
    return value;
}

template <class T>
T* as(void* opaque) {
    return static_cast<T*>(opaque);
}
template <class T>
const T* as(const void* opaque) {
    return static_cast<const T*>(opaque);
}

}  // namespace

extern "C" {

// --- CUDA's runtime ----------------------------------------------------------------------------------------------
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
    std::strncpy(properties->name, world.gpu.c_str(), sizeof properties->name - 1);
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    *value = attribute == cudaDevAttrComputeCapabilityMajor ? 8 : 9;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
    *version = world.driver;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
    *version = 13000;
    return cudaSuccess;
}
const char* cudaGetErrorName(cudaError_t) {
    return "cudaErrorMadeUp";
}
const char* cudaGetErrorString(cudaError_t) {
    return "something made up";
}
cudaError_t cudaGetLastError() {
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}
cudaError_t cudaMalloc(void** memory, size_t bytes) {
    rn50::fake::refuse_in_capture("cudaMalloc");
    if (const cudaError_t status = rn50::fake::told("cudaMalloc")) return status;
    const std::lock_guard<std::mutex> lock(mutex);
    if (world.allocated + static_cast<int64_t>(bytes) > world.free_memory)
        return last_error = cudaErrorMemoryAllocation;
    *memory = std::malloc(bytes);
    blocks[*memory] = bytes;
    world.allocated += static_cast<int64_t>(bytes);
    return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
    if (memory == nullptr) return cudaSuccess;
    rn50::fake::drain();
    const std::lock_guard<std::mutex> lock(mutex);
    world.allocated -= static_cast<int64_t>(blocks.at(memory));
    blocks.erase(memory);
    std::free(memory);
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
    std::memset(memory, value, bytes);
    return cudaSuccess;
}
// --- cuBLASLt, column-major as it is -----------------------------------------------------------------------------
const char* cublasLtGetStatusName(cublasStatus_t) {
    return "CUBLAS_STATUS_MADE_UP";
}
size_t cublasLtGetVersion() {
    return 120205;
}
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
    *handle = reinterpret_cast<cublasLtHandle_t>(&world);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t) {
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t compute, cudaDataType_t) {
    world.gemm_compute = compute;
    *made = reinterpret_cast<cublasLtMatmulDesc_t>(new Matmul);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
    delete as<Matmul>(static_cast<void*>(desc));
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t name,
                                              const void* value, size_t bytes) {
    if (bytes != sizeof(cublasOperation_t)) return CUBLAS_STATUS_INVALID_VALUE;
    auto& into = name == CUBLASLT_MATMUL_DESC_TRANSA ? as<Matmul>(static_cast<void*>(desc))->first
                                                     : as<Matmul>(static_cast<void*>(desc))->second;
    std::memcpy(&into, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* made, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t ld) {
    *made = reinterpret_cast<cublasLtMatrixLayout_t>(
        new Layout{type, static_cast<int64_t>(rows), static_cast<int64_t>(columns), ld});
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    delete as<Layout>(static_cast<void*>(layout));
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made) {
    *made = reinterpret_cast<cublasLtMatmulPreference_t>(&world);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t) {
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t,
                                                    cublasLtMatmulPreferenceAttributes_t name, const void* value,
                                                    size_t bytes) {
    const bool large = name == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    if (bytes != (large ? 8u : 4u)) return CUBLAS_STATUS_INVALID_VALUE;
    if (large)
        std::memcpy(&world.gemm_workspace, value, bytes);
    else if (name == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK)
        std::memcpy(&world.reduction_mask, value, bytes);
    else
        std::memcpy(&world.alignments[name - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatmulPreference_t, int, cublasLtMatmulHeuristicResult_t found[],
                                              int* count) {
    ++world.gemm_heuristics;
    found[0] = {};
    *count = 1;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t*, void*, size_t,
                              cudaStream_t) {
    const Matmul& op = *as<Matmul>(static_cast<void*>(desc));
    const Layout la = *as<Layout>(static_cast<void*>(a_layout)), lb = *as<Layout>(static_cast<void*>(b_layout)),
                 ld = *as<Layout>(static_cast<void*>(d_layout));
    const bool ta = op.first == CUBLAS_OP_T, tb = op.second == CUBLAS_OP_T;
    const int64_t k = ta ? la.rows : la.columns;
    if ((ta ? la.columns : la.rows) != ld.rows || (tb ? lb.rows : lb.columns) != ld.columns ||
        (tb ? lb.columns : lb.rows) != k || la.ld < la.rows || lb.ld < lb.rows || ld.ld < ld.rows)
        return CUBLAS_STATUS_INVALID_VALUE;
    for (int64_t i = 0; i < ld.rows; ++i)
        for (int64_t j = 0; j < ld.columns; ++j) {
            double sum = 0;
            for (int64_t l = 0; l < k; ++l)
                sum += double{read(a, la.type, ta ? l + i * la.ld : i + l * la.ld)} *
                       read(b, lb.type, tb ? j + l * lb.ld : l + j * lb.ld);
            const float before = *as<float>(beta) == 0 ? 0 : read(c, ld.type, i + j * ld.ld);
            static_cast<float*>(d)[i + j * ld.ld] =
                static_cast<float>(*as<float>(alpha) * sum + *as<float>(beta) * before);
        }
    return CUBLAS_STATUS_SUCCESS;
}
}
