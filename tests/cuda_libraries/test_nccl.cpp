// The engine of ranks on GPUs on a make-believe NCCL (fake_nccl.h), with a thread for each rank.
#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "base/random.h"
#include "comm/comm.h"
#include "comm/store.h"
#include "fake.h"
#include "fake_nccl.h"
#include "ledger.h"
#include "nccl_collectives.h"
#include "nccl_meeting.h"
#include "portable.h"

using namespace rn50;
using namespace rn50::cuda;
using fake::nccl_world;
using fake::world;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

namespace {

/// A fresh world; at the end no call may have broken the documentation, and all is given back.
struct Scene {
    Scene() {
        world = {};
        nccl_world = {};
    }
    ~Scene() {
        for (const std::string& fault : world.faults)
            FAIL_CHECK(fault);
        CHECK(world.live_streams == 0);
        CHECK(world.live_events == 0);
        CHECK(world.live_pinned == 0);
        CHECK(world.allocated == 0);
        CHECK(nccl_world.live == 0);
    }
};

/// The stream of a rank's backend.
class Queue {
  public:
    Queue() { cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, 0); }
    ~Queue() { cudaStreamDestroy(stream_); }
    cudaStream_t get() const { return stream_; }
    /// As a slow kernel would.
    void later(std::function<void()> work) const {
        fake::push(stream_, [work = std::move(work)] {
            std::this_thread::sleep_for(milliseconds(5));
            work();
        });
    }
    void wait() const {
        while (cudaStreamQuery(stream_) != cudaSuccess)
            std::this_thread::yield();
    }

  private:
    cudaStream_t stream_ = nullptr;
};

struct Rank {
    Place place;
    const Queue& queue;
};

/// Runs `work` in one thread a rank, each on a GPU of its own.
void in_threads(int ranks, const std::function<void(const Rank&)>& work) {
    const int port = StoreServer("127.0.0.1", 0, 1, "", milliseconds(1000)).port();
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks; ++rank)
        threads.emplace_back([&, rank] {
            Place place;
            place.rank = place.local_rank = rank;
            place.size = place.local_size = ranks;
            place.port = port;
            cudaSetDevice(rank);
            const Queue queue;
            try {
                work({place, queue});
            } catch (const std::exception& error) {
                FAIL_CHECK("rank ", rank, ": ", error.what());
            }
        });
    for (std::thread& thread : threads)
        thread.join();
}

std::unique_ptr<Collectives> engine_of(const Rank& rank, StoreClient& store, milliseconds patience) {
    return make_nccl(fake::fake_nccl(), rank.queue.get(), store, rank.place, patience);
}

/// The same with a communicator over the engine.
void in_ranks(int ranks, const std::function<void(Communicator&, const Queue&)>& work) {
    in_threads(ranks, [&](const Rank& rank) {
        Communicator comm(rank.place, milliseconds(20000));
        comm.connect(
            [&](StoreClient& store, const Place&, milliseconds patience) { return engine_of(rank, store, patience); });
        work(comm, rank.queue);
    });
}

/// The same with nothing but the store.
void in_engines(int ranks, const std::function<void(const Rank&, StoreClient&)>& work) {
    std::atomic<int> through{0};
    in_threads(ranks, [&](const Rank& rank) {
        std::unique_ptr<StoreServer> server;
        if (rank.place.rank == 0)
            server = std::make_unique<StoreServer>("127.0.0.1", rank.place.port, ranks, "", milliseconds(20000));
        StoreClient store("127.0.0.1", rank.place.port, rank.place.rank, "", milliseconds(20000));
        work(rank, store);
        ++through;
        while (through < ranks)
            std::this_thread::yield();
    });
}

struct Told {
    Exit code = Exit::ok;
    std::string what, remedy;
};

