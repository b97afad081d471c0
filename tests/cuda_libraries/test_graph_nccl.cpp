// Ranks whose steps are recorded: the emulator's kernels and the make-believe NCCL on streams that are threads.
#include <doctest/doctest.h>

#include <atomic>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "base/random.h"
#include "comm/comm.h"
#include "comm/store.h"
#include "environment.h"
#include "fake.h"
#include "fake_nccl.h"
#include "nccl_collectives.h"
#include "simt_backend.h"
#include "streams.h"
#include "train/trainer.h"

using namespace rn50;
using std::chrono::milliseconds;

namespace {

constexpr int ranks = 2;
constexpr int64_t batch = 2, side = 32, classes = 5;

struct Trained {
    std::vector<double> losses;
    std::vector<float> parameters;
    int64_t replays = 0;
    std::string failure;
};

using Between = std::function<void(Communicator&, Trainer&, int64_t step)>;

void train(Communicator& comm, Backend& backend, const TrainerOptions& options, int64_t steps, const Between& between,
           Trained& result) {
    Arena arena(backend.memory(), plan_memory(backend, options).peak);
    Trainer trainer(backend, arena, options);
    trainer.initialize();
    trainer.follow_rank_0();
    for (int64_t step = 0; step < steps; ++step) {
        between(comm, trainer, step);
        Random random(1, static_cast<uint32_t>(step), static_cast<uint64_t>(comm.rank()), Purpose::demo);
        std::vector<uint8_t> pictures;
        std::vector<int32_t> labels;
        for (int64_t i = 0; i < batch * side * side * 3; ++i)
            pictures.push_back(static_cast<uint8_t>(random.u32() >> 24));
        for (int64_t i = 0; i < batch; ++i)
            labels.push_back(static_cast<int32_t>(random.below(classes)));
        trainer.step(pictures.data(), labels.data(), step, 1e-3);
        result.losses.push_back(trainer.result().loss);
    }
    const Tensor& parameters = trainer.net().state().parameters;
    result.parameters.resize(static_cast<size_t>(parameters.count()));
    backend.copy_out(trainer.context(), parameters, result.parameters.data());
    if (trainer.recorded_steps() != nullptr) result.replays = trainer.recorded_steps()->replays();
}

/// What each rank ends with.
std::vector<Trained> trained(bool recorded, int64_t steps, const Between& between) {
    const test::ArenaMode one_block("shared");
    fake::world = {};
    fake::nccl_world = {};
    streams::set_threaded(true);
    const int port = StoreServer("127.0.0.1", 0, 1, "", milliseconds(1000)).port();
    std::vector<Trained> results(ranks);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks; ++rank)
        threads.emplace_back([&, rank] {
            Trained& result = results[static_cast<size_t>(rank)];
            Place place;
            place.rank = place.local_rank = rank;
            place.size = place.local_size = ranks;
            place.port = port;
            cudaSetDevice(rank);
            try {
                const std::unique_ptr<Backend> backend = test::make_emulated_backend();
                Communicator comm(place, milliseconds(60000));
                comm.connect([&](StoreClient& store, const Place&, milliseconds patience) {
                    return cuda::make_nccl(fake::fake_nccl(),
                                           static_cast<cudaStream_t>(test::emulated_stream(*backend)), store, place,
                                           patience);
                });
                TrainerOptions options;
                options.net.model = "resnet18";
                options.net.classes = classes;
                options.net.image_size = side;
                options.net.batch = batch;
                options.net.zero_init_residual = false;
                options.class_weights = {0.25f, 1, 2, 0.5f, 4};
                options.comm = &comm;
                options.sync_norm = true;
                options.bucket_bytes = 4 << 20;
                options.record = recorded;
                train(comm, *backend, options, steps, between, result);
                comm.leave();
            } catch (const Error& error) {
                result.failure = error.what();
            }
        });
    for (std::thread& thread : threads)
        thread.join();
    for (const std::string& fault : fake::world.faults)
        FAIL_CHECK(fault);
    CHECK(fake::nccl_world.outlived == 0);
    CHECK(fake::nccl_world.live == 0);
    CHECK(streams::live_graphs() == 0);
    return results;
}

constexpr int64_t steps_of_all = 7;

/// Without recording.
const std::vector<Trained>& plain() {
    static const std::vector<Trained> once = trained(false, steps_of_all, [](Communicator&, Trainer&, int64_t) {});
    return once;
}

}  // namespace

TEST_CASE("graphs of ranks, batch norm over all of them, class weights: as steps op by op, bit for bit" *
          doctest::skip(!rn50::test::trains_emulated())) {
    const auto gather_now_and_then = [](Communicator& comm, Trainer& trainer, int64_t step) {
        if (step % 2 == 1) comm.sum({1.0});
        if (step == 5) comm.broadcast(trainer.net().state().running);  // as evaluation does
    };
    const std::vector<Trained> recorded = trained(true, steps_of_all, gather_now_and_then);
    for (size_t rank = 0; rank < ranks; ++rank) {
        CHECK(plain()[rank].failure.empty());
        CHECK(recorded[rank].failure.empty());
        CHECK(recorded[rank].replays == 3);
        CHECK(recorded[rank].losses == plain()[rank].losses);
        CHECK(recorded[rank].parameters == plain()[rank].parameters);
    }
    CHECK(plain()[0].parameters == plain()[1].parameters);
}

TEST_CASE("graphs of ranks: where one rank has none, nobody has, and training goes on" *
          doctest::skip(!rn50::test::trains_emulated())) {
    const auto refuse_one = [](Communicator& comm, Trainer&, int64_t step) {
        if (step == 4 && comm.rank() == 1) test::fail_next_instance(cudaErrorMemoryAllocation);
    };
    const std::vector<Trained> recorded = trained(true, steps_of_all, refuse_one);
    for (size_t rank = 0; rank < ranks; ++rank) {
        CHECK(recorded[rank].failure.empty());
        CHECK(recorded[rank].replays == 0);
        CHECK(recorded[rank].parameters == plain()[rank].parameters);
    }
}

TEST_CASE("graphs of ranks: a rank that ends while the other's graph waits for it ends that too, and graphs go first" *
          doctest::skip(!rn50::test::trains_emulated())) {
    std::atomic<bool> gone{false};
    const auto end_one = [&](Communicator& comm, Trainer&, int64_t step) {
        if (step < 6 || comm.rank() == 0) return;
        comm.fail("the disk is full");
        gone = true;
        throw Error(Exit::data, "the disk is full", "");
    };
    const std::vector<Trained> results = trained(true, 8, end_one);
    CHECK(gone);
    CHECK(results[1].failure == "the disk is full");
    CHECK(results[0].failure.find("rank 1 on ") != std::string::npos);
    CHECK(results[0].failure.find("was lost: the disk is full") != std::string::npos);
}
