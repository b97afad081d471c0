// What calls libraries, within a captured graph: products give the device their work and nothing else; the copies of
// batches stay outside.
#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "base/error.h"
#include "conv_products.h"
#include "fake.h"
#include "gemm.h"
#include "upload.h"

using namespace rn50;
using namespace rn50::cuda;
using fake::world;

namespace {

struct Scene {
    Scene() {
        world = {};
        world.engines = {fake::Engine{}};
        cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    }
    ~Scene() { cudaStreamDestroy(stream); }
    cudaStream_t stream = nullptr;
};

/// Captures `work`, and launches it after each of `changes`.
void replay(cudaStream_t stream, const std::function<void()>& work, const std::vector<std::function<void()>>& changes,
            const std::function<void()>& look) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t instance = nullptr;
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    work();
    REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    REQUIRE(cudaGraphInstantiate(&instance, graph, 0) == cudaSuccess);
    cudaGraphDestroy(graph);
    for (const std::function<void()>& change : changes) {
        change();
        CHECK(cudaGraphLaunch(instance, stream) == cudaSuccess);
        cudaStreamSynchronize(stream);
        look();
    }
    cudaGraphExecDestroy(instance);
    CHECK(world.faults.empty());
}

}  // namespace

TEST_CASE("graph: convolutions that were prepared are captured") {
    const Scene scene;
    ConvShape shape;
    shape.name = "conv";
    shape.batch = 1;
    shape.height = shape.width = 2;
    shape.in_channels = shape.out_channels = 4;
    shape.kernel = shape.stride = 1;
    shape.pad = 0;
    PlannerOptions options;
    options.autotune = false;
    options.cache_folder.clear();
    const auto conv = make_conv_products(std::make_shared<ConvPlanner>(scene.stream, options), shape);
    std::vector<float> x(16), w(16, 1.0f), y(16), dx(16), dw(16);
    const auto work = [&] {
        conv->forward(1, x.data(), w.data(), y.data(), nullptr);
        conv->backward_data(y.data(), w.data(), dx.data(), nullptr);
        conv->backward_weights(x.data(), y.data(), dw.data(), nullptr);
    };
    work();
    cudaStreamSynchronize(scene.stream);
    float value = 0;
    const auto set = [&](float to) { return [&, to] { std::fill(x.begin(), x.end(), value = to); }; };
    replay(scene.stream, work, {set(1), set(3), set(2)}, [&] {
        CHECK(y == std::vector<float>(16, 4 * value));
        CHECK(dx == std::vector<float>(16, 16 * value));
        CHECK(dw == std::vector<float>(16, 16 * value * value));
    });
}

TEST_CASE("graph: matrix products whose shape was met are captured, with their factor of what was there") {
    const Scene scene;
    Gemm gemm(scene.stream);
    alignas(256) char workspace[256];
    std::vector<float> a(4), b(4, 1.0f), c(4);
    GemmShape shape;
    shape.m = shape.n = shape.k = 2;
    const auto work = [&] { gemm.run(shape, a.data(), b.data(), 1, c.data(), workspace); };
    work();
    cudaStreamSynchronize(scene.stream);
    const int decided = world.gemm_heuristics;
    const auto set = [&](float to) {
        return [&, to] {
            std::fill(a.begin(), a.end(), to);
            std::fill(c.begin(), c.end(), 100.0f);
        };
    };
    replay(scene.stream, work, {set(1), set(5)}, [&] { CHECK(c[3] == 100 + 2 * a[0]); });
    CHECK(world.gemm_heuristics == decided);
}

TEST_CASE("graph: a batch's copies are no part of it") {
    const Scene scene;
    const std::unique_ptr<Upload> upload = make_upload(scene.stream);
    std::vector<uint8_t> host(64), device(64);
    upload->begin(host.data(), {device.data(), DType::u8, {64}});
    REQUIRE(cudaStreamBeginCapture(scene.stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    CHECK_THROWS_AS(upload->use(), Error);  // the copies would be waited for once and for all
    cudaGraph_t graph = nullptr;
    CHECK(cudaStreamEndCapture(scene.stream, &graph) != cudaSuccess);
    CHECK(graph == nullptr);
    upload->use();
    upload->release();
    upload->wait();
    world.faults.clear();
}
