// nvJPEG's use, on a stand-in for it: each way of decoding, what is left to the CPU, and what stays behind.
#include <doctest/doctest.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

#include <cmath>
#include <random>

#include "base/error.h"
#include "base/resample.h"
#include "environment.h"
#include "fake.h"
#include "fake_nvjpeg.h"
#include "ledger.h"
#include "nvjpeg_api.h"
#include "picture_decoders.h"
#include "resize.h"

using namespace rn50;
using namespace rn50::cuda;
using fake::FakeJpeg;
using fake::nvjpeg_world;
using fake::world;

namespace {

std::unique_ptr<PictureDecoders> open(std::string& why) {
    return make_picture_decoders(0, fake::find_nvjpeg, why);
}

/// On a GPU without memory taken, with or without a hardware engine.
std::unique_ptr<PictureDecoders> open_anew(bool hardware) {
    world = {};
    nvjpeg_world = {};
    nvjpeg_world.has_hardware = hardware;
    std::string why;
    std::unique_ptr<PictureDecoders> decoders = open(why);
    REQUIRE(decoders);
    return decoders;
}

FakeJpeg picture(int width, int height, int components = 3) {
    FakeJpeg jpeg;
    jpeg.width = width;
    jpeg.height = height;
    jpeg.components = components;
    return jpeg;
}

PictureRequest request_of(const FakeJpeg& jpeg, int64_t x, int64_t y, int64_t height, int64_t width, int64_t size) {
    return {reinterpret_cast<const uint8_t*>(&jpeg), sizeof jpeg, x, y, height, width, size, size + 1};
}

/// The box of the formula, resampled: what decode() must give.
std::vector<uint8_t> expected_of(const PictureRequest& r, int components) {
    std::vector<uint8_t> box(static_cast<size_t>(r.box_height * r.box_width * 3));
    for (int64_t y = 0; y < r.box_height; ++y)
        for (int64_t x = 0; x < r.box_width; ++x)
            for (int c = 0; c < 3; ++c)
                box[static_cast<size_t>((y * r.box_width + x) * 3 + c)] =
                    fake::pixel_of(r.x + x, r.y + y, components == 1 ? 0 : c);
    ResampleFilter across, down;
    across.make(r.box_width, 0, static_cast<double>(r.box_width), r.width);
    down.make(r.box_height, 0, static_cast<double>(r.box_height), r.height);
    const auto view = [](const ResampleFilter& f) {
        return DeviceFilter{f.first.data(), f.count.data(), f.weights.data(), static_cast<int>(f.taps), f.shift};
    };
    std::vector<uint8_t> rows(static_cast<size_t>(r.box_height * r.width * 3));
    std::vector<uint8_t> result(static_cast<size_t>(r.height * r.width * 3));
    resize_picture(nullptr, box.data(), r.box_height, r.box_width, view(across), view(down), rows.data(), result.data(),
                   r.height, r.width);
    return result;
}

/// Decodes; -1: it was declined, 0: wrong pixels, 1: right ones.
int outcome(PictureDecoder& decoder, const FakeJpeg& jpeg, const PictureRequest& request) {
    std::vector<uint8_t> got(static_cast<size_t>(request.height * request.width * 3));
    if (!decoder.decode(request, got.data())) return -1;
    return got == expected_of(request, jpeg.components) ? 1 : 0;
}

}  // namespace

