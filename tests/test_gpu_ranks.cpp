// One rank by the engine of each backend that works here, NCCL on a GPU: every collective, which with one rank changes
// nothing, and training, which is then the same bit for bit; on a GPU with recorded steps, too.
#include <doctest/doctest.h>

#include <cstdlib>

#include "base/error.h"
#include "base/random.h"
#include "rank_support.h"
#include "train/trainer.h"

using namespace rn50;
using std::chrono::milliseconds;

namespace {

/// RN50_TEST_ON=cuda: that backend alone.
void for_each_engine(const std::function<void(Backend&, Communicator&)>& body) {
    const char* const only = std::getenv("RN50_TEST_ON");
    for (const std::string& kind : backends_built_in()) {
        if (only != nullptr && kind != only) continue;
        std::unique_ptr<Backend> backend;
        Communicator comm(Place{}, milliseconds(30000));
        try {
            backend = make_backend(kind, 1);
            comm.connect(engine_for(*backend));
        } catch (const Error& error) {
            MESSAGE("ranks on " << kind << " are not tested: " << std::string(error.what()));
            continue;
        }
        MESSAGE(comm.engine());
        body(*backend, comm);
        comm.leave();
    }
}

std::vector<float> some_numbers(int64_t count) {
    std::vector<float> numbers;
    for (int64_t i = 0; i < count; ++i)
        numbers.push_back(static_cast<float>((i * 37) % 251 - 125) / 64);
    return numbers;
}

/// What seven steps end with: of recorded ones the last three.
std::vector<float> trained(Backend& backend, Communicator* comm, bool recorded = false) {
    constexpr int64_t batch = 4, side = 32, classes = 5;
    TrainerOptions options;
    options.net.model = "resnet18";
    options.net.classes = classes;
    options.net.image_size = side;
    options.net.batch = batch;
    options.optimizer.kind = OptimizerDesc::Kind::sgd;
    options.seed = 3;
    options.comm = comm;
    options.sync_norm = comm != nullptr;
    options.bucket_bytes = 1 << 20;
    options.record = recorded;
    Arena arena(backend.memory(), plan_memory(backend, options).peak);
    Trainer trainer(backend, arena, options);
    trainer.initialize();
    trainer.follow_rank_0();
    std::vector<uint8_t> pictures(batch * side * side * 3);
    std::vector<int32_t> labels(batch);
    for (int64_t step = 0; step < 7; ++step) {
        Random random(1, static_cast<uint32_t>(step), 0, Purpose::demo);
        for (uint8_t& value : pictures)
            value = static_cast<uint8_t>(random.u32() >> 24);
        for (int32_t& label : labels)
            label = static_cast<int32_t>(random.below(classes));
        trainer.step(pictures.data(), labels.data(), step, 1e-3);
        trainer.result();
    }
    if (recorded) CHECK(trainer.recorded_steps()->replays() == 3);
    const Tensor& parameters = trainer.net().state().parameters;
    std::vector<float> values(static_cast<size_t>(parameters.count()));
    backend.copy_out(trainer.context(), parameters, values.data());
    return values;
}

}  // namespace

TEST_CASE("one rank: collectives give what they were given") {
    for_each_engine([](Backend& backend, Communicator& comm) {
        Arena arena(backend.memory(), int64_t{16} << 20);
        Context ctx{arena};
        for (const int64_t count : {int64_t{1}, int64_t{1023}, int64_t{1000003}}) {
            const std::vector<float> numbers = some_numbers(count);
            const Tensor values = arena.alloc(Use::workspace, DType::f32, {count});
            for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
                CAPTURE(name_of(dtype));
                Tensor sent = arena.alloc(Use::workspace, dtype, {count}),
                       all = arena.alloc(Use::workspace, dtype, {1, count});
                const auto fill = [&] {
                    backend.copy_in(ctx, numbers.data(), dtype == DType::f32 ? sent : values);
                    if (dtype != DType::f32) backend.convert(ctx, values, sent);
                };
                fill();
                comm.begin_average(sent);
                comm.finish_averages();
                comm.broadcast(sent);
                comm.gather(sent, all);
                std::vector<char> before(static_cast<size_t>(sent.bytes())), after(before.size());
                backend.copy_out(ctx, all, after.data());
                fill();
                backend.copy_out(ctx, sent, before.data());
                CHECK(before == after);
                arena.release(all);
                arena.release(sent);
            }
            Tensor given = values;
            arena.release(given);
        }
        CHECK(comm.gather("a text") == std::vector<std::string>{"a text"});
        CHECK(comm.sum({1.5, 2}) == std::vector<double>{1.5, 2});
        const std::string large(9000001, 'x');  // several pieces
        CHECK(comm.gather(large)[0] == large);
    });
}

TEST_CASE("one rank: training by an engine, batch norm over all ranks, is training alone") {
    for_each_engine([](Backend& backend, Communicator& comm) {
        const std::vector<float> alone = trained(backend, nullptr);
        CHECK(trained(backend, &comm) == alone);
        if (backend.info().kind == "cuda") {
            CHECK(trained(backend, nullptr, true) == alone);
            CHECK(trained(backend, &comm, true) == alone);
        }
        CHECK(alone[0] != 0.0f);
    });
}
