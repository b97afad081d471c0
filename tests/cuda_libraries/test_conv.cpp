// The convolutions of cuda/ on a make-believe cuDNN (fake.h): the numbers, and which plan is taken.
#include <doctest/doctest.h>

#include <chrono>
#include <cstring>
#include <set>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "captured_stderr.h"
#include "conv_scene.h"
#include "fake.h"
#include "gemm.h"
#include "ledger.h"
#include "naive.h"

using namespace rn50;
using namespace rn50::cuda;
using fake::Engine;
using fake::inference;
using fake::Scene;
using fake::small;
using fake::world;
using Phase = ConvProducts::Phase;

namespace {

ConvDesc desc_of(const ConvShape& s) {
    ConvDesc desc;
    desc.batch = s.batch;
    desc.height = s.height;
    desc.width = s.width;
    desc.in_channels = s.in_channels;
    desc.out_channels = s.out_channels;
    desc.kernel = s.kernel;
    desc.stride = s.stride;
    desc.pad = s.pad;
    return desc;
}

naive::Array numbers(const Shape& shape, int seed) {
    naive::Array made(shape);
    for (int64_t i = 0; i < made.count(); ++i)
        made[i] = static_cast<double>((i * 37 + seed * 101) % 61 - 30) / 32;  // exact in bf16
    return made;
}

/// Memory as the dtype wants it, filled with rubbish unless there are values.
struct Buffer {
    Buffer(DType of, const naive::Array& from) : dtype(of), bytes(static_cast<size_t>(from.count() * size_of(of))) {
        for (int64_t i = 0; i < from.count(); ++i) {
            const auto single = static_cast<float>(from[i]);
            uint32_t bits;
            std::memcpy(&bits, &single, 4);
            const auto half = static_cast<uint16_t>(bits >> 16);
            if (of == DType::f32)
                std::memcpy(&bytes[static_cast<size_t>(i) * 4], &single, 4);
            else
                std::memcpy(&bytes[static_cast<size_t>(i) * 2], &half, 2);
        }
    }
    Buffer(DType of, int64_t count) : dtype(of), bytes(static_cast<size_t>(count * size_of(of)), 0x7f) {}
    double at(int64_t i) const {
        uint32_t bits = 0;
        if (dtype == DType::f32) {
            std::memcpy(&bits, &bytes[static_cast<size_t>(i) * 4], 4);
        } else {
            uint16_t half;
            std::memcpy(&half, &bytes[static_cast<size_t>(i) * 2], 2);
            bits = uint32_t{half} << 16;
        }
        float value;
        std::memcpy(&value, &bits, 4);
        return value;
    }
    void* data() { return bytes.data(); }
    DType dtype;
    std::vector<unsigned char> bytes;
};

void check_close(const Buffer& got, const naive::Array& expected, double tolerance) {
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < expected.count(); ++i) {
        difference += (got.at(i) - expected[i]) * (got.at(i) - expected[i]);
        norm += expected[i] * expected[i];
    }
    CHECK(norm > 0);
    CHECK(difference <= tolerance * tolerance * norm);
}

}  // namespace

