// The collectives of ranks on GPUs, on a make-believe NCCL.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "base/random.h"
#include "ledger.h"
#include "nccl_scene.h"
#include "portable.h"

using namespace rn50;
using namespace rn50::cuda;
using fake::contains;
using fake::engine_of;
using fake::in_engines;
using fake::in_ranks;
using fake::NcclScene;
using fake::nccl_world;
using fake::Queue;
using fake::Rank;
using fake::said_by;
using fake::Told;
using fake::world;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

namespace {

float value_of(int rank, int64_t i, int round) {
    return static_cast<float>((i * 37 + rank * 11 + round * 5) % 97 - 48) / 8;
}

/// Memory of `dtype`, whose elements are given and taken as f32.
struct Buffer {
    Buffer(DType type, int64_t size) : dtype(type), bytes(static_cast<size_t>(size * size_of(type))), count(size) {}
    Tensor tensor() { return {bytes.data(), dtype, {count}}; }
    void set(int64_t i, float value) {
        if (dtype == DType::f32) reinterpret_cast<float*>(bytes.data())[i] = value;
        if (dtype == DType::f16) reinterpret_cast<__half*>(bytes.data())[i] = __float2half_rn(value);
        if (dtype == DType::bf16) reinterpret_cast<__nv_bfloat16*>(bytes.data())[i] = __float2bfloat16_rn(value);
    }
    float get(int64_t i) const {
        if (dtype == DType::f32) return reinterpret_cast<const float*>(bytes.data())[i];
        if (dtype == DType::f16) return __half2float(reinterpret_cast<const __half*>(bytes.data())[i]);
        return __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(bytes.data())[i]);
    }
    DType dtype;
    std::vector<char> bytes;
    int64_t count;
};

}  // namespace

TEST_CASE("nccl: averages are the mean of what the backend's stream has made, in each dtype") {
    for (const int ranks : {1, 2, 3})
        for (const auto& [dtype, near] : {std::pair{DType::f32, 1e-6}, {DType::f16, 1e-3}, {DType::bf16, 8e-3}}) {
            CAPTURE(ranks);
            CAPTURE(name_of(dtype));
            const NcclScene scene;
            in_ranks(ranks, [&, type = dtype, bound = near](Communicator& comm, const Queue& queue) {
                CHECK(contains(comm.engine(), "NCCL 2.28.9"));
                CHECK(contains(comm.engine(), "peer-to-peer") == (ranks > 1 && comm.rank() == 0));
                Buffer first(type, 101), second(type, 64), seen(type, 165);
                const auto fill = [&](Buffer& buffer, int round) {
                    queue.later([&, round] {
                        for (int64_t i = 0; i < buffer.count; ++i)
                            buffer.set(i, value_of(comm.rank(), i, round));
                    });
                };
                fill(first, 0);
                comm.begin_average(first.tensor());
                fill(second, 1);
                comm.begin_average(second.tensor());
                comm.finish_averages();
                queue.later([&] {
                    for (int64_t i = 0; i < 165; ++i)
                        seen.set(i, i < 101 ? first.get(i) : second.get(i - 101));
                });
                queue.wait();
                for (int64_t i = 0; i < 165; ++i) {
                    double mean = 0;
                    for (int rank = 0; rank < ranks; ++rank)
                        mean += static_cast<double>(i < 101 ? value_of(rank, i, 0) : value_of(rank, i - 101, 1));
                    mean /= ranks;
                    if (std::abs(static_cast<double>(seen.get(i)) - mean) > bound * (1 + std::abs(mean)))
                        FAIL_CHECK("element ", i, " is ", seen.get(i), ", not ", mean);
                }
                const auto all = comm.gather(std::string(seen.bytes.begin(), seen.bytes.end()));
                for (const std::string& others : all)
                    CHECK(others == all[0]);
                comm.leave();
            });
        }
}

