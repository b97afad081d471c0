// The make-believe cuBLASLt: column-major, as it is. What the heuristics find holds for the very problem they were
// asked about, at the alignments and within the workspace that were named.
#include <cstring>
#include <vector>

#include "fake.h"

namespace {

using rn50::fake::note_fault;
using rn50::fake::world;

struct Matmul {
    cublasComputeType_t compute;
    cudaDataType_t scale;
    cublasOperation_t first = CUBLAS_OP_N, second = CUBLAS_OP_N;
};
struct Layout {
    cudaDataType type;
    int64_t rows, columns, ld;
};
struct Preference {
    uint64_t workspace = 0;
    uint32_t reduction = 0, alignments[4] = {256, 256, 256, 256};
};
/// Algorithm number i + 1.
struct Decision {
    Matmul op;
    Layout a, b, c, d;
    Preference preference;
};
std::vector<Decision> decisions;

template <class T, class Opaque>
T* as(Opaque opaque) {
    return static_cast<T*>(static_cast<void*>(opaque));
}

bool same(const Layout& a, const Layout& b) {
    return a.type == b.type && a.rows == b.rows && a.columns == b.columns && a.ld == b.ld;
}

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

void write(void* memory, cudaDataType type, int64_t i, float value) {
    if (type == CUDA_R_32F) {
        static_cast<float*>(memory)[i] = value;
        return;
    }
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    static_cast<uint16_t*>(memory)[i] = static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/// What the documentation of cublasLtMatmul() says of dimensions.
bool fits_together(const Decision& p) {
    const bool ta = p.op.first == CUBLAS_OP_T, tb = p.op.second == CUBLAS_OP_T;
    bool good = (ta ? p.a.columns : p.a.rows) == p.d.rows && (tb ? p.b.rows : p.b.columns) == p.d.columns &&
                (tb ? p.b.columns : p.b.rows) == (ta ? p.a.rows : p.a.columns) && same(p.c, p.d);
    for (const Layout* layout : {&p.a, &p.b, &p.c, &p.d})
        good = good && layout->rows > 0 && layout->columns > 0 && layout->ld >= layout->rows;
    return good;
}

/// Its table of types, for what may be asked of it here: f32 sums and scales.
bool has_types(const Decision& p) {
    const bool single = p.a.type == CUDA_R_32F, half = p.a.type == CUDA_R_16F || p.a.type == CUDA_R_16BF;
    const bool compute = p.op.compute == CUBLAS_COMPUTE_32F || (single && p.op.compute == CUBLAS_COMPUTE_32F_FAST_TF32);
    return compute && p.op.scale == CUDA_R_32F && (single || half) && p.b.type == p.a.type &&
           (p.d.type == p.a.type || p.d.type == CUDA_R_32F);
}

void multiply(const Decision& p, float alpha, const void* a, const void* b, float beta, const void* c, void* d) {
    const bool ta = p.op.first == CUBLAS_OP_T, tb = p.op.second == CUBLAS_OP_T;
    const int64_t k = ta ? p.a.rows : p.a.columns;
    for (int64_t i = 0; i < p.d.rows; ++i)
        for (int64_t j = 0; j < p.d.columns; ++j) {
            double sum = 0;
            for (int64_t l = 0; l < k; ++l)
                sum += double{read(a, p.a.type, ta ? l + i * p.a.ld : i + l * p.a.ld)} *
                       double{read(b, p.b.type, tb ? j + l * p.b.ld : l + j * p.b.ld)};
            const double before = beta == 0 ? 0 : double{read(c, p.c.type, i + j * p.c.ld)};
            write(d, p.d.type, i + j * p.d.ld, static_cast<float>(double{alpha} * sum + double{beta} * before));
        }
}

}  // namespace

extern "C" {

const char* cublasLtGetStatusName(cublasStatus_t) {
    return "CUBLAS_STATUS_MADE_UP";
}
size_t cublasLtGetVersion() {
    return 120205;
}
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
    *handle = reinterpret_cast<cublasLtHandle_t>(&world);
    world.live_handles.insert(*handle);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    world.live_handles.erase(handle);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t compute, cudaDataType_t scale) {
    world.gemm_compute = compute;
    *made = reinterpret_cast<cublasLtMatmulDesc_t>(new Matmul{compute, scale});
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
    delete as<Matmul>(desc);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t name,
                                              const void* value, size_t bytes) {
    if (bytes != sizeof(cublasOperation_t)) return CUBLAS_STATUS_INVALID_VALUE;
    if (name != CUBLASLT_MATMUL_DESC_TRANSA && name != CUBLASLT_MATMUL_DESC_TRANSB) note_fault("another attribute");
    auto& into = name == CUBLASLT_MATMUL_DESC_TRANSA ? as<Matmul>(desc)->first : as<Matmul>(desc)->second;
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
    delete as<Layout>(layout);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made) {
    *made = reinterpret_cast<cublasLtMatmulPreference_t>(new Preference);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    delete as<Preference>(preference);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t name, const void* value,
                                                    size_t bytes) {
    Preference& into = *as<Preference>(preference);
    const bool large = name == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    if (bytes != (large ? 8u : 4u)) return CUBLAS_STATUS_INVALID_VALUE;
    if (large)
        std::memcpy(&into.workspace, value, bytes);
    else if (name == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK)
        std::memcpy(&into.reduction, value, bytes);
    else
        std::memcpy(&into.alignments[name - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, bytes);
    world.gemm_workspace = into.workspace;
    world.reduction_mask = into.reduction;
    std::memcpy(world.alignments, into.alignments, sizeof world.alignments);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference,
                                              int requested, cublasLtMatmulHeuristicResult_t found[], int* count) {
    ++world.gemm_heuristics;
    *count = 0;
    const Decision problem{*as<Matmul>(desc), *as<Layout>(a), *as<Layout>(b),
                           *as<Layout>(c),    *as<Layout>(d), *as<Preference>(preference)};
    if (requested < 1 || !fits_together(problem)) return CUBLAS_STATUS_INVALID_VALUE;
    if (!has_types(problem) || !world.gemm_answers) return CUBLAS_STATUS_NOT_SUPPORTED;
    decisions.push_back(problem);
    found[0] = {};
    found[0].algo.data[0] = decisions.size();
    found[0].state = world.gemm_state;
    found[0].workspaceSize = static_cast<size_t>(problem.preference.workspace);
    *count = 1;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
    if (algorithm == nullptr || algorithm->data[0] < 1 || algorithm->data[0] > decisions.size())
        return CUBLAS_STATUS_INVALID_VALUE;
    const Decision& decided = decisions[algorithm->data[0] - 1];
    const Matmul& op = *as<Matmul>(desc);
    if (op.compute != decided.op.compute || op.first != decided.op.first || op.second != decided.op.second ||
        !same(*as<Layout>(a_layout), decided.a) || !same(*as<Layout>(b_layout), decided.b) ||
        !same(*as<Layout>(c_layout), decided.c) || !same(*as<Layout>(d_layout), decided.d))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (workspace_bytes < decided.preference.workspace) return CUBLAS_STATUS_INVALID_VALUE;
    if (workspace == nullptr || reinterpret_cast<uintptr_t>(workspace) % 16 != 0) return CUBLAS_STATUS_INVALID_VALUE;
    const void* const pointers[] = {a, b, c, d};
    for (size_t i = 0; i < 4; ++i)
        if (reinterpret_cast<uintptr_t>(pointers[i]) % decided.preference.alignments[i] != 0)
            note_fault("cublasLtMatmul with less alignment than the algorithm was chosen for");
    world.clock += world.gemm_milliseconds;
    rn50::fake::push(stream,
                     [=, problem = decided, factor = *static_cast<const float*>(alpha),
                      keep = *static_cast<const float*>(beta)] { multiply(problem, factor, a, b, keep, c, d); });
    return CUBLAS_STATUS_SUCCESS;
}
}
