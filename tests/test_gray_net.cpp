// A net of one channel beside one of three that sees the grey picture three times.
#include <doctest/doctest.h>

#include <cmath>

#include "base/random.h"
#include "op_support.h"
#include "pipeline_support.h"
#include "train/checkpoint.h"

using namespace rn50;
using namespace rn50::test;

TEST_CASE("gray net: weights for colour, summed, give grey pictures the same answers") {
    for_each_net_rig([](Rig& rig) {
        NetDesc color;
        color.model = "resnet18";
        color.classes = 5;
        color.image_size = 32;
        color.batch = 3;
        color.precision = rig.precision;
        color.training = false;
        NetDesc gray = color;
        gray.channels = 1;
        for (int c = 0; c < 3; ++c) {
            color.mean[c] = gray.mean[c] = gray_mean;
            color.std[c] = gray.std[c] = gray_std;
        }
        Arena arena(rig.backend.memory(), int64_t{400} << 20);
        Context ctx{arena};
        const std::unique_ptr<Net> wide = make_net(rig.backend, color), narrow = make_net(rig.backend, gray);
        wide->allocate(ctx);
        narrow->allocate(ctx);
        CHECK(narrow->table().parameters().front().torch_dims() == std::vector<int64_t>{64, 1, 7, 7});
        const std::vector<float> parameters = wide->table().initial_values(3);
        rig.backend.copy_in(ctx, parameters.data(), wide->state().parameters);
        const std::vector<float> running = wide->table().initial_running();
        rig.backend.copy_in(ctx, running.data(), wide->state().running);
        rig.backend.synchronize(ctx);

        const TempFolder folder;
        CheckpointInfo info;
        info.model = color.model;
        info.classes = {"a", "b", "c", "d", "e"};
        info.image_size = 32;
        info.precision = "fp32";
        save_checkpoint(folder.path("color"), rig.backend, ctx, *wide, info, 0);
        import_checkpoint(SafetensorsReader(folder.path("color")), rig.backend, ctx, *narrow, info.classes);
        CHECK_THROWS_AS(load_checkpoint(SafetensorsReader(folder.path("color")), rig.backend, ctx, *narrow), Error);

        Array pictures({3, 32, 32, 1}), tripled({3, 32, 32, 3});
        Random random(1, 2, 3, Purpose::demo);
        for (int64_t i = 0; i < pictures.count(); ++i) {
            pictures[i] = static_cast<double>(random.u32() >> 24);
            for (int64_t c = 0; c < 3; ++c)
                tripled[i * 3 + c] = pictures[i];
        }
        const auto logits_of = [&](Net& net, const Array& input) {
            net.begin_inference(ctx);
            const Tensor logits = rig.rubbish(DType::f32, {3, 5});
            net.infer(ctx, rig.put(input, DType::u8), logits);
            const Array got = rig.get(logits);
            net.end_inference(ctx);
            return got;
        };
        CHECK_NEAR(logits_of(*narrow, pictures), logits_of(*wide, tripled), 20 * rig.tolerance);

        info.channels = 1;
        info.bits = 12;
        info.mean = {gray_mean, 0, 0};
        info.std = {gray_std, 0, 0};
        save_checkpoint(folder.path("gray"), rig.backend, ctx, *narrow, info, 0);
        const SafetensorsReader file(folder.path("gray"));
        CHECK(file.entry("conv1.weight").dims == Dims{64, 1, 7, 7});
        const CheckpointInfo read = read_checkpoint_info(file);
        CHECK(read.channels == 1);
        CHECK(read.bits == 12);
        CHECK(read_checkpoint_info(SafetensorsReader(folder.path("color"))).bits == 0);
        CHECK(read.mean[0] == gray_mean);
        CHECK(read.std[0] == gray_std);
        CHECK_NOTHROW(load_checkpoint(file, rig.backend, ctx, *narrow));
    });
}