TEST_CASE("nccl: broadcasts and gathers stand in the order of the backend's stream") {
    const NcclScene scene;
    in_ranks(3, [](Communicator& comm, const Queue& queue) {
        for (const int64_t count : {int64_t{1}, int64_t{7}, int64_t{1023}}) {
            std::vector<float> values(static_cast<size_t>(count)), all(static_cast<size_t>(3 * count)), seen;
            const auto fill = [&](int round) {
                queue.later([&, round] {
                    // The others' queues are through before: only what they wait for is right.
                    if (comm.rank() == 0) std::this_thread::sleep_for(milliseconds(30));
                    for (size_t i = 0; i < values.size(); ++i)
                        values[i] = value_of(comm.rank(), static_cast<int64_t>(i), round);
                });
            };
            fill(0);
            comm.gather({values.data(), DType::f32, {count}}, {all.data(), DType::f32, {3, count}});
            fill(1);  // not before the gather has read
            comm.broadcast({values.data(), DType::f32, {count}});
            queue.later([&] { seen = values; });
            queue.wait();
            for (int64_t i = 0; i < count; ++i) {
                CHECK(seen[static_cast<size_t>(i)] == value_of(0, i, 1));
                for (int rank = 0; rank < 3; ++rank)
                    CHECK(all[static_cast<size_t>(rank * count + i)] == value_of(rank, i, 0));
            }
        }
        comm.leave();
    });
}

namespace {

/// A graph of what is captured on the queue within its life.
class Captured {
  public:
    explicit Captured(const Queue& queue) : stream_(queue.get()) {
        cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal);
    }
    ~Captured() { cudaGraphExecDestroy(instance_); }
    /// What the end of the capture says.
    cudaError_t end() {
        cudaGraph_t graph = nullptr;
        const cudaError_t status = cudaStreamEndCapture(stream_, &graph);
        if (graph != nullptr) cudaGraphInstantiate(&instance_, graph, 0);
        if (graph != nullptr) cudaGraphDestroy(graph);
        return status;
    }
    void launch() const { CHECK(cudaGraphLaunch(instance_, stream_) == cudaSuccess); }

  private:
    cudaStream_t stream_;
    cudaGraphExec_t instance_ = nullptr;
};

}  // namespace

TEST_CASE("nccl: a step's collectives can be captured in a graph, and those after it come after it") {
    const NcclScene scene;
    in_ranks(2, [](Communicator& comm, const Queue& queue) {
        constexpr int64_t count = 33;
        Buffer first(DType::f32, count), second(DType::f16, 65), mine(DType::f32, 8), all(DType::f32, 16);
        std::vector<float> seen(static_cast<size_t>(count));
        int round = 0;
        Captured graph(queue);
        comm.gather(mine.tensor(), all.tensor());
        queue.later([&] {
            for (int64_t i = 0; i < count; ++i)
                first.set(i, value_of(comm.rank(), i, round));
        });
        comm.begin_average(first.tensor());
        comm.begin_average(second.tensor());
        comm.finish_averages();
        queue.later([&] {
            for (int64_t i = 0; i < count; ++i)
                seen[static_cast<size_t>(i)] = first.get(i);
        });
        comm.broadcast(mine.tensor());
        CHECK(graph.end() == cudaSuccess);
        for (round = 1; round < 12;) {
            comm.run_recorded([&] { graph.launch(); });
            comm.barrier();  // by NCCL's own stream
            queue.wait();
            for (int64_t i = 0; i < count; ++i)
                CHECK(seen[static_cast<size_t>(i)] == (value_of(0, i, round) + value_of(1, i, round)) / 2);
            ++round;
        }
        comm.leave();
    });
    CHECK(world.faults.empty());
    CHECK(nccl_world.outlived == 0);
}

TEST_CASE("nccl: what the host wants to know cannot be captured, nor averages that nobody waits for") {
    const NcclScene scene;
    in_ranks(2, [](Communicator& comm, const Queue& queue) {
        Buffer values(DType::f32, 5);
        {
            Captured graph(queue);
            comm.begin_average(values.tensor());
            CHECK(said_by([&] { comm.gather(std::vector<double>{1.0}); }).code == Exit::device);
            CHECK(graph.end() != cudaSuccess);
        }
        {
            Captured graph(queue);
            comm.begin_average(values.tensor());
            CHECK(graph.end() == cudaErrorStreamCaptureUnjoined);
        }
        comm.barrier();
        comm.leave();
    });
    CHECK_FALSE(world.faults.empty());
    world.faults.clear();
}

TEST_CASE("nccl: nothing is asked for nothing") {
    const NcclScene scene;
    in_ranks(2, [](Communicator& comm, const Queue&) {
        const Tensor none{&comm, DType::f32, {0}};
        comm.average(none);
        comm.broadcast(none);
        comm.gather(none, none);
        comm.leave();
    });
}

