// A make-believe cuDNN (fake.h) with three engines, for the tests of convolutions.
#pragma once

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "conv_products.h"
#include "fake.h"

namespace rn50::fake {

using cuda::ConvPlanner;
using cuda::ConvProducts;
using cuda::ConvShape;
using cuda::PlannerOptions;
using Phase = ConvProducts::Phase;

/// A fresh world and a folder of its own; at the end no call may have broken the documentation, and all is given back.
struct Scene {
    Scene() {
        world = {};
        world.engines = {{1, {}, {}, {}, 3.0f}, {2, {}, {}, {{2, 7}, {18, 1}}, 1.0f}, {3, {}, {}, {}, 2.0f}};
        folder = std::filesystem::temp_directory_path() / cat("rn50-plans-", getpid());
        std::filesystem::remove_all(folder);
        options.cache_folder = folder.string();
        log::set_quiet(true);
    }
    ~Scene() {
        std::filesystem::remove_all(folder);
        log::set_quiet(false);
        for (const std::string& fault : world.faults)
            FAIL_CHECK(fault);
        CHECK(world.live_descriptors == 0);
        CHECK(world.live_handles.empty());
        CHECK(world.allocated == 0);
    }
    /// From now on all engines use Tensor Cores, as those for 16-bit factors do.
    static void tensor_cores() {
        for (Engine& engine : world.engines)
            engine.numerical.push_back(CUDNN_NUMERICAL_NOTE_TENSOR_CORE);
    }
    std::unique_ptr<ConvProducts> conv(const ConvShape& shape) {
        return make_conv_products(std::make_shared<ConvPlanner>(nullptr, options), shape);
    }
    /// The engine that a forward of this shape runs on.
    int64_t engine_for(const ConvShape& shape) {
        const auto made = conv(shape);
        return engine_of(*made, shape, shape.batch);
    }
    static int64_t engine_of(ConvProducts& made, const ConvShape& shape, int64_t batch) {
        const auto bytes = [](int64_t count) { return std::vector<float>(static_cast<size_t>(count)); };
        auto x = bytes(shape.batch * shape.height * shape.width * shape.in_channels);
        auto w = bytes(shape.out_channels * shape.kernel * shape.kernel * shape.in_channels);
        auto y = bytes(shape.batch * shape.out_height() * shape.out_width() * shape.out_channels);
        float workspace = 0;
        made.forward(batch, x.data(), w.data(), y.data(), &workspace);
        return world.last_engine;
    }
    std::string cache_file() const {
        std::string found;
        for (const auto& entry : std::filesystem::directory_iterator(folder)) {
            CHECK(found.empty());
            found = entry.path().string();
        }
        return found;
    }

    PlannerOptions options;
    std::filesystem::path folder;
};

inline ConvShape small(DType dtype = DType::f32) {
    ConvShape shape;
    shape.name = "layer1.0.conv2";
    shape.batch = 3;
    shape.height = 5;
    shape.width = 6;
    shape.in_channels = 4;
    shape.out_channels = 8;
    shape.kernel = 3;
    shape.stride = 2;
    shape.pad = 1;
    shape.dtype = dtype;
    return shape;
}

inline ConvShape inference(DType dtype = DType::f32) {
    ConvShape shape = small(dtype);
    shape.training = false;
    return shape;
}

}  // namespace rn50::fake
