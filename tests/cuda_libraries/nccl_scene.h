// Ranks on GPUs on a make-believe NCCL (fake_nccl.h), with a thread for each.
#pragma once

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "comm/comm.h"
#include "comm/store.h"
#include "fake.h"
#include "fake_nccl.h"
#include "nccl_collectives.h"

namespace rn50::fake {

using std::chrono::milliseconds;

/// A fresh world; at the end no call may have broken the documentation, and all is given back.
struct NcclScene {
    NcclScene() {
        world = {};
        nccl_world = {};
    }
    ~NcclScene() {
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
        push(stream_, [work = std::move(work)] {
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
inline void in_threads(int ranks, const std::function<void(const Rank&)>& work) {
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

inline std::unique_ptr<Collectives> engine_of(const Rank& rank, StoreClient& store, milliseconds patience) {
    return cuda::make_nccl(fake_nccl(), rank.queue.get(), store, rank.place, patience);
}

/// The same with a communicator over the engine.
inline void in_ranks(int ranks, const std::function<void(Communicator&, const Queue&)>& work) {
    in_threads(ranks, [&](const Rank& rank) {
        Communicator comm(rank.place, milliseconds(20000));
        comm.connect(
            [&](StoreClient& store, const Place&, milliseconds patience) { return engine_of(rank, store, patience); });
        work(comm, rank.queue);
    });
}

/// The same with nothing but the store.
inline void in_engines(int ranks, const std::function<void(const Rank&, StoreClient&)>& work) {
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

inline Told said_by(const std::function<void()>& action) {
    try {
        action();
    } catch (const Error& error) {
        return {error.code(), error.what(), error.remedy()};
    }
    return {};
}

inline bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

}  // namespace rn50::fake
