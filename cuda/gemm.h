// Matrix products by cuBLASLt.
#pragma once

#include <array>
#include <map>
#include <memory>

#include "products.h"

namespace rn50::cuda {

/// Row-major products on one stream; what cuBLASLt decides for a shape is decided once.
class Gemm {
  public:
    /// Throws Error(Exit::device).
    explicit Gemm(cudaStream_t stream);
    ~Gemm();
    Gemm(const Gemm&) = delete;
    Gemm& operator=(const Gemm&) = delete;

    static constexpr int64_t workspace_bytes = int64_t{4} << 20;
    /// As Products::gemm; `workspace` has workspace_bytes, aligned to 256. a, b and c may be aligned to their elements
    /// only.
    void run(const GemmShape& shape, const void* a, const void* b, float beta, void* c, void* workspace);

  private:
    struct Plan;
    // Transposes, tf32, dtypes, m, n, k, and the alignments that an algorithm may count on.
    using Key = std::array<int64_t, 11>;
    const Plan& plan_for(const GemmShape& shape, const void* a, const void* b, const void* c);

    cudaStream_t stream_;
    cublasLtHandle_t handle_ = nullptr;
    std::map<Key, std::unique_ptr<Plan>> plans_;
};

}  // namespace rn50::cuda
