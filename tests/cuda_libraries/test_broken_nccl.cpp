// Ranks on GPUs that fail, are lost or do not come together, on a make-believe NCCL.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "base/files.h"
#include "nccl_meeting.h"
#include "nccl_scene.h"
#include "portable.h"

using namespace rn50;
using namespace rn50::cuda;
using fake::contains;
using fake::engine_of;
using fake::in_engines;
using fake::in_ranks;
using fake::in_threads;
using fake::NcclScene;
using fake::nccl_world;
using fake::Queue;
using fake::Rank;
using fake::said_by;
using fake::Told;
using fake::world;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

TEST_CASE("nccl: abort ends a wait for a rank that never comes, and the backend's stream with it") {
    const NcclScene scene;
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
        const Told first = said_by([&] { engine->gather_host(&mine, sizeof mine, all); });
        CHECK(first.code == Exit::peer_lost);
        CHECK(contains(first.what, "a rank was lost"));
        CHECK(Clock::now() - begin < milliseconds(2000));
        other.join();
        rank.queue.wait();
        CHECK(said_by([&] { engine->begin_average(tensor); }).code == Exit::peer_lost);
        CHECK(said_by([&] { engine->finish_averages(); }).code == Exit::peer_lost);
        CHECK(said_by([&] { engine->broadcast(tensor); }).code == Exit::peer_lost);
        CHECK(said_by([&] { engine->gather(tensor, tensor); }).code == Exit::peer_lost);
        CHECK(said_by([&] { engine->gather_host(&mine, sizeof mine, all); }).code == Exit::peer_lost);
        engine->abort();
        over = true;
    });
}

TEST_CASE("nccl: a rank that fails ends the others' collectives with its reason") {
    const NcclScene scene;
    in_ranks(3, [](Communicator& comm, const Queue&) {
        if (comm.rank() == 1) {
            comm.fail("the disk is full");
            return;
        }
        const Told said = said_by([&] { comm.barrier(); });
        CHECK(said.code == Exit::peer_lost);
        CHECK(contains(said.what, cat("rank 1 on ", host_name(), " was lost: the disk is full")));
    });
}

TEST_CASE(
    "nccl: a first collective that never completes ends in time, with what helps where GPUs do not reach each other") {
    const NcclScene scene;
    nccl_world.stuck = true;
    const auto begin = Clock::now();
    in_threads(2, [](const Rank& rank) {
        Communicator comm(rank.place, {milliseconds(1000), milliseconds(600'000)});
        const Told said = said_by([&] {
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
        return said_by([&] { use(*engine_of(rank, store, milliseconds(5000))); });
    };
    for (const char* const name :
         {"GetUniqueId", "CommInitRankConfig", "AllReduce", "Broadcast", "AllGather", "CommGetAsyncError", "async"}) {
        CAPTURE(name);
        const NcclScene scene;
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
        const NcclScene scene;
        nccl_world.failing["CommFinalize"] = ncclInternalError;  // then it is ended in the rough way
        in_engines(1, [&](const Rank& rank, StoreClient& store) { CHECK(run(rank, store).what.empty()); });
    }
    for (const char* const name :
         {"cudaGetDevice", "cudaDeviceGetPCIBusId", "cudaDeviceGetStreamPriorityRange", "cudaStreamCreateWithPriority",
          "cudaEventCreate", "cudaMalloc", "cudaMallocHost", "cudaEventRecord", "cudaStreamWaitEvent",
          "cudaMemcpyAsync", "cudaStreamQuery", "cudaEventQuery"}) {
        CAPTURE(name);
        const NcclScene scene;
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
    const NcclScene scene;
    in_engines(2, [&](const Rank& rank, StoreClient& store) {
        const auto engine = engine_of(rank, store, milliseconds(5000));
        if (rank.place.rank == 0) {
            nccl_world.failing_rank = 0;
            nccl_world.failing["async"] = ncclRemoteError;
            double mine = 0, all[2];
            const Told said = said_by([&] { engine->gather_host(&mine, sizeof mine, all); });
            CHECK(said.code == Exit::peer_lost);
            CHECK(contains(said.what, "remote process exited"));
        }
        engine->abort();
    });
}

TEST_CASE("nccl: ranks that do not come together give up with what may stand between them") {
    const NcclScene scene;
    nccl_world.absent = 1;
    in_engines(2, [&](const Rank& rank, StoreClient& store) {
        const Told said = said_by([&] { engine_of(rank, store, milliseconds(300)); });
        CHECK(said.code == Exit::peer_lost);
        CHECK(contains(said.what, "did not come together by NCCL within 0.3 s"));
        CHECK(contains(said.remedy, "firewall"));
        CHECK(contains(said.remedy, "NCCL_SOCKET_IFNAME"));
    });
}

TEST_CASE("nccl: two ranks on one GPU, and two versions, are told by all ranks before NCCL is asked") {
    const NcclScene scene;
    in_engines(3, [&](const Rank& rank, StoreClient& store) {
        cudaSetDevice(rank.place.rank == 2 ? 1 : rank.place.rank);
        const Told said = said_by([&] { engine_of(rank, store, milliseconds(5000)); });
        CHECK(said.code == Exit::device);
        CHECK(contains(said.what, cat("rank 1 and rank 2 are on one GPU (0000:01:00.0 of ", host_name())));
        CHECK(contains(said.remedy, "as many ranks on a machine as it has GPUs"));
    });
    in_engines(2, [&](const Rank& rank, StoreClient& store) {
        const NcclGuest me{cat("host", rank.place.rank, " boot"), "0000:01:00.0",
                           rank.place.rank == 0 ? "2.18.5" : "2.16.5"};
        const Told said = said_by([&] { meet_for_nccl(store, rank.place, me, "id", milliseconds(5000)); });
        CHECK(said.what == "rank 1 on host1 has NCCL 2.16.5, rank 0 on host0 has 2.18.5");
        CHECK(contains(said.remedy, "same version"));
    });
    in_engines(2, [&](const Rank& rank, StoreClient& store) {  // the same place on another machine is another GPU
        const NcclGuest me{cat("host boot", rank.place.rank), "0000:01:00.0", "2.18.5"};
        CHECK(meet_for_nccl(store, rank.place, me, "id", milliseconds(5000)).id == "id");
    });
    in_engines(2, [&](const Rank& rank, StoreClient& store) {
        if (rank.place.rank == 1) return;
        const Told said = said_by([&] {
            meet_for_nccl(store, rank.place, {"host boot", "bus", "2.18.5"}, "id", milliseconds(200));
        });
        CHECK(said.code == Exit::peer_lost);
        CHECK(contains(said.what, "rank 1 did not say which GPU it has within 0.2 s"));
    });
}

TEST_CASE("nccl: one engine's library is missing, none at all, too old, of another world, or the right one") {
    const NcclScene scene;
    Told said = said_by([] { load_nccl("libnccl-that-is-not-there.so.2"); });
    CHECK(said.code == Exit::device);
    CHECK(contains(said.what, "several GPUs need NCCL, which does not load"));
    CHECK(contains(said.remedy, "LD_LIBRARY_PATH"));
    said = said_by([] { load_nccl("libm.so.6"); });
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
    said = said_by([&] { load_nccl(library(21403, "")); });
    CHECK(contains(said.what, "NCCL 2.14.3 is loaded, rn50_cuda.so takes 2 from 2.16.0 on"));
    said = said_by([&] { load_nccl(library(30001, "")); });
    CHECK(contains(said.what, "NCCL 3.0.1 is loaded"));
    said = said_by([&] { load_nccl(library(21605, "")); });
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
