// Row-major products on a make-believe cuBLASLt (fake.h), and the words for errors.
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "base/error.h"
#include "fake.h"
#include "gemm.h"

using namespace rn50;
using namespace rn50::cuda;
using fake::world;

namespace {

std::vector<float> numbers(int64_t count, int seed) {
    std::vector<float> made;
    for (int64_t i = 0; i < count; ++i)
        made.push_back(static_cast<float>((i * 29 + seed * 53) % 41 - 20) / 16);
    return made;
}

}  // namespace

TEST_CASE("gemm: row-major, transposed or not, odd sizes, with and without what stood there") {
    world = {};
    Gemm gemm(nullptr);
    alignas(256) char workspace[256];
    for (const bool ta : {false, true})
        for (const bool tb : {false, true})
            for (const float beta : {0.0f, 1.0f}) {
                GemmShape shape;
                shape.transpose_a = ta;
                shape.transpose_b = tb;
                shape.m = 5;
                shape.n = 6;
                shape.k = 7;
                const auto a = numbers(5 * 7, 1), b = numbers(7 * 6, 2), before = numbers(5 * 6, 3);
                auto c = before;
                gemm.run(shape, a.data(), b.data(), beta, c.data(), workspace);
                for (int64_t i = 0; i < 5; ++i)
                    for (int64_t j = 0; j < 6; ++j) {
                        double sum = beta * before[static_cast<size_t>(i * 6 + j)];
                        for (int64_t l = 0; l < 7; ++l)
                            sum += double{a[static_cast<size_t>(ta ? l * 5 + i : i * 7 + l)]} *
                                   b[static_cast<size_t>(tb ? j * 7 + l : l * 6 + j)];
                        CHECK(c[static_cast<size_t>(i * 6 + j)] == doctest::Approx(sum));
                    }
            }
    CHECK(world.faults.empty());
}

TEST_CASE("gemm: 16-bit factors into their own type and into f32, on the stream that it was made for") {
    world = {};
    cudaStream_t stream = nullptr;
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    {
        Gemm gemm(stream);
        alignas(256) char workspace[256];
        alignas(256) uint16_t a[8] = {}, b[8], narrow[4] = {};
        alignas(256) float wide[4] = {};
        std::fill(b, b + 8, uint16_t{0x4000});  // 2
        GemmShape shape;
        shape.m = shape.n = 2;
        shape.k = 4;
        shape.ab = DType::bf16;
        fake::push(stream, [&] {  // a is there when the products' turn comes
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
            std::fill(a, a + 8, uint16_t{0x3fc0});  // 1.5
        });
        gemm.run(shape, a, b, 0, wide, workspace);
        shape.c = DType::bf16;
        gemm.run(shape, a, b, 0, narrow, workspace);
        cudaStreamSynchronize(stream);
        for (size_t i = 0; i < 4; ++i) {
            CHECK(wide[i] == 12);
            CHECK(narrow[i] == 0x4140);
        }
    }
    cudaStreamDestroy(stream);
    CHECK(world.faults.empty());
}

TEST_CASE("gemm: where cuBLASLt knows no algorithm, or takes back the one it names, an error says which product") {
    alignas(256) float a[16] = {}, b[16] = {}, c[16] = {};
    GemmShape shape;
    shape.m = shape.n = shape.k = 4;
    for (const bool answers : {false, true}) {
        world = {};
        world.gemm_answers = answers;
        if (answers) world.gemm_state = CUBLAS_STATUS_NOT_SUPPORTED;
        Gemm gemm(nullptr);
        try {
            gemm.run(shape, a, b, 0, c, c);
            FAIL_CHECK("no error");
        } catch (const Error& error) {
            CHECK(error.code() == Exit::device);
            CHECK(std::string(error.what()).find("matrix product 4x4x4 of f32 into f32: ") == 0);
            CHECK(error.remedy().find("--precision") != std::string::npos);
        }
        world = {};  // nothing of it is kept
        gemm.run(shape, a, b, 0, c, c);
        CHECK(world.gemm_heuristics == 1);
    }
}