TEST_CASE("convolutions: the three phases give the numbers of the definition") {
    for (const DType dtype : {DType::f32, DType::bf16})
        for (const bool wide : {false, true})
            for (const int64_t kernel : {1, 3}) {
                Scene scene;
                if (wide) world.engines[0].wide_gradients = true;
                if (dtype != DType::f32) Scene::tensor_cores();
                ConvShape shape = small(dtype);
                shape.kernel = kernel;
                shape.pad = kernel / 2;
                // Where f32 gradients cost no more time they are taken.
                if (wide) world.engines[1].refused = true, world.engines[2].refused = true;
                const ConvDesc desc = desc_of(shape);
                const auto made = scene.conv(shape);
                CHECK(made->diff_weights_dtype() == (wide ? DType::f32 : dtype));
                const naive::Array x = numbers(desc.src_shape(), 1), w = numbers(desc.weights_shape(), 2),
                                   dy = numbers(desc.dst_shape(), 3);
                Buffer bx(dtype, x), bw(dtype, w), bdy(dtype, dy), y(dtype, dy.count()), dx(dtype, x.count()),
                    dw(made->diff_weights_dtype(), w.count());
                made->forward(shape.batch, bx.data(), bw.data(), y.data(), nullptr);
                made->backward_data(bdy.data(), bw.data(), dx.data(), nullptr);
                made->backward_weights(bx.data(), bdy.data(), dw.data(), nullptr);
                const double tolerance = dtype == DType::f32 ? 1e-6 : 3e-3;
                check_close(y, naive::conv(desc, x, w), tolerance);
                check_close(dx, naive::conv_backward_src(desc, dy, w), tolerance);
                check_close(dw, naive::conv_backward_weights(desc, x, dy), wide ? 1e-6 : tolerance);
            }
}

TEST_CASE("convolutions: the weights' gradient of a pointwise one is a matrix product in f32, where that is as quick") {
    for (const char* const quicker : {"the product", "cuDNN", "cuDNN, by what is noise", "not timed", "no product"}) {
        CAPTURE(quicker);
        Scene scene;
        Scene::tensor_cores();
        const std::string who = quicker;
        world.gemm_milliseconds = who == "cuDNN" ? 1.2f : who == "cuDNN, by what is noise" ? 1.03f : 0.5f;
        world.gemm_answers = who != "no product";
        scene.options.autotune = who != "not timed";
        ConvShape shape = small(DType::bf16);
        shape.kernel = shape.stride = 1;
        shape.pad = 0;
        const ConvDesc desc = desc_of(shape);
        const bool product = who != "cuDNN" && who != "no product";
        const naive::Array x = numbers(desc.src_shape(), 1), dy = numbers(desc.dst_shape(), 3);
        const naive::Array expected = naive::conv_backward_weights(desc, x, dy);
        for (const bool again : {false, true}) {  // the second time from what is kept
            CAPTURE(again);
            world.runs = 0;
            const auto made = scene.conv(shape);
            CHECK((world.runs > 0) == (scene.options.autotune && !again));
            CHECK(made->diff_weights_dtype() == (product ? DType::f32 : DType::bf16));
            Buffer bx(DType::bf16, x), bdy(DType::bf16, dy), dw(made->diff_weights_dtype(), expected.count());
            const int before = world.runs;
            std::vector<char> workspace(static_cast<size_t>(made->workspace_bytes(Phase::backward_weights)) + 16);
            void* at = workspace.data();
            size_t room = workspace.size();
            std::align(16, 1, at, room);
            made->backward_weights(bx.data(), bdy.data(), dw.data(), at);
            CHECK(world.runs == before + (product ? 0 : 1));
            check_close(dw, expected, product ? 1e-6 : 3e-3);
        }
    }
}

TEST_CASE("convolutions: f32 gradients of 16-bit factors are taken where cuDNN is as quick with them") {
    for (const float milliseconds : {0.5f, 1.03f, 1.2f, 40.0f}) {
        Scene scene;
        Scene::tensor_cores();
        Engine wide = {7, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, {}, {}, milliseconds};
        wide.wide_gradients = true;
        wide.wide_only = true;
        world.engines.push_back(wide);
        for (const bool again : {false, true}) {
            CAPTURE(again);
            CHECK(scene.conv(small(DType::bf16))->diff_weights_dtype() ==
                  (milliseconds < 1.05f ? DType::f32 : DType::bf16));
        }
    }
}