TEST_CASE("nvJPEG: every way gives the box, resampled, and leaves nothing behind") {
    const int64_t before = world.allocated;
    for (const bool hardware : {true, false})
        for (const bool gpu_huffman : {true, false}) {
            nvjpeg_world = {};
            nvjpeg_world.has_hardware = hardware;
            nvjpeg_world.gpu_huffman = gpu_huffman;
            {
                std::string why;
                const std::unique_ptr<PictureDecoders> decoders = open(why);
                REQUIRE(decoders);
                CHECK(decoders->name() == (hardware ? "nvJPEG 12.2.5, hardware" : "nvJPEG 12.2.5, GPU"));
                CHECK(decoders->beside_other_work() == hardware);
                const auto one = decoders->make(), other = decoders->make();
                const FakeJpeg large = picture(100, 80), grey = picture(60, 50, 1), small = picture(9, 7);
                // Larger and smaller in turn: memory is kept, and only grows.
                CHECK(outcome(*one, large, request_of(large, 10, 20, 50, 60, 16)) == 1);
                CHECK(outcome(*other, grey, request_of(grey, 0, 0, 50, 60, 20)) == 1);
                CHECK(outcome(*one, small, request_of(small, 8, 6, 1, 1, 5)) == 1);
                CHECK(outcome(*one, large, request_of(large, 0, 0, 80, 100, 90)) == 1);
                CHECK(nvjpeg_world.decodes == 5);  // `other` began with what was the largest then
                if (!hardware) CHECK(nvjpeg_world.decoder_backend == (gpu_huffman ? nvjpeg::backend_gpu_hybrid : 0));
            }
            CHECK(nvjpeg_world.flags == (nvjpeg::flag_strict | nvjpeg::flag_interpolate));
            CHECK(nvjpeg_world.faults == std::vector<std::string>{});
            CHECK(nvjpeg_world.live.empty());
        }
    CHECK(world.allocated == before);
}

TEST_CASE("nvJPEG: RN50_NVJPEG=gpu leaves the hardware engine alone") {
    for (const char* const asked : {"", "gpu", "hardware"}) {
        const test::ScopedVariable variable("RN50_NVJPEG", asked);
        const std::unique_ptr<PictureDecoders> decoders = open_anew(true);
        const bool hardware = std::string(asked) != "gpu";
        CHECK(decoders->name() == (hardware ? "nvJPEG 12.2.5, hardware" : "nvJPEG 12.2.5, GPU"));
        CHECK(decoders->beside_other_work() == hardware);
    }
    CHECK(nvjpeg_world.live.empty());
}

TEST_CASE("nvJPEG: on a GPU that is lost nothing is given back") {
    for (const bool hardware : {true, false}) {
        nvjpeg_world = {};
        nvjpeg_world.has_hardware = hardware;
        {
#ifdef __SANITIZE_ADDRESS__
            const __lsan::ScopedDisabler meant;  // what is left behind
#endif
            std::string why;
            const std::unique_ptr<PictureDecoders> decoders = open(why);
            REQUIRE(decoders);
            const auto decoder = decoders->make();
            world.failing["cudaStreamQuery"] = cudaErrorIllegalAddress;
        }
        world.failing.clear();
        CHECK(nvjpeg_world.live.size() == (hardware ? 4 : 7));
        CHECK(nvjpeg_world.faults == std::vector<std::string>{});
    }
}

TEST_CASE("nvJPEG: all memory of the device is counted, and comes out of a reserve once there is one") {
    const test::ArenaMode shared("shared");
    for (const bool hardware : {true, false}) {
        CAPTURE(hardware);
        {
            const std::unique_ptr<PictureDecoders> decoders = open_anew(hardware);
            const FakeJpeg large = picture(100, 80), small = picture(20, 30), huge = picture(900, 900);
            {
                const auto one = decoders->make(), other = decoders->make();
                CHECK(outcome(*one, large, request_of(large, 0, 0, 80, 100, 16)) == 1);
                CHECK(outcome(*other, small, request_of(small, 0, 0, 30, 20, 16)) == 1);
                CHECK(nvjpeg_world.own_bytes == 2 * 100 * 80 * 6);  // each has room for the largest
                CHECK(ledger().bytes(Taken::decoding) == world.allocated);
                CHECK(world.allocated > static_cast<int64_t>(nvjpeg_world.own_bytes));
            }
            CHECK(world.allocated == 0);
            CHECK(decoders->peak_bytes() == world.most_allocated);

            const int64_t bytes = decoders->peak_bytes() / 4 * 5 / 256 * 256;
            decoders->reserve(bytes);
            CHECK(world.allocated == bytes);
            CHECK(ledger().beside_tensors().size() == 1);
            CHECK(ledger().beside_tensors()[0].bytes == bytes);
            const int before = world.allocations;
            {
                const auto one = decoders->make(), other = decoders->make();
                for (int i = 0; i < 3; ++i) {
                    CHECK(outcome(*one, large, request_of(large, 0, 0, 80, 100, 16)) == 1);
                    CHECK(outcome(*other, huge, request_of(huge, 0, 0, 900, 900, 16)) == -1);  // the CPU's
                    CHECK(outcome(*other, small, request_of(small, 0, 0, 30, 20, 16)) == 1);
                }
            }
            CHECK(world.allocations == before);
            CHECK(world.allocated == bytes);
        }
        CHECK(world.allocated == 0);
        CHECK(ledger().total() == 0);
        CHECK(nvjpeg_world.faults == std::vector<std::string>{});
        CHECK(nvjpeg_world.live.empty());
        CHECK(world.faults == std::vector<std::string>{});
    }
}