TEST_CASE("nccl: what ranks exchange in is counted, and nothing is taken after the engine is there") {
    const NcclScene scene;
    in_engines(1, [](const Rank& rank, StoreClient& store) {
        const auto engine = engine_of(rank, store, milliseconds(20000));
        CHECK(world.allocated > 0);
        CHECK(ledger().bytes(Taken::collectives) == world.allocated);
        const int before = world.allocations;
        const std::string mine(9000001, 'x');
        std::string all(mine.size(), '?');
        engine->gather_host(mine.data(), static_cast<int64_t>(mine.size()), all.data());
        CHECK(all == mine);
        CHECK(world.allocations == before);
    });
    CHECK(ledger().total() == 0);
}

TEST_CASE("nccl: host memory is gathered, in pieces where it is large") {
    const NcclScene scene;
    in_engines(3, [](const Rank& rank, StoreClient& store) {
        const auto engine = engine_of(rank, store, milliseconds(20000));
        for (const int64_t bytes : {1, 3, 255, 1048576, 1048577, 3000001}) {
            std::string mine(static_cast<size_t>(bytes), '\0'), all(static_cast<size_t>(3 * bytes), '?');
            const auto letter = [&](int of, int64_t i) { return static_cast<char>((i * 7 + of * 31 + bytes) % 127); };
            for (int64_t i = 0; i < bytes; ++i)
                mine[static_cast<size_t>(i)] = letter(rank.place.rank, i);
            engine->gather_host(mine.data(), bytes, all.data());
            int64_t wrong = 0;
            for (int of = 0; of < 3; ++of)
                for (int64_t i = 0; i < bytes; ++i)
                    wrong += all[static_cast<size_t>(of * bytes + i)] != letter(of, i);
            CHECK(wrong == 0);
        }
    });
}

TEST_CASE("nccl: numbers of the hosts are summed, in pieces where there are many") {
    const NcclScene scene;
    in_engines(3, [](const Rank& rank, StoreClient& store) {
        const auto engine = engine_of(rank, store, milliseconds(20000));
        for (const int64_t count : {1, 5, 524288, 700001}) {
            std::vector<double> numbers(static_cast<size_t>(count));
            const auto number = [&](int of, int64_t i) {
                return static_cast<double>((i * 7 + of * 31 + count) % 1009);
            };
            for (int64_t i = 0; i < count; ++i)
                numbers[static_cast<size_t>(i)] = number(rank.place.rank, i);
            engine->sum_host(numbers.data(), count);
            int64_t wrong = 0;
            for (int64_t i = 0; i < count; ++i)
                wrong += numbers[static_cast<size_t>(i)] != number(0, i) + number(1, i) + number(2, i);
            CHECK(wrong == 0);
        }
    });
}

TEST_CASE("nccl: a sum that is begun is there while what later averages wait for is still computed") {
    const NcclScene scene;
    std::atomic<int> through{0};
    in_ranks(3, [&](Communicator& comm, const Queue& queue) {
        Buffer first(DType::f32, 33), second(DType::f32, 65);
        for (int round = 0; round < 5; ++round) {
            queue.later([&, round] { first.set(0, value_of(comm.rank(), 0, round)); });
            comm.begin_average(first.tensor());
            comm.finish_averages();
            comm.begin_sum({1.0 + comm.rank(), static_cast<double>(round), 0.1});
            // The step after: it lasts until all hosts have their sums.
            queue.later([&, round] {
                const auto end = Clock::now() + milliseconds(10000);
                while (through < 3 * (round + 1) && Clock::now() < end)
                    std::this_thread::yield();
                CHECK(through >= 3 * (round + 1));
            });
            comm.begin_average(second.tensor());
            comm.finish_averages();
            CHECK_THROWS_AS(comm.begin_sum({1.0}), Error);
            CHECK(comm.finish_sum() == std::vector<double>{6, 3.0 * round, 0.1 + 0.1 + 0.1});
            ++through;
            queue.wait();
            CHECK_THROWS_AS(comm.finish_sum(), Error);
        }
        CHECK(comm.sum({2.0}) == std::vector<double>{6});
        comm.leave();
    });
}

TEST_CASE("nccl: what the hosts gather between the halves of a sum leaves it alone") {
    const NcclScene scene;
    in_engines(1, [&](const Rank& rank, StoreClient& store) {
        const auto engine = engine_of(rank, store, milliseconds(5000));
        double number = 2, all = 0;
        engine->begin_sum(&number, 1);
        double other = 3;
        engine->gather_host(&other, sizeof other, &all);
        CHECK(all == 3);
        other = 4;
        engine->sum_host(&other, 1);
        CHECK(other == 4);
        CHECK_THROWS_AS(engine->begin_sum(&number, 1), Error);
        engine->finish_sum(&all);
        CHECK(all == 2);
    });
}