Told told(const std::function<void()>& action) {
    try {
        action();
    } catch (const Error& error) {
        return {error.code(), error.what(), error.remedy()};
    }
    return {};
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

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
            const Scene scene;
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
    const Scene scene;
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
    const Scene scene;
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
    const Scene scene;
    in_ranks(2, [](Communicator& comm, const Queue& queue) {
        Buffer values(DType::f32, 5);
        {
            Captured graph(queue);
            comm.begin_average(values.tensor());
            CHECK(told([&] { comm.gather(std::vector<double>{1.0}); }).code == Exit::device);
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
    const Scene scene;
    in_ranks(2, [](Communicator& comm, const Queue&) {
        const Tensor none{&comm, DType::f32, {0}};
        comm.average(none);
        comm.broadcast(none);
        comm.gather(none, none);
        comm.leave();
    });
}

TEST_CASE("nccl: what ranks exchange in is counted, and nothing is taken after the engine is there") {
    const Scene scene;
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
    const Scene scene;
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
    const Scene scene;
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
    const Scene scene;
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
    const Scene scene;
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

TEST_CASE("nccl: abort ends a wait for a rank that never comes, and the backend's stream with it") {
    const Scene scene;
    std::atomic<bool> over{false};
    in_engines(2, [&](const Rank& rank, StoreClient& store) {
        const auto engine = engine_of(rank, store, milliseconds(20000));
        if (rank.place.rank == 1) {
            while (!over)
                std::this_thread::yield();
            engine->abort();
            return;
        }
        std::vector<float> values(10);
        const Tensor tensor{values.data(), DType::f32, {10}};
        engine->begin_average(tensor);
        engine->finish_averages();
        std::thread other([&] {
            std::this_thread::sleep_for(milliseconds(50));
            engine->abort();
        });
        const auto begin = Clock::now();
        double mine = 0, all[2];
        const Told first = told([&] { engine->gather_host(&mine, sizeof mine, all); });
        CHECK(first.code == Exit::peer_lost);
        CHECK(contains(first.what, "a rank was lost"));
        CHECK(Clock::now() - begin < milliseconds(2000));
        other.join();
        rank.queue.wait();
        CHECK(told([&] { engine->begin_average(tensor); }).code == Exit::peer_lost);
        CHECK(told([&] { engine->finish_averages(); }).code == Exit::peer_lost);
        CHECK(told([&] { engine->broadcast(tensor); }).code == Exit::peer_lost);
        CHECK(told([&] { engine->gather(tensor, tensor); }).code == Exit::peer_lost);
        CHECK(told([&] { engine->gather_host(&mine, sizeof mine, all); }).code == Exit::peer_lost);
        engine->abort();
        over = true;
    });
}

TEST_CASE("nccl: a rank that fails ends the others' collectives with its reason") {
    const Scene scene;
    in_ranks(3, [](Communicator& comm, const Queue&) {
        if (comm.rank() == 1) {
            comm.fail("the disk is full");
            return;
        }
        const Told said = told([&] { comm.barrier(); });
        CHECK(said.code == Exit::peer_lost);
        CHECK(contains(said.what, cat("rank 1 on ", host_name(), " was lost: the disk is full")));
    });
}

TEST_CASE(
    "nccl: a first collective that never completes ends in time, with what helps where GPUs do not reach each other") {
    const Scene scene;
    nccl_world.stuck = true;
    const auto begin = Clock::now();
    in_threads(2, [](const Rank& rank) {
        Communicator comm(rank.place, {milliseconds(1000), milliseconds(600'000)});
        const Told said = told([&] {
            comm.connect([&](StoreClient& store, const Place&, milliseconds patience) {
                return engine_of(rank, store, patience);
            });
        });
        CHECK(said.code == Exit::peer_lost);
        CHECK(contains(said.what, "no rank has come further for 1 s: each of rank 0 on "));
        CHECK(contains(said.remedy, "NCCL_P2P_DISABLE=1"));
        CHECK(contains(said.remedy, "--resume auto"));
    });
    CHECK(Clock::now() - begin < milliseconds(10'000));
}

TEST_CASE("nccl: each call's failure is told with NCCL's words and a remedy, and nothing leaks") {
    std::vector<float> values(4), all(4);
    const auto use = [&](Collectives& engine) {
        const Tensor tensor{values.data(), DType::f32, {4}};
        engine.begin_average(tensor);
        engine.finish_averages();
        engine.broadcast(tensor);
        engine.gather(tensor, {all.data(), DType::f32, {1, 4}});
        engine.gather_host(values.data(), 16, all.data());
        double number = 1;
        engine.begin_sum(&number, 1);
        engine.finish_sum(&number);
    };
    const auto run = [&](const Rank& rank, StoreClient& store) {
        return told([&] { use(*engine_of(rank, store, milliseconds(5000))); });
    };
    for (const char* const name :
         {"GetUniqueId", "CommInitRankConfig", "AllReduce", "Broadcast", "AllGather", "CommGetAsyncError", "async"}) {
        CAPTURE(name);
        const Scene scene;
        nccl_world.failing[name] = ncclUnhandledCudaError;
        nccl_world.last_words = "Cuda failure 'peer access is not supported between these two devices'";
        in_engines(1, [&](const Rank& rank, StoreClient& store) {
            const Told said = run(rank, store);
            CHECK(said.code == Exit::device);
            CHECK(contains(said.what, "nccl"));
            CHECK(contains(said.what, "unhandled cuda error"));
            CHECK(contains(said.what, "peer access is not supported"));
            CHECK(contains(said.remedy, "NCCL_P2P_DISABLE=1"));
        });
    }
    {
        const Scene scene;
        nccl_world.failing["CommFinalize"] = ncclInternalError;  // then it is ended in the rough way
        in_engines(1, [&](const Rank& rank, StoreClient& store) { CHECK(run(rank, store).what.empty()); });
    }
    for (const char* const name :
         {"cudaGetDevice", "cudaDeviceGetPCIBusId", "cudaDeviceGetStreamPriorityRange", "cudaStreamCreateWithPriority",
          "cudaEventCreate", "cudaMalloc", "cudaMallocHost", "cudaEventRecord", "cudaStreamWaitEvent",
          "cudaMemcpyAsync", "cudaStreamQuery", "cudaEventQuery"}) {
        CAPTURE(name);
        const Scene scene;
        in_engines(1, [&](const Rank& rank, StoreClient& store) {
            world.failing[name] = cudaErrorLaunchFailure;
            const Told said = run(rank, store);
            CHECK(said.code == Exit::device);
            CHECK(contains(said.what, "something made up"));
            world.failing.clear();
        });
    }
}

TEST_CASE("nccl: what breaks at another rank waits for the heartbeats to tell whose end it was") {
    const Scene scene;
    in_engines(2, [&](const Rank& rank, StoreClient& store) {
        const auto engine = engine_of(rank, store, milliseconds(5000));
        if (rank.place.rank == 0) {
            nccl_world.failing_rank = 0;
            nccl_world.failing["async"] = ncclRemoteError;
            double mine = 0, all[2];
            const Told said = told([&] { engine->gather_host(&mine, sizeof mine, all); });
            CHECK(said.code == Exit::peer_lost);
            CHECK(contains(said.what, "remote process exited"));
        }
        engine->abort();
    });
}

TEST_CASE("nccl: ranks that do not come together give up with what may stand between them") {
    const Scene scene;
    nccl_world.absent = 1;
    in_engines(2, [&](const Rank& rank, StoreClient& store) {
        const Told said = told([&] { engine_of(rank, store, milliseconds(300)); });
        CHECK(said.code == Exit::peer_lost);
        CHECK(contains(said.what, "did not come together by NCCL within 0.3 s"));
        CHECK(contains(said.remedy, "firewall"));
        CHECK(contains(said.remedy, "NCCL_SOCKET_IFNAME"));
    });
}

TEST_CASE("nccl: two ranks on one GPU, and two versions, are told by all ranks before NCCL is asked") {
    const Scene scene;
    in_engines(3, [&](const Rank& rank, StoreClient& store) {
        cudaSetDevice(rank.place.rank == 2 ? 1 : rank.place.rank);
        const Told said = told([&] { engine_of(rank, store, milliseconds(5000)); });
        CHECK(said.code == Exit::device);
        CHECK(contains(said.what, cat("rank 1 and rank 2 are on one GPU (0000:01:00.0 of ", host_name())));
        CHECK(contains(said.remedy, "as many ranks on a machine as it has GPUs"));
    });
    in_engines(2, [&](const Rank& rank, StoreClient& store) {
        const NcclGuest me{cat("host", rank.place.rank, " boot"), "0000:01:00.0",
                           rank.place.rank == 0 ? "2.18.5" : "2.16.5"};
        const Told said = told([&] { meet_for_nccl(store, rank.place, me, "id", milliseconds(5000)); });
        CHECK(said.what == "rank 1 on host1 has NCCL 2.16.5, rank 0 on host0 has 2.18.5");
        CHECK(contains(said.remedy, "same version"));
    });
    in_engines(2, [&](const Rank& rank, StoreClient& store) {  // the same place on another machine is another GPU
        const NcclGuest me{cat("host boot", rank.place.rank), "0000:01:00.0", "2.18.5"};
        CHECK(meet_for_nccl(store, rank.place, me, "id", milliseconds(5000)).id == "id");
    });
    in_engines(2, [&](const Rank& rank, StoreClient& store) {
        if (rank.place.rank == 1) return;
        const Told said = told([&] {
            meet_for_nccl(store, rank.place, {"host boot", "bus", "2.18.5"}, "id", milliseconds(200));
        });
        CHECK(said.code == Exit::peer_lost);
        CHECK(contains(said.what, "rank 1 did not say which GPU it has within 0.2 s"));
    });
}

TEST_CASE("nccl: one engine's library is missing, none at all, too old, of another world, or the right one") {
    const Scene scene;
    Told said = told([] { load_nccl("libnccl-that-is-not-there.so.2"); });
    CHECK(said.code == Exit::device);
    CHECK(contains(said.what, "several GPUs need NCCL, which does not load"));
    CHECK(contains(said.remedy, "LD_LIBRARY_PATH"));
    said = told([] { load_nccl("libm.so.6"); });
    CHECK(contains(said.what, "libm.so.6 is not a whole NCCL: it has no ncclGetVersion"));
    CHECK(nccl_version_text(21605) == "2.16.5");
    CHECK(contains(nccl_built(), "2."));

    // NCCL itself, where somebody names one: it has every function in the form of the header.
    if (const char* const real = std::getenv("RN50_TEST_NCCL")) {
        int version = 0;
        CHECK(load_nccl(real).GetVersion(&version) == ncclSuccess);
        MESSAGE("NCCL ", nccl_version_text(version));
    }
    const char* const named = std::getenv("CXX");
    const std::string compiler = named == nullptr ? "g++" : named;
    if (std::system(cat("command -v ", compiler, " >/dev/null 2>&1").c_str()) != 0) return;
    const std::filesystem::path folder = std::filesystem::temp_directory_path() / cat("rn50-nccl-", getpid());
    std::filesystem::create_directories(folder);
    const auto library = [&](int version, const std::string& more) {
        static int made = 0;
        const std::string source = (folder / "nccl.cpp").string(), file = (folder / cat(++made, ".so")).string();
        write_file_atomic(source,
                          cat("extern \"C\" int ncclGetVersion(int* v) { *v = ", version, "; return 0; }\n", more));
        CHECK(std::system(cat(compiler, " -shared -fPIC ", source, " -o ", file).c_str()) == 0);
        return file;
    };
    said = told([&] { load_nccl(library(21403, "")); });
    CHECK(contains(said.what, "NCCL 2.14.3 is loaded, rn50_cuda.so takes 2 from 2.16.0 on"));
    said = told([&] { load_nccl(library(30001, "")); });
    CHECK(contains(said.what, "NCCL 3.0.1 is loaded"));
    said = told([&] { load_nccl(library(21605, "")); });
    CHECK(contains(said.what, "it has no ncclGetUniqueId"));
    std::string all;
    for (const char* const name :
         {"GetUniqueId", "CommInitRankConfig", "CommFinalize", "CommDestroy", "CommAbort", "CommGetAsyncError",
          "GetErrorString", "GetLastError", "AllReduce", "AllGather", "Broadcast"})
        all += cat("extern \"C\" int nccl", name, "() { return 0; }\n");
    const NcclLibrary whole = load_nccl(library(21605, all));
    CHECK((whole.Broadcast != nullptr));
    std::filesystem::remove_all(folder);
}
