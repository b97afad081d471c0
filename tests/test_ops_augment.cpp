// Backend::augment beside the renderer that the loader's workers run, whose own oracle is Pillow's and torchvision's
// numbers: the same bits on every backend. And a trainer that is given pictures to augment beside one that is given the
// augmented ones.
#include <doctest/doctest.h>

#include <cmath>

#include "op_support.h"
#include "pipeline/augment.h"
#include "pipeline_support.h"
#include "train/trainer.h"

using namespace rn50;
using namespace rn50::test;

namespace {

/// Pictures as the loader leaves them to the device, and as it makes them whole.
struct Pictures {
    std::vector<uint8_t> bare, whole;
    std::vector<pixel::Changes> changes;
};

Pictures batch_of(int64_t count, int64_t size, int channels) {
    PictureOptions options;
    options.augment = Augment::crop;
    options.image_size = size;
    options.channels = channels;
    options.flip_vertical = options.rotate90 = true;
    options.jitter_brightness = options.jitter_contrast = options.jitter_saturation = 0.5f;
    options.erasing = 0.6;
    const auto bytes = static_cast<size_t>(size * size * channels);
    Pictures batch;
    batch.bare.resize(static_cast<size_t>(count) * bytes);
    batch.whole.resize(batch.bare.size());
    batch.changes.resize(static_cast<size_t>(count));
    Renderer renderer;
    for (int64_t i = 0; i < count; ++i) {
        const Picture picture = formula_picture(size + 5, size + i);
        options.erasing_noise = i % 2 == 1;
        AugmentParameters drawn = draw_augment(options, picture.height, picture.width, 11, 1, i);
        if (i == 0) drawn.contrast = 1;  // the mean grey is then left out
        const size_t at = static_cast<size_t>(i) * bytes;
        renderer.render(picture, options, &drawn, &batch.bare[at], nullptr, &batch.changes[static_cast<size_t>(i)]);
        renderer.render(picture, options, &drawn, &batch.whole[at]);
    }
    return batch;
}

Tensor upload(Rig& rig, const void* data, const Shape& shape) {
    const Tensor tensor = rig.arena.alloc(Use::input, DType::u8, shape);
    rig.backend.copy_in(rig.ctx, data, tensor);
    return tensor;
}

}  // namespace

TEST_CASE("augment: every backend gives the renderer's bits") {
    for_each_fp32_rig([](Rig& rig) {
        for (const int channels : {1, 3})
            for (const int64_t size : {1, 19, 40}) {
                CAPTURE(cat(channels, " channels, ", size, " pixels"));
                const int64_t count = 9;
                const Pictures batch = batch_of(count, size, channels);
                CHECK((size == 1 || batch.bare != batch.whole));
                const Tensor src = upload(rig, batch.bare.data(), {count, size, size, channels});
                const Tensor changes = upload(rig, batch.changes.data(), {count * int64_t{sizeof(pixel::Changes)}});
                const Tensor dst = rig.rubbish(DType::u8, src.shape);
                rig.backend.augment(rig.ctx, src, changes, dst);
                CHECK(rig.bytes(dst) == std::string(batch.whole.begin(), batch.whole.end()));
                CHECK(rig.bytes(src) == std::string(batch.bare.begin(), batch.bare.end()));
            }
    });
}

TEST_CASE("augment: what does not fit is refused") {
    for_each_fp32_rig([](Rig& rig) {
        const Tensor src = rig.rubbish(DType::u8, {2, 4, 4, 3}), dst = rig.rubbish(DType::u8, {2, 4, 4, 3});
        const Tensor changes = rig.rubbish(DType::u8, {2 * int64_t{sizeof(pixel::Changes)}});
        CHECK_THROWS_AS(rig.backend.augment(rig.ctx, src, changes, src), Error);
        CHECK_THROWS_AS(rig.backend.augment(rig.ctx, src, changes.slice(0, 4), dst), Error);
        const Tensor two = rig.rubbish(DType::u8, {2, 4, 4, 2});
        CHECK_THROWS_AS(rig.backend.augment(rig.ctx, two, changes, rig.rubbish(DType::u8, {2, 4, 4, 2})), Error);
    });
}

namespace {

constexpr int64_t pictures_a_batch = 4, side = 32;

TrainerOptions options_of(bool changes) {
    TrainerOptions options;
    options.net.model = "resnet18";
    options.net.classes = 5;
    options.net.image_size = side;
    options.net.batch = pictures_a_batch;
    options.changes = changes;
    return options;
}

/// The loss of each of three steps, of which each has a batch of its own; `ahead`: the next one is staged beside it.
std::vector<double> losses(Backend& backend, bool changes, bool ahead) {
    const TrainerOptions options = options_of(changes);
    Arena arena(backend.memory(), plan_memory(backend, options).peak);
    Trainer trainer(backend, arena, options);
    trainer.initialize();
    const Pictures all = batch_of(3 * pictures_a_batch, side, 3);
    const int32_t labels[] = {0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3};
    const auto batch_at = [&](int64_t step) {
        const auto first = static_cast<size_t>(step * pictures_a_batch);
        const std::vector<uint8_t>& pixels = changes ? all.bare : all.whole;
        HostBatch batch{&pixels[first * side * side * 3], labels + first, nullptr, 1};
        if (changes) batch.changes = &all.changes[first];
        return batch;
    };
    std::vector<double> found;
    if (ahead) trainer.stage(batch_at(0));
    for (int64_t step = 0; step < 3; ++step) {
        if (ahead) {
            trainer.step(step, 1e-3);
            if (step < 2) trainer.stage(batch_at(step + 1));
        } else {
            trainer.step(batch_at(step), step, 1e-3);
        }
        found.push_back(trainer.result().loss);
        CHECK(std::isfinite(found.back()));
    }
    return found;
}

}  // namespace

TEST_CASE("trainer: pictures augmented by the device, and batches staged beside the step, change no bit") {
    const std::unique_ptr<Backend> backend = make_backend("cpu");
    const std::vector<double> plain = losses(*backend, false, false);
    CHECK(losses(*backend, true, false) == plain);
    CHECK(losses(*backend, true, true) == plain);
    CHECK(losses(*backend, false, true) == plain);
}

TEST_CASE("trainer: batches come one ahead, not two, and in the form that was announced") {
    const std::unique_ptr<Backend> backend = make_backend("cpu");
    const TrainerOptions options = options_of(false);
    Arena arena(backend->memory(), plan_memory(*backend, options).peak);
    Trainer trainer(*backend, arena, options);
    trainer.initialize();
    const Pictures all = batch_of(pictures_a_batch, side, 3);
    const int32_t labels[pictures_a_batch] = {0, 1, 2, 3};
    HostBatch batch{all.whole.data(), labels, nullptr, 1};
    CHECK_THROWS_AS(trainer.step(0, 1e-3), Error);
    trainer.stage(batch);
    trainer.stage(batch);
    CHECK_THROWS_AS(trainer.stage(batch), Error);
    trainer.step(0, 1e-3);
    batch.partners = labels;
    CHECK_THROWS_AS(trainer.stage(batch), Error);
    batch.partners = nullptr;
    batch.changes = all.changes.data();
    CHECK_THROWS_AS(trainer.stage(batch), Error);
}