TEST_CASE("nvJPEG: what a try took of memory suffices for other crops of such pictures, by decoders that start anew") {
    const test::ArenaMode shared("shared");
    constexpr int side = 120, threads = 8;
    for (const bool hardware : {true, false}) {
        CAPTURE(hardware);
        const std::unique_ptr<PictureDecoders> decoders = open_anew(hardware);
        const FakeJpeg jpeg = picture(side, side);
        std::mt19937 random(7);
        const auto declined = [&](int crops) {
            std::vector<std::unique_ptr<PictureDecoder>> all;
            for (int i = 0; i < threads; ++i)
                all.push_back(decoders->make());
            int count = 0;
            for (int i = 0; i < crops; ++i) {  // of a random area, as RandomResizedCrop's
                const double area = 0.08 + 0.92 * std::uniform_real_distribution<double>()(random);
                const auto box = static_cast<int64_t>(side * std::sqrt(area));
                const int got =
                    outcome(*all[random() % threads], jpeg, request_of(jpeg, side - box, 0, box, box, 16));
                CHECK(got != 0);
                count += got < 0 ? 1 : 0;
            }
            return count;
        };
        CHECK(declined(200) == 0);
        decoders->reserve(decoders->peak_bytes() / 4 * 5);
        CHECK(declined(1000) == 0);
    }
}

TEST_CASE("nvJPEG: what it does not take, or finds fault with, is left to the CPU") {
    nvjpeg_world = {};
    std::string why;
    const std::unique_ptr<PictureDecoders> decoders = open(why);
    REQUIRE(decoders);
    const auto decoder = decoders->make();
    FakeJpeg jpeg = picture(40, 40);
    const PictureRequest whole = request_of(jpeg, 0, 0, 40, 40, 8);
    CHECK(outcome(*decoder, jpeg, whole) == 1);
    jpeg.progressive = true;
    CHECK(outcome(*decoder, jpeg, whole) == -1);
    jpeg = picture(40, 40, 4);
    CHECK(outcome(*decoder, jpeg, whole) == -1);
    jpeg = picture(40, 40);
    jpeg.magic = 1;
    CHECK(outcome(*decoder, jpeg, whole) == -1);
    jpeg = picture(40, 40);
    jpeg.broken = true;
    CHECK(outcome(*decoder, jpeg, whole) == -1);
    jpeg = picture(4000, 4000);
    world.free_memory = world.allocated + 1'000'000;
    CHECK(outcome(*decoder, jpeg, request_of(jpeg, 0, 0, 4000, 4000, 8)) == -1);
    world.free_memory = int64_t{1} << 40;
    CHECK(cudaGetLastError() == cudaSuccess);  // nobody else meets it
    jpeg = picture(40, 40);
    CHECK(outcome(*decoder, jpeg, whole) == 1);
    CHECK(nvjpeg_world.faults == std::vector<std::string>{});
}

TEST_CASE("nvJPEG: a library that lacks something says what, or does with less") {
    std::string why;
    nvjpeg_world = {};
    nvjpeg_world.absent = "nvjpegDecodeBatchedSupportedEx";
    CHECK_FALSE(open(why));
    CHECK(why == "nvJPEG is too old: it has no nvjpegDecodeBatchedSupportedEx");
    nvjpeg_world = {};
    nvjpeg_world.starts = false;
    CHECK_FALSE(open(why));
    CHECK(why == "nvJPEG does not start on this GPU");
    nvjpeg_world = {};
    nvjpeg_world.knows_flags = false;
    CHECK(open(why));
    CHECK(nvjpeg_world.flags == 0);
    CHECK(nvjpeg_world.live.empty());
}