TEST_CASE("convolutions: pictures have four channels where that is quicker") {
    for (const bool quicker : {false, true})
        for (const bool timed : {false, true}) {
            Scene scene;
            Scene::tensor_cores();
            scene.options.autotune = timed;
            world.engines.push_back({7, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, {}, {}, quicker ? 0.5f : 3.0f});
            world.engines.back().most_channels = 4;
            world.engines[1].least_channels = 8;
            ConvShape shape = small(DType::bf16);
            shape.in_channels = 8;
            shape.filled_channels = 3;
            shape.backward_data = false;
            CHECK(scene.conv(shape)->in_channels() == (quicker && timed ? 4 : 8));
            shape.filled_channels = 5;
            CHECK(scene.conv(shape)->in_channels() == 8);
        }
}

TEST_CASE("convolutions: the work goes to the stream that was named") {
    Scene scene;
    cudaStream_t stream = nullptr;
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    {
        const ConvShape shape = inference();
        const ConvDesc desc = desc_of(shape);
        const auto made = make_conv_products(std::make_shared<ConvPlanner>(stream, scene.options), shape);
        const naive::Array x = numbers(desc.src_shape(), 1), w = numbers(desc.weights_shape(), 2);
        const naive::Array expected = naive::conv(desc, x, w);
        const Buffer there(DType::f32, x);
        Buffer late(DType::f32, x.count()), bw(DType::f32, w), y(DType::f32, expected.count());
        fake::push(stream, [&] {  // the picture is there when the convolution's turn comes
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
            late.bytes = there.bytes;
        });
        made->forward(shape.batch, late.data(), bw.data(), y.data(), nullptr);
        cudaStreamSynchronize(stream);
        check_close(y, expected, 1e-6);
    }
    cudaStreamDestroy(stream);
}

TEST_CASE("convolutions: an engine whose notes forbid it is never taken, however fast") {
    struct Case {
        cudnnBackendNumericalNote_t note;
        bool strict, tf32, half;  // allowed in fp32, tf32, 16 bit
    };
    const Case cases[] = {
        {CUDNN_NUMERICAL_NOTE_TENSOR_CORE, false, true, true},
        {CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS, false, false, false},
        {CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION, false, false, false},
        {CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC, false, false, false},
        {CUDNN_NUMERICAL_NOTE_FFT, false, false, false},
        {CUDNN_NUMERICAL_NOTE_WINOGRAD, false, false, false},
        {CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4, false, false, false},
    };
    for (const Case& c : cases) {
        CAPTURE(c.note);
        const auto taken = [&](DType dtype, bool tf32) {
            Scene scene;
            world.engines.insert(world.engines.begin(), Engine{9, {c.note}, {}, {}, 0.1f});
            if (dtype != DType::f32) Scene::tensor_cores();
            ConvShape shape = inference(dtype);
            shape.tf32 = tf32;
            return scene.engine_for(shape) == 9;
        };
        CHECK(taken(DType::f32, false) == c.strict);
        CHECK(taken(DType::f32, true) == c.tf32);
        CHECK(taken(DType::bf16, false) == c.half);
    }
    Scene scene;
    world.engines.insert(world.engines.begin(),
                         Engine{9, {}, {CUDNN_BEHAVIOR_NOTE_REQUIRES_FILTER_INT8x32_REORDER}, {}, 0.1f});
    world.engines.insert(world.engines.begin(), Engine{8, {}, {CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION}, {}, 0.2f});
    CHECK(scene.engine_for(inference()) == 8);
}