TEST_CASE("gemm: each shape and alignment is decided once, deterministically and in f32") {
    world = {};
    Gemm gemm(nullptr);
    alignas(256) float a[512] = {}, b[512] = {}, c[512] = {};
    GemmShape shape;
    shape.m = shape.n = shape.k = 4;
    gemm.run(shape, a, b, 0, c, c);
    gemm.run(shape, a, b, 1, c, c);
    CHECK(world.gemm_heuristics == 1);
    CHECK(world.alignments[0] == 256);
    CHECK(world.gemm_workspace == Gemm::workspace_bytes);
    CHECK(world.gemm_compute == CUBLAS_COMPUTE_32F);
    CHECK((world.reduction_mask & (CUBLASLT_REDUCTION_SCHEME_INPLACE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE)) == 0);
    CHECK((world.reduction_mask & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE) != 0);
    gemm.run(shape, a + 1, b + 4, 0, c + 2, c);
    CHECK(world.gemm_heuristics == 2);
    CHECK(world.alignments[0] == 16);  // cuBLASLt's A is our B
    CHECK(world.alignments[1] == 4);
    CHECK(world.alignments[2] == 8);
    shape.tf32 = true;
    gemm.run(shape, a, b, 0, c, c);
    CHECK(world.gemm_compute == CUBLAS_COMPUTE_32F_FAST_TF32);
    shape.ab = DType::bf16;
    gemm.run(shape, a, b, 0, c, c);
    CHECK(world.gemm_compute == CUBLAS_COMPUTE_32F);
    CHECK(world.gemm_heuristics == 4);
    shape.k = 0;
    CHECK_THROWS_AS(gemm.run(shape, a, b, 0, c, c), Error);
}

TEST_CASE("check: an error of a library carries what, its words and a remedy") {
    world = {};
    const auto remedy = [](auto status) {
        try {
            check(status, "layer1.0.conv1 forward");
        } catch (const Error& error) {
            CHECK(error.code() == Exit::device);
            CHECK(std::string(error.what()).find("layer1.0.conv1 forward: ") == 0);
            return error.remedy();
        }
        return std::string("no error");
    };
    const auto says = [](const std::string& text, const char* part) {
        INFO(text);
        CHECK(text.find(part) != std::string::npos);
    };
    CHECK(remedy(cudaSuccess) == "no error");
    CHECK(remedy(CUDNN_STATUS_SUCCESS) == "no error");
    CHECK(remedy(CUBLAS_STATUS_SUCCESS) == "no error");
    says(remedy(cudaErrorNoDevice), "nvidia-smi");
    says(remedy(cudaErrorInsufficientDriver), "CUDA up to 12.2, rn50_cuda.so needs 13.0");
    world.driver = 0;
    says(remedy(cudaErrorInsufficientDriver), "not loaded");
    says(remedy(cudaErrorMemoryAllocation), "another process");
    says(remedy(cudaErrorNoKernelImageForDevice), "no code for this GPU");
    const auto contained = static_cast<cudaError_t>(226);  // unknown to the headers of CUDA 12.2
    for (const cudaError_t lost :
         {cudaErrorECCUncorrectable, cudaErrorLaunchFailure, cudaErrorIllegalAddress, contained,
          cudaErrorDeviceUninitialized, cudaErrorContextIsDestroyed, cudaErrorExternalDevice}) {
        says(remedy(lost), "the GPU was lost");
        says(remedy(lost), "--resume auto");
    }
    for (const cudaError_t shared : {cudaErrorMpsConnectionFailed, cudaErrorMpsRpcFailure, cudaErrorMpsServerNotReady,
                                     cudaErrorMpsClientTerminated})
        says(remedy(shared), "start it anew");
    for (const cudaError_t full : {cudaErrorMpsMaxClientsReached, cudaErrorMpsMaxConnectionsReached})
        says(remedy(full), "MPS, through which several programs share this GPU, takes no more");
    says(remedy(CUDNN_STATUS_NOT_SUPPORTED), "--precision");
    says(remedy(CUDNN_STATUS_EXECUTION_FAILED), "--resume");
    says(remedy(CUDNN_STATUS_NOT_INITIALIZED), "nvidia-smi");
    says(remedy(CUBLAS_STATUS_ARCH_MISMATCH), "does not serve this GPU");
    CHECK(cuda_version_text(12020) == "12.2");
    CHECK(cudnn_version_text(8907) == "8.9.7");
    CHECK(cudnn_version_text(91300) == "9.13.0");
    CHECK(cublaslt_version_text(120205) == "12.2.5");
}

TEST_CASE("the libraries: one object that names both") {
    world = {};
    setenv("RN50_AUTOTUNE", "0", 1);
    CHECK(make_products(nullptr)->name() == "cuDNN 9.1.0, cuBLASLt 12.2.5");
    unsetenv("RN50_AUTOTUNE");
}
