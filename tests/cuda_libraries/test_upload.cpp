// Copies beside the computing stream, on streams that are threads: whoever does not wait finds other numbers.
#include <doctest/doctest.h>

#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "base/error.h"
#include "fake.h"
#include "upload.h"

using namespace rn50;
using namespace rn50::cuda;
using fake::world;

namespace {

struct Scene {
    Scene() {
        world = {};
        cudaStreamCreateWithFlags(&compute, cudaStreamNonBlocking);
    }
    ~Scene() {
        cudaStreamDestroy(compute);
        for (const std::string& fault : world.faults)
            FAIL_CHECK(fault);
        CHECK(world.live_streams == 0);
        CHECK(world.live_events == 0);
    }
    /// As a slow kernel would.
    void later(std::function<void()> work) const {
        fake::push(compute, [work = std::move(work)] {
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
            work();
        });
    }
    cudaStream_t compute = nullptr;
};

constexpr int64_t bytes = 4096;

Tensor tensor_of(std::vector<uint8_t>& memory) {
    return {memory.data(), DType::u8, {static_cast<int64_t>(memory.size())}};
}

}  // namespace

TEST_CASE("upload: copies wait for what reads the batch before, and computing waits for the copies") {
    const Scene scene;
    const std::unique_ptr<Upload> upload = make_upload(scene.compute);
    std::vector<uint8_t> host(bytes), small(16), device(bytes), device_small(16);
    std::vector<int> seen;
    for (int batch = 1; batch <= 20; ++batch) {
        upload->wait();  // the host's memory may change
        std::fill(host.begin(), host.end(), static_cast<uint8_t>(batch));
        std::fill(small.begin(), small.end(), static_cast<uint8_t>(batch));
        upload->begin(host.data(), tensor_of(device));
        upload->begin(small.data(), tensor_of(device_small));
        upload->use();
        scene.later([&] {
            const bool whole = device.front() == device.back() && device_small.front() == device.front();
            seen.push_back(whole ? device.front() : -1);
        });
        upload->release();
    }
    cudaStreamSynchronize(scene.compute);
    for (int batch = 1; batch <= 20; ++batch)
        CHECK(seen[static_cast<size_t>(batch - 1)] == batch);
}

TEST_CASE("upload: two of them work side by side, the next batch beside a step") {
    const Scene scene;
    const std::unique_ptr<Upload> uploads[] = {make_upload(scene.compute), make_upload(scene.compute)};
    std::vector<uint8_t> host[2], device[2];
    std::vector<int> seen;
    for (int i = 0; i < 2; ++i) {
        host[i].resize(bytes);
        device[i].resize(bytes);
    }
    for (int batch = 0; batch < 20; ++batch) {
        const int i = batch % 2;
        uploads[i]->wait();
        std::fill(host[i].begin(), host[i].end(), static_cast<uint8_t>(batch));
        uploads[i]->begin(host[i].data(), tensor_of(device[i]));
        uploads[i]->wait();  // though the step before is still under way
        uploads[i]->use();
        scene.later([&, i] { seen.push_back(device[i].front() == device[i].back() ? device[i].front() : -1); });
        uploads[i]->release();
    }
    cudaStreamSynchronize(scene.compute);
    for (int batch = 0; batch < 20; ++batch)
        CHECK(seen[static_cast<size_t>(batch)] == batch);
}

TEST_CASE("upload: what is under way is waited for at the end, and what CUDA refuses is told") {
    const Scene scene;
    std::vector<uint8_t> device(bytes, 0);
    {
        const std::vector<uint8_t> host(bytes, 7);
        const std::unique_ptr<Upload> upload = make_upload(scene.compute);
        upload->begin(host.data(), tensor_of(device));
    }
    CHECK(device.back() == 7);
    for (const char* call : {"cudaStreamCreateWithPriority", "cudaEventCreate"}) {
        world.failing = {{call, cudaErrorUnknown}};
        CHECK_THROWS_AS(make_upload(scene.compute), Error);
    }
    world.failing.clear();
    const std::unique_ptr<Upload> upload = make_upload(scene.compute);
    world.failing = {{"cudaMemcpyAsync", cudaErrorUnknown}};
    CHECK_THROWS_AS(upload->begin(device.data(), tensor_of(device)), Error);
    world.failing.clear();
}