TEST_CASE("convolutions: the fastest is taken; within the noise, the smaller workspace; never more than the limit") {
    Scene scene;
    world.engines.push_back({4, {}, {}, {}, 0.5f});
    world.engines.back().fallback = true;  // asked for only where the others do not serve
    CHECK(scene.engine_for(inference()) == 2);
    CHECK(world.heuristics == 1);

    SUBCASE("workspace within the noise") {
        world.engines = {{1, {}, {}, {}, 1.0f, 4096}, {2, {}, {}, {}, 1.02f, 64}, {3, {}, {}, {}, 1.5f, 0}};
        std::filesystem::remove_all(scene.folder);
        const auto made = scene.conv(inference());
        CHECK(made->workspace_bytes(Phase::forward) == 64);
    }
    SUBCASE("the limit") {
        world.engines = {{1, {}, {}, {}, 1.0f, 4096}, {2, {}, {}, {}, 2.0f, 64}};
        scene.options.workspace_limit = 1000;
        CHECK(scene.engine_for(inference()) == 2);
    }
    SUBCASE("a plan that cannot be made") {
        world.engines = {{1, {}, {}, {}, 1.0f}, {2, {}, {}, {}, 2.0f}};
        world.engines[0].refused = true;
        std::filesystem::remove_all(scene.folder);
        CHECK(scene.engine_for(inference()) == 2);
    }
    SUBCASE("settings of one engine count like engines, up to the number of candidates") {
        std::filesystem::remove_all(scene.folder);
        world.engines.clear();
        for (int64_t i = 0; i < 20; ++i)
            world.engines.push_back({1, {}, {}, {{2, i}}, i < 16 ? 2.0f : 0.1f, 100 + i});
        world.engines[15].milliseconds = 1.0f;
        CHECK(scene.conv(inference())->workspace_bytes(Phase::forward) == 115);
    }
    SUBCASE("what is 1.3 times slower than the best so far is left early, three times slower at once") {
        std::filesystem::remove_all(scene.folder);
        world.engines = {{1, {}, {}, {}, 1.0f}, {2, {}, {}, {}, 1.2f}, {3, {}, {}, {}, 1.5f}, {4, {}, {}, {}, 4.0f}};
        world.runs = 0;
        scene.conv(inference());
        CHECK(world.runs == (1 + 13) + (1 + 13) + (1 + 1 + 3) + (1 + 1));
    }
    SUBCASE("the fallbacks, when the heuristics have nothing that is allowed") {
        std::filesystem::remove_all(scene.folder);
        world.engines = {{1, {CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC}, {}, {}, 1.0f}, {2, {}, {}, {}, 2.0f}};
        world.engines[1].fallback = true;
        CHECK(scene.engine_for(inference()) == 2);
    }
}

TEST_CASE("convolutions: where nothing is allowed, an error names layer, phase and precision") {
    Scene scene;
    world.engines = {{1, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, {}, {}, 1.0f}};
    try {
        scene.conv(small());
        FAIL_CHECK("no error");
    } catch (const Error& error) {
        CHECK(error.code() == Exit::device);
        CHECK(
            std::string(error.what()).find("cuDNN 9.1.0 has no deterministic plan for layer1.0.conv2 forward in f32") ==
            0);
        CHECK(error.remedy().find("--precision") != std::string::npos);
    }
}

TEST_CASE("convolutions: without autotuning the heuristics' first is taken, and nothing runs or is written") {
    Scene scene;
    scene.options.autotune = false;
    scene.options.cache_folder.clear();
    const auto made = scene.conv(small());
    CHECK(world.runs == 0);
    CHECK(Scene::engine_of(*made, small(), 3) == 1);
    CHECK(!std::filesystem::exists(scene.folder));
}

TEST_CASE("convolutions: only the phases that are asked for are prepared") {
    Scene scene;
    ConvShape first = small();
    first.backward_data = false;
    const auto made = scene.conv(first);
    CHECK_THROWS_AS(made->backward_data(&first, &first, &first, nullptr), Error);
    const auto forward_only = scene.conv(inference());
    CHECK_THROWS_AS(forward_only->backward_weights(&first, &first, &first, nullptr), Error);
}

TEST_CASE("convolutions: too little memory for timing gives the heuristics' first, and keeps no choice") {
    Scene scene;
    world.free_memory = 100;
    const auto made = scene.conv(small());
    CHECK(world.runs == 0);
    CHECK(Scene::engine_of(*made, small(), 3) == 1);
    world.free_memory = 1 << 30;
    CHECK(scene.engine_for(small()) == 2);
}

