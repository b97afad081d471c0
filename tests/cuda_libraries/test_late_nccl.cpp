// The same in ranks, by NCCL's engine on the make-believe NCCL: what the hosts agree on stands between the averages of
// two steps, in the same order on all ranks, and no host waits for a step that it has just launched.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <memory>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "comm/store.h"
#include "fake.h"
#include "fake_nccl.h"
#include "fit_on_streams.h"
#include "nccl_collectives.h"

using namespace rn50;
using fake::done_early;
using fake::Left;
using fake::read_late;
using fake::Run;
using std::chrono::milliseconds;

namespace {

constexpr int ranks = 2, steps_an_epoch = 6;  // of 24 pictures, 2 a rank and batch

struct Scene : fake::LateScene {
    Scene() { fake::nccl_world = {}; }
    ~Scene() { CHECK(fake::nccl_world.live == 0); }
};

std::vector<Left> fit_in_ranks(const std::function<Run(int rank)>& how) {
    const int port = StoreServer("127.0.0.1", 0, 1, "", milliseconds(1000)).port();
    std::vector<Left> left(ranks);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks; ++rank)
        threads.emplace_back([&, rank] {
            cudaSetDevice(rank);
            Place place;
            place.rank = place.local_rank = rank;
            place.size = place.local_size = ranks;
            place.port = port;
            try {
                Communicator comm(place, milliseconds(20000));
                Run run = how(rank);
                run.comm = &comm;
                left[static_cast<size_t>(rank)] = fit_on_streams(run, [&](cudaStream_t stream) {
                    comm.connect([stream](StoreClient& store, const Place& at, milliseconds patience) {
                        return cuda::make_nccl(fake::fake_nccl(), stream, store, at, patience);
                    });
                });
                comm.leave();
            } catch (const std::exception& error) {
                FAIL_CHECK("rank ", rank, ": ", error.what());
            }
        });
    for (std::thread& thread : threads)
        thread.join();
    return left;
}

std::vector<Left> fit_in_ranks(const Run& how) {
    return fit_in_ranks([&](int) { return how; });
}

void check_same(const std::vector<Left>& one, const std::vector<Left>& other) {
    for (size_t rank = 0; rank < ranks; ++rank) {
        CHECK(one[rank].parameters == other[rank].parameters);
        CHECK(one[rank].parameters == one[0].parameters);
        CHECK(one[rank].lines == other[rank].lines);
    }
}

}  // namespace

TEST_CASE("late ranks: each launches a step before it reads the result of the one before, and the numbers stay") {
    for (const bool sync_norm : {false, true}) {
        const Scene scene;
        Run how;
        how.sync_norm = sync_norm;
        how.weighted = true;
        const std::vector<Left> late = fit_in_ranks(how);
        how.late = false;
        const std::vector<Left> waiting = fit_in_ranks(how);
        check_same(late, waiting);
        CHECK(late[0].lines.size() == 1 + 2 * (steps_an_epoch + 1));
        for (size_t rank = 0; rank < ranks; ++rank) {
            CHECK(read_late(late[rank]) >= steps_an_epoch);
            CHECK(read_late(late[rank]) == read_late(late[0]));
            CHECK(read_late(waiting[rank]) == 0);
        }
    }
}

TEST_CASE("late ranks: a host that is slow between two steps keeps no device waiting, its own neither") {
    const Scene scene;
    const std::vector<Left> late = fit_in_ranks([](int rank) {
        Run how;
        how.epochs = 1;
        how.touch = [](int, const std::string& what, const Tensor&) {
            if (what == "loss") std::this_thread::sleep_for(milliseconds(250));
        };
        if (rank == 1) how.after_line = [](int64_t) { std::this_thread::sleep_for(milliseconds(100)); };
        return how;
    });
    for (const Left& left : late)
        CHECK(done_early(left) >= steps_an_epoch - 3);
}

TEST_CASE("late ranks: one whose pictures come slowly is waited for, and the numbers stay") {
    const Scene scene;
    Run how;
    how.epochs = 1;
    const std::vector<Left> quick = fit_in_ranks(how);
    const std::vector<Left> slow = fit_in_ranks([&](int rank) {
        Run other = how;
        other.before_read = [rank, reads = std::make_shared<std::atomic<int>>(0)](int64_t) {
            // Longer than a step takes under sanitizers on busy cores, behind which it would not be waited for.
            if (rank == 1 && ++*reads % 3 == 0) std::this_thread::sleep_for(milliseconds(1500));
        };
        return other;
    });
    check_same(quick, slow);
    CHECK(read_late(slow[0]) == read_late(slow[1]));
    CHECK(read_late(slow[0]) < read_late(quick[0]));
}

TEST_CASE("late ranks: what is saved within an epoch, and where it ends early, is the state that the lines tell of") {
    const Scene scene;
    Run how;
    how.epochs = 1;
    const std::vector<Left> whole = fit_in_ranks(how);
    const fake::Folder folder;
    std::filesystem::remove(folder.path());
    how.folder = folder.path();
    how.save_seconds = 1e-6;
    how.max_steps = 4;
    const std::vector<Left> part = fit_in_ranks(how);
    CHECK(part[0].lines == std::vector<std::string>(whole[0].lines.begin(), whole[0].lines.begin() + 1 + 4));
    how.max_steps = 0;
    how.save_seconds = 0;
    CHECK(fit_in_ranks(how)[1].parameters == whole[1].parameters);
}

TEST_CASE("late ranks: a rank that cannot read its pictures leaves none within a step, and all is saved before") {
    const Scene scene;
    const fake::Folder folder;
    std::filesystem::remove(folder.path());
    const std::vector<Left> left = fit_in_ranks([&](int rank) {
        Run how;
        how.epochs = 1;
        how.folder = folder.path();
        if (rank == 1)
            how.before_read = [reads = std::make_shared<std::atomic<int>>(0)](int64_t) {
                if (++*reads > 8) throw ReadError("the disk is gone", EIO);
            };
        return how;
    });
    for (const Left& one : left)
        CHECK(one.failed.find("rank 1: the disk is gone") == 0);
    CHECK(left[0].lines.size() == 1 + 4);
    CHECK(saved_step(folder.path() + "/state.safetensors") == 4);
    Run how;
    how.folder = folder.path();
    how.epochs = 1;
    const std::vector<Left> resumed = fit_in_ranks(how);
    how.folder = "";
    CHECK(resumed[1].parameters == fit_in_ranks(how)[1].parameters);
}

TEST_CASE("late ranks: all of them diverge at the same step") {
    const Scene scene;
    Run how;
    how.lr = 1e30;
    const std::vector<Left> late = fit_in_ranks(how);
    how.late = false;
    const std::vector<Left> waiting = fit_in_ranks(how);
    for (size_t rank = 0; rank < ranks; ++rank) {
        CHECK(late[rank].failed.find("diverged: the loss is not a number at step 2 (epoch 1); not finite first: ") ==
              0);
        CHECK(late[rank].failed == waiting[rank].failed);
    }
}
