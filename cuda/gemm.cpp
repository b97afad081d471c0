#include "gemm.h"

#include "base/error.h"

namespace rn50::cuda {

namespace {

cudaDataType_t data_type(DType dtype) {
    switch (dtype) {
        case DType::f32:
            return CUDA_R_32F;
        case DType::f16:
            return CUDA_R_16F;
        case DType::bf16:
            return CUDA_R_16BF;
        default:
            RN50_REQUIRE(false, "matrix products of ", name_of(dtype));
            return CUDA_R_32F;
    }
}

/// The largest power of two up to 256 that divides the address.
uint32_t alignment_of(const void* pointer) {
    const auto address = reinterpret_cast<uintptr_t>(pointer);
    const uintptr_t lowest = address & (~address + 1);
    return lowest == 0 || lowest > 256 ? 256 : static_cast<uint32_t>(lowest);
}

std::string describe(const GemmShape& s) {
    return cat("matrix product ", s.m, "x", s.n, "x", s.k, " of ", s.tf32 ? "tf32" : name_of(s.ab), " into ",
               name_of(s.c));
}

struct DestroyMatmul {
    void operator()(cublasLtMatmulDesc_t desc) const { cublasLtMatmulDescDestroy(desc); }
};
struct DestroyLayout {
    void operator()(cublasLtMatrixLayout_t layout) const { cublasLtMatrixLayoutDestroy(layout); }
};
struct DestroyPreference {
    void operator()(cublasLtMatmulPreference_t preference) const { cublasLtMatmulPreferenceDestroy(preference); }
};
using Matmul = std::unique_ptr<std::remove_pointer_t<cublasLtMatmulDesc_t>, DestroyMatmul>;
using Layout = std::unique_ptr<std::remove_pointer_t<cublasLtMatrixLayout_t>, DestroyLayout>;
using Preference = std::unique_ptr<std::remove_pointer_t<cublasLtMatmulPreference_t>, DestroyPreference>;

/// f32 sums; with f32 factors this rounds nothing, unless tf32 is asked for.
Matmul make_matmul(const GemmShape& s, cublasOperation_t first, cublasOperation_t second) {
    cublasLtMatmulDesc_t raw = nullptr;
    const cublasComputeType_t compute =
        s.ab == DType::f32 && s.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    check(cublasLtMatmulDescCreate(&raw, compute, CUDA_R_32F), "cublasLtMatmulDescCreate");
    Matmul made(raw);
    check(cublasLtMatmulDescSetAttribute(raw, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first), "cuBLASLt transa");
    check(cublasLtMatmulDescSetAttribute(raw, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second), "cuBLASLt transb");
    return made;
}

/// A row-major {rows, columns} matrix is a column-major one of {columns, rows}.
Layout make_layout(DType dtype, int64_t rows, int64_t columns) {
    cublasLtMatrixLayout_t raw = nullptr;
    check(cublasLtMatrixLayoutCreate(&raw, data_type(dtype), static_cast<uint64_t>(columns),
                                     static_cast<uint64_t>(rows), columns),
          "cublasLtMatrixLayoutCreate");
    return Layout(raw);
}

template <class T>
void prefer(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t name, T value) {
    check(cublasLtMatmulPreferenceSetAttribute(preference, name, &value, sizeof value), "cuBLASLt preference");
}

Preference make_preference(uint32_t first, uint32_t second, uint32_t result, int64_t workspace) {
    cublasLtMatmulPreference_t raw = nullptr;
    check(cublasLtMatmulPreferenceCreate(&raw), "cublasLtMatmulPreferenceCreate");
    Preference made(raw);
    prefer(raw, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(workspace));
    // Split sums meet in f32 and in a fixed order: not in the result's own dtype.
    prefer(raw, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    prefer(raw, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, first);
    prefer(raw, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, second);
    prefer(raw, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, result);
    prefer(raw, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, result);
    return made;
}

}  // namespace

/// cuBLASLt is column-major. Row-major C = op(A) op(B) is column-major C^T = op(B)^T op(A)^T, and a row-major matrix
/// read as column-major is already its transpose: so B comes first and A second, each with its own transposition.
struct Gemm::Plan {
    Matmul matmul;
    Layout first, second, result;
    cublasLtMatmulAlgo_t algorithm{};
    size_t workspace = 0;  ///< bytes
};

Gemm::Gemm(cudaStream_t stream) : stream_(stream) {
    check(cublasLtCreate(&handle_), "cublasLtCreate");
}

Gemm::~Gemm() {
    if (device_lives()) cublasLtDestroy(handle_);
}

const Gemm::Plan& Gemm::plan_for(const GemmShape& s, const Limits& limits) {
    const Key key{s.transpose_a,
                  s.transpose_b,
                  s.tf32,
                  static_cast<int64_t>(s.ab),
                  static_cast<int64_t>(s.c),
                  s.m,
                  s.n,
                  s.k,
                  limits.a,
                  limits.b,
                  limits.c,
                  limits.workspace};
    auto& plan = plans_[key];
    if (plan) return *plan;
    auto made = std::make_unique<Plan>();
    made->matmul = make_matmul(s, s.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N, s.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    made->first = s.transpose_b ? make_layout(s.ab, s.n, s.k) : make_layout(s.ab, s.k, s.n);
    made->second = s.transpose_a ? make_layout(s.ab, s.k, s.m) : make_layout(s.ab, s.m, s.k);
    made->result = make_layout(s.c, s.m, s.n);
    const Preference preference = make_preference(limits.b, limits.a, limits.c, limits.workspace);
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle_, made->matmul.get(), made->first.get(), made->second.get(),
                                       made->result.get(), made->result.get(), preference.get(), 1, &found, &count);
    if (status != CUBLAS_STATUS_NOT_SUPPORTED) check(status, describe(s));
    if (count == 0) check(CUBLAS_STATUS_NOT_SUPPORTED, describe(s));
    check(found.state, describe(s));  // an answer may be counted and say of itself that it is none
    made->algorithm = found.algo;
    made->workspace = found.workspaceSize;
    plan = std::move(made);
    return *plan;
}

int64_t Gemm::workspace_needed(const GemmShape& shape, int64_t most) {
    return static_cast<int64_t>(plan_for(shape, {256, 256, 256, most}).workspace);
}

void Gemm::run(const GemmShape& shape, const void* a, const void* b, float beta, void* c, void* workspace,
               int64_t most) {
    RN50_REQUIRE(shape.m > 0 && shape.n > 0 && shape.k > 0, "an empty ", describe(shape));
    RN50_REQUIRE(shape.c == shape.ab || shape.c == DType::f32, describe(shape));
    const Plan& plan = plan_for(shape, {alignment_of(a), alignment_of(b), alignment_of(c), most});
    const float alpha = 1;
    const cublasStatus_t status =
        cublasLtMatmul(handle_, plan.matmul.get(), &alpha, b, plan.first.get(), a, plan.second.get(), &beta, c,
                       plan.result.get(), c, plan.result.get(), &plan.algorithm, workspace, plan.workspace, stream_);
    if (status != CUBLAS_STATUS_SUCCESS) check(status, describe(shape));
}

}  // namespace rn50::cuda
