#include "base/error.h"
#include "conv_products.h"
#include "gemm.h"

namespace rn50::cuda {

namespace {

class Libraries final : public Products {
  public:
    explicit Libraries(cudaStream_t stream)
        : planner_(std::make_shared<ConvPlanner>(stream, PlannerOptions::from_environment())),
          gemm_(planner_->gemm()) {}

    std::string name() const override {
        return cat("cuDNN ", cudnn_version_text(cudnnGetVersion()), ", cuBLASLt ",
                   cublaslt_version_text(cublasLtGetVersion()));
    }
    std::unique_ptr<ConvProducts> conv(const ConvShape& shape) override { return make_conv_products(planner_, shape); }
    int64_t gemm_workspace_bytes() const override { return Gemm::workspace_bytes; }
    void gemm(const GemmShape& shape, const void* a, const void* b, float beta, void* c, void* workspace) override {
        gemm_.run(shape, a, b, beta, c, workspace);
    }

  private:
    std::shared_ptr<ConvPlanner> planner_;
    Gemm& gemm_;
};

}  // namespace

std::unique_ptr<Products> make_products(cudaStream_t stream) {
    return std::make_unique<Libraries>(stream);
}

}  // namespace rn50::cuda
