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
    /// As Products::gemm. `workspace` has `most` bytes, or what workspace_needed() answered for the same `most`, and is
    /// aligned to 256. a, b and c may be aligned to their elements only.
    void run(const GemmShape& shape, const void* a, const void* b, float beta, void* c, void* workspace,
             int64_t most = workspace_bytes);
    /// What run() takes of a workspace of `most` bytes for matrices that are aligned to 256. Sums over many elements of
    /// k are split between multiprocessors, whose parts meet there. Throws Error(Exit::device) when cuBLASLt has no
    /// algorithm.
    int64_t workspace_needed(const GemmShape& shape, int64_t most);

  private:
    struct Plan;
    /// What an algorithm may count on; in bytes.
    struct Limits {
        uint32_t a, b, c;  ///< alignments
        int64_t workspace;
    };
    // Transposes, tf32, dtypes, m, n, k, and the limits.
    using Key = std::array<int64_t, 12>;
    const Plan& plan_for(const GemmShape& shape, const Limits& limits);

    cudaStream_t stream_;
    cublasLtHandle_t handle_ = nullptr;
    std::map<Key, std::unique_ptr<Plan>> plans_;
};

}  // namespace rn50::cuda