TEST_CASE("convolutions: timing gives back what it takes, and nothing is taken afterwards") {
    Scene scene;
    const ConvShape shape = small();
    const auto made = scene.conv(shape);
    CHECK(world.most_allocated > 0);
    CHECK(world.allocated == 0);
    CHECK(ledger().total() == 0);
    const int before = world.allocations;
    CHECK(before > 0);
    for (int64_t batch = 1; batch <= shape.batch; ++batch)
        Scene::engine_of(*made, shape, batch);
    CHECK(world.allocations == before);
}

TEST_CASE("convolutions: f32 gradients of 16-bit factors are asked for once") {
    Scene scene;
    Scene::tensor_cores();
    SUBCASE("the graph is taken and has no plan") {}
    SUBCASE("the graph is refused") {
        world.takes_wide_graphs = false;
        ++world.wide_questions;
    }
    const auto planner = std::make_shared<ConvPlanner>(nullptr, scene.options);
    const auto first = make_conv_products(planner, small(DType::bf16));
    const int questions = world.wide_questions;
    CHECK(questions > 0);
    ConvShape other = small(DType::bf16);
    other.height = 7;
    const auto second = make_conv_products(planner, other);
    CHECK(world.wide_questions == questions);
    CHECK(second->diff_weights_dtype() == DType::bf16);
}

TEST_CASE("convolutions: f32 gradients of 16-bit factors are taken from Tensor Cores alone") {
    for (const bool tensor_cores : {false, true}) {
        Scene scene;
        Scene::tensor_cores();
        world.engines.push_back({7, {}, {}, {}, 0.9f});
        world.engines.back().wide_gradients = true;
        if (tensor_cores) world.engines.back().numerical = {CUDNN_NUMERICAL_NOTE_TENSOR_CORE};
        world.engines[0].wide_gradients = !tensor_cores;
        world.engines[0].refused = true;
        CHECK(scene.conv(small(DType::bf16))->diff_weights_dtype() == (tensor_cores ? DType::f32 : DType::bf16));
    }
}

TEST_CASE("convolutions: 16 bit without Tensor Cores is said, once and by name") {
    Scene scene;
    const auto said = [&](const ConvShape& shape) {
        test::CapturedStderr captured;
        scene.conv(shape);
        return captured.text();
    };
    ConvShape shape = inference(DType::f16);
    CHECK(said(inference()).empty());
    Scene::tensor_cores();
    CHECK(said(shape).empty());
    world.engines = {{5, {}, {}, {}, 1.0f}};
    shape.height = 7;
    CHECK(said(shape).find("warning: layer1.0.conv2 forward in f16 runs without Tensor Cores") == 0);
    shape.height = 9;
    CHECK(said(shape).empty());
}

TEST_CASE("convolutions: tensors to time plans on hold many numbers of both signs") {
    Scene scene;
    world.watch_image = true;
    for (const DType dtype : {DType::f32, DType::bf16}) {
        Scene::tensor_cores();
        ConvShape shape = inference(dtype);
        shape.tf32 = dtype == DType::f32;
        shape.height = 120;  // longer than the block that is repeated
        shape.width = 500;
        world.seen.clear();
        scene.conv(shape);
        CHECK(static_cast<int64_t>(world.seen.size()) == shape.batch * shape.height * shape.width * shape.in_channels);
        const auto [least, most] = std::minmax_element(world.seen.begin(), world.seen.end());
        CHECK(*least > -0.13);
        CHECK(*least < -0.12);
        CHECK(*most > 0.12);
        CHECK(*most < 0.13);
        const std::set<double> distinct(world.seen.begin(), world.seen.begin() + 4096);
        CHECK(distinct.size() > (dtype == DType::f32 ? 4000 : 250));
    }
}

TEST_CASE("a library's failure is told by the error of CUDA that ended the context, if there is one") {
    Scene scene;
    const auto remedy = [] {
        std::string text;
        try {
            check(CUDNN_STATUS_NOT_SUPPORTED, "a convolution");
        } catch (const Error& error) {
            text = error.remedy();
        }
        return text;
    };
    CHECK(remedy().find("another version of cuDNN") != std::string::npos);
    world.failing["cudaStreamQuery"] = cudaErrorNotReady;
    CHECK(remedy().find("another version of cuDNN") != std::string::npos);
    world.failing["cudaStreamQuery"] = cudaErrorIllegalAddress;
    CHECK(remedy().find("the GPU was lost") == 0);
    try {
        check(CUBLAS_STATUS_INTERNAL_ERROR, "a product");
        FAIL_CHECK("no error");
    } catch (const Error& error) {
        CHECK(std::string(error.what()).find("something made up") != std::string::npos);
        CHECK(error.remedy().find("the GPU was lost") == 0);
    }
}

TEST_CASE("on a GPU that is lost, the libraries' handles are left alone") {
    for (const cudaError_t status : {cudaErrorNotReady, cudaErrorIllegalAddress}) {
        Scene scene;
        {
            const CudnnHandle cudnn(nullptr);
            const Gemm gemm(nullptr);
            CHECK(world.live_handles.size() == 2);
            world.failing["cudaStreamQuery"] = status;
        }
        CHECK(world.live_handles.size() == (status == cudaErrorNotReady ? 0 : 2));
        world.failing.clear();
        for (void* const handle : std::set<void*>(world.live_handles))
            handle == static_cast<void*>(&world)
                ? static_cast<void>(cublasLtDestroy(static_cast<cublasLtHandle_t>(handle)))
                : static_cast<void>(cudnnDestroy(static_cast<cudnnHandle_t>(handle)));
    }
}

TEST_CASE("tail batch: the same engine without timing, within the workspace that was promised") {
    Scene scene;
    const ConvShape shape = inference();
    auto made = scene.conv(shape);
    const int runs = world.runs;
    CHECK(Scene::engine_of(*made, shape, 1) == 2);
    CHECK(world.runs == runs + 1);
    CHECK_THROWS_AS(Scene::engine_of(*made, shape, 4), Error);

    SUBCASE("the numbers of the first pictures, and no more than those are written") {
        const ConvDesc desc = desc_of(shape);
        const naive::Array x = numbers(desc.src_shape(), 1), w = numbers(desc.weights_shape(), 2);
        const naive::Array y = naive::conv(desc, x, w);
        Buffer bx(DType::f32, x), bw(DType::f32, w), by(DType::f32, y.count());
        const Buffer untouched = by;
        made->forward(2, bx.data(), bw.data(), by.data(), nullptr);
        const int64_t part = y.count() / 3 * 2;
        for (int64_t i = 0; i < part; ++i)
            CHECK(by.at(i) == doctest::Approx(y[i]));
        CHECK(std::equal(by.bytes.begin() + part * 4, by.bytes.end(), untouched.bytes.begin() + part * 4));
    }
    SUBCASE("another engine, where the whole batch's refuses") {
        world.engines[1].smallest_batch = 3;
        made = scene.conv(shape);
        CHECK(Scene::engine_of(*made, shape, 3) == 2);
        CHECK(Scene::engine_of(*made, shape, 2) == 1);
    }
    SUBCASE("not taken, where none fits into the workspace") {
        world.engines[1].smallest_batch = 3;
        world.engines[0].workspace = world.engines[2].workspace = 64;
        made = scene.conv(shape);
        CHECK(made->workspace_bytes(Phase::forward) == 0);
        CHECK(made->takes(3));
        CHECK(!made->takes(2));
        CHECK_THROWS_AS(Scene::engine_of(*made, shape, 2), Error);
    }
}
