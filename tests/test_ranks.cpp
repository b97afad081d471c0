// Ranks: where a process stands, the store, and the collectives, here between threads of one process.
#include <doctest/doctest.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmath>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "base/random.h"
#include "comm/comm.h"
#include "comm/store.h"
#include "train/trainer.h"

using namespace rn50;
using std::chrono::milliseconds;

namespace {

std::optional<Place> place_in(const std::map<std::string, std::string>& variables) {
    return place_from([&](const std::string& name) {
        const auto found = variables.find(name);
        return found == variables.end() ? std::string() : found->second;
    });
}

int free_port() {
    return StoreServer("127.0.0.1", 0, 1, "", milliseconds(1000)).port();
}

/// Runs `work` in one thread a rank, each with a communicator of its own.
void in_ranks(int ranks, milliseconds patience, const std::function<void(Communicator&)>& work) {
    const int port = free_port();
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks; ++rank)
        threads.emplace_back([&, rank] {
            Place place;
            place.rank = place.local_rank = rank;
            place.size = place.local_size = ranks;
            place.port = port;
            place.token = "secret";
            try {
                Communicator comm(place, patience);
                comm.connect(make_gloo);
                work(comm);
            } catch (const std::exception& error) {
                FAIL_CHECK("rank ", rank, ": ", error.what());
            }
        });
    for (std::thread& thread : threads)
        thread.join();
}

std::string what_of(const std::function<void()>& action) {
    try {
        action();
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a process finds its place in the variables of torchrun, Slurm and Open MPI") {
    CHECK(!place_in({}));
    CHECK(!place_in({{"RANK", "0"}, {"WORLD_SIZE", "1"}}));
    CHECK(!place_in({{"RANK", "0"}}));

    const auto torchrun = place_in({{"RANK", "5"},
                                    {"WORLD_SIZE", "8"},
                                    {"LOCAL_RANK", "1"},
                                    {"LOCAL_WORLD_SIZE", "4"},
                                    {"MASTER_ADDR", "node0"},
                                    {"MASTER_PORT", "4000"},
                                    {"SLURM_PROCID", "7"},
                                    {"SLURM_NTASKS", "9"}});
    REQUIRE(torchrun);
    CHECK(torchrun->rank == 5);
    CHECK(torchrun->size == 8);
    CHECK(torchrun->local_rank == 1);
    CHECK(torchrun->local_size == 4);
    CHECK(torchrun->address == "node0");
    CHECK(torchrun->port == 4001);
    CHECK(torchrun->source == "RANK");

    const auto slurm = place_in({{"SLURM_PROCID", "3"},
                                 {"SLURM_NTASKS", "4"},
                                 {"SLURM_LOCALID", "1"},
                                 {"SLURM_STEP_NODELIST", "gpu[07-08,12]"},
                                 {"RN50_TOKEN", "t"}});
    REQUIRE(slurm);
    CHECK(slurm->rank == 3);
    CHECK(slurm->local_rank == 1);
    CHECK(slurm->address == "gpu07");
    CHECK(slurm->port == 29501);
    CHECK(slurm->token == "t");

    const auto mpi = place_in({{"OMPI_COMM_WORLD_RANK", "1"},
                               {"OMPI_COMM_WORLD_SIZE", "2"},
                               {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                               {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}});
    REQUIRE(mpi);
    CHECK(mpi->rank == 1);
    CHECK(mpi->address == "127.0.0.1");
}

TEST_CASE("places that cannot be are refused with the variable's name") {
    CHECK(contains(what_of([] { place_in({{"RANK", "2"}, {"WORLD_SIZE", "2"}}); }), "RANK=2"));
    CHECK(contains(what_of([] { place_in({{"RANK", "x"}, {"WORLD_SIZE", "2"}}); }), "RANK=x"));
    CHECK(contains(what_of([] { place_in({{"RANK", "0"}, {"WORLD_SIZE", "-3"}}); }), "WORLD_SIZE=-3"));
    CHECK(contains(what_of([] {
                       place_in({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_PORT", "65535"}});
                   }),
                   "MASTER_PORT=65535"));
    CHECK(contains(what_of([] {
                       place_in({{"OMPI_COMM_WORLD_RANK", "0"},
                                 {"OMPI_COMM_WORLD_SIZE", "4"},
                                 {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}});
                   }),
                   "none of them is said to hold rank 0"));
}

TEST_CASE("the first host of Slurm's lists") {
    CHECK(first_host("n1") == "n1");
    CHECK(first_host("n1,n2") == "n1");
    CHECK(first_host("node[03-07,9],other") == "node03");
    CHECK(first_host("a,node[1-2]") == "a");
    CHECK(first_host("rack[1,4]-n") == "rack1-n");
    CHECK(first_host("node[3") == "");
    CHECK(first_host("") == "");
}

TEST_CASE("the store keeps values, and lets nobody in without the token") {
    const StoreServer server("127.0.0.1", 0, 2, "secret", milliseconds(2000));
    StoreClient a("127.0.0.1", server.port(), 0, "secret", milliseconds(2000));
    StoreClient b("127.0.0.1", server.port(), 1, "secret", milliseconds(2000));
    std::string value;
    CHECK(!b.get("key", value));
    CHECK(!b.wait("key", value, milliseconds(20)));
    const std::string long_one(300000, 'x');
    a.set("key", long_one);
    CHECK(b.wait("key", value, milliseconds(20)));
    CHECK(value == long_one);
    CHECK(a.local_address() == "127.0.0.1");
    const auto join = [&](int rank, const std::string& token) {
        return what_of([&] { StoreClient("127.0.0.1", server.port(), rank, token, milliseconds(2000)); });
    };
    CHECK(contains(join(1, "guess"), "refuses"));
    CHECK(contains(join(2, "secret"), "refuses"));
    CHECK(join(1, "secret").empty());
    CHECK(contains(what_of([&] { StoreServer("127.0.0.1", server.port(), 2, "", milliseconds(2000)); }),
                   "cannot listen on port"));
}

TEST_CASE("the store survives what is no message of ours") {
    const StoreServer server("127.0.0.1", 0, 2, "", milliseconds(2000));
    for (const std::string& rubbish :
         {std::string("GET / HTTP/1.1\r\n\r\n"), std::string("\xff\xff\xff\xff", 4), std::string("\0\0\0\0", 4),
          std::string("\0\0\0\1H", 5), std::string("\0\0\0\x09H\xff\xff\xff\xff\0\0\0\0", 13)}) {
        const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
        sockaddr_in there{};
        there.sin_family = AF_INET;
        there.sin_port = htons(static_cast<uint16_t>(server.port()));
        there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        REQUIRE(connect(socket, reinterpret_cast<const sockaddr*>(&there), sizeof there) == 0);
        REQUIRE(send(socket, rubbish.data(), rubbish.size(), MSG_NOSIGNAL) > 0);
        char byte;
        CHECK(recv(socket, &byte, 1, 0) <= 0);  // it hangs up
        close(socket);
    }
    StoreClient client("127.0.0.1", server.port(), 1, "", milliseconds(2000));
    client.set("a", "b");
}

TEST_CASE("a silent rank and a closed connection are told to the others, a farewell is not") {
    const StoreServer server("127.0.0.1", 0, 4, "", milliseconds(400));
    const auto client = [&](int rank) {
        return std::make_unique<StoreClient>("127.0.0.1", server.port(), rank, "", milliseconds(2000));
    };
    auto watcher = client(0), leaver = client(1), silent = client(2);
    CHECK(watcher->beat().empty());
    CHECK(leaver->beat().empty());
    leaver->farewell("");
    leaver.reset();
    std::this_thread::sleep_for(milliseconds(250));
    CHECK(watcher->beat().empty());
    SUBCASE("silence") {
        CHECK(silent->beat().empty());
        std::string loss;
        for (int i = 0; i < 50 && loss.empty(); ++i) {
            std::this_thread::sleep_for(milliseconds(50));
            loss = watcher->beat();
        }
        CHECK(contains(loss, cat("rank 2 on ", host_name(), " was lost: no sign of life for 0.4 s")));
        silent->farewell("");
    }
    SUBCASE("closed") {
        CHECK(silent->beat().empty());
        silent.reset();
        std::this_thread::sleep_for(milliseconds(250));
        CHECK(contains(watcher->beat(), "rank 2"));
    }
    SUBCASE("an error of its own") {
        CHECK(silent->beat().empty());
        silent->farewell("the disk is full");
        CHECK(contains(watcher->beat(), "was lost: the disk is full"));
    }
}

TEST_CASE("collectives of two to four ranks equal a naive sum") {
    if (gloo_version().empty()) return;
    for (const int ranks : {2, 3, 4})
        in_ranks(ranks, milliseconds(20000), [ranks](Communicator& comm) {
            for (const int64_t count : {int64_t{1}, int64_t{7}, int64_t{70001}}) {
                std::vector<float> values(static_cast<size_t>(count)), first;
                const auto value = [](int rank, int64_t i) {
                    return std::sin(static_cast<float>(i * 7 + rank * 1000));
                };
                for (int64_t i = 0; i < count; ++i)
                    values[static_cast<size_t>(i)] = value(comm.rank(), i);
                Tensor tensor{values.data(), DType::f32, {count}};
                comm.average(tensor);
                double worst = 0;
                for (int64_t i = 0; i < count; ++i) {
                    double expected = 0;
                    for (int rank = 0; rank < ranks; ++rank)
                        expected += static_cast<double>(value(rank, i)) / ranks;
                    worst = std::max(worst, std::abs(expected - static_cast<double>(values[static_cast<size_t>(i)])));
                }
                CHECK(worst < 1e-6);
                std::vector<float> all(values.size() * static_cast<size_t>(ranks));
                comm.gather(tensor, {all.data(), DType::f32, {ranks, count}});
                for (size_t i = 0; i < all.size(); ++i)
                    if (all[i] != values[i % values.size()]) FAIL_CHECK("ranks have other bits at ", i);
                values[0] = static_cast<float>(comm.rank());
                comm.broadcast(tensor);
                CHECK(values[0] == 0.0f);
            }
            const auto texts = comm.gather(std::string(static_cast<size_t>(comm.rank() * 3), 'r'));
            for (int rank = 0; rank < ranks; ++rank)
                CHECK(texts[static_cast<size_t>(rank)].size() == static_cast<size_t>(rank * 3));
            CHECK(comm.sum({1.0, 0.1})[0] == ranks);
            comm.leave();
        });
}

TEST_CASE("a rank that fails ends the others' collectives with its reason") {
    if (gloo_version().empty()) return;
    in_ranks(3, milliseconds(20000), [](Communicator& comm) {
        if (comm.rank() == 1) {
            comm.fail("the disk is full");
            return;
        }
        const std::string said = what_of([&] { comm.barrier(); });
        CHECK(contains(said, cat("rank 1 on ", host_name(), " was lost: the disk is full")));
        CHECK(contains(what_of([&] { comm.barrier(); }), "the disk is full"));
    });
}

TEST_CASE("a rank that never arrives is named") {
    if (gloo_version().empty()) return;
    Place place;
    place.size = 3;
    place.port = 0;
    CHECK(contains(what_of([&] { Communicator(place, milliseconds(300)); }),
                   "rank 1, 2 of 3 did not arrive within 0.3 s"));
}

namespace {

/// What one run of `ranks` trainers ends with: rank 0's parameters, and the mean loss of each step.
struct Trained {
    std::vector<float> parameters, losses;
};

struct Shards {
    int ranks = 1;
    bool sync = true;
    bool same = false;  ///< every rank takes the first part
};

/// Five steps of SGD over the same eight pictures a step, however many ranks share them.
Trained trained(const Shards& how) {
    constexpr int64_t global = 8, side = 32, classes = 5;
    const int64_t batch = global / how.ranks;
    Trained result;
    result.losses.resize(5);
    std::mutex mutex;
    const auto work = [&](Communicator* comm) {
        const std::unique_ptr<Backend> backend = make_backend("cpu", 1);
        TrainerOptions options;
        options.net.model = "resnet18";
        options.net.classes = classes;
        options.net.image_size = side;
        options.net.batch = batch;
        options.net.dropout = 0.3f;
        options.optimizer.kind = OptimizerDesc::Kind::sgd;
        options.seed = 3;
        options.comm = comm;
        options.sync_norm = how.sync;
        Arena arena(backend->memory(), plan_memory(*backend, options).peak);
        Trainer trainer(*backend, arena, options);
        trainer.initialize();
        trainer.follow_rank_0();
        const int64_t first = comm == nullptr || how.same ? 0 : comm->rank() * batch;
        for (int64_t step = 0; step < 5; ++step) {
            std::vector<uint8_t> pictures;
            std::vector<int32_t> labels;
            for (int64_t i = first; i < first + batch; ++i) {
                Random random(1, static_cast<uint32_t>(step), static_cast<uint64_t>(i), Purpose::demo);
                labels.push_back(static_cast<int32_t>(random.below(classes)));
                for (int64_t p = 0; p < side * side * 3; ++p)
                    pictures.push_back(static_cast<uint8_t>(random.u32() >> 24));
            }
            trainer.step(pictures.data(), labels.data(), step, 1e-3);
            const double loss = trainer.result().loss;
            const std::lock_guard<std::mutex> lock(mutex);
            result.losses[static_cast<size_t>(step)] += static_cast<float>(loss / how.ranks);
        }
        std::vector<float> parameters(static_cast<size_t>(trainer.net().state().parameters.count()));
        trainer.backend().copy_out(trainer.context(), trainer.net().state().parameters, parameters.data());
        if (comm != nullptr) {
            std::vector<float> all(parameters.size() * static_cast<size_t>(how.ranks));
            const Tensor& mine = trainer.net().state().parameters;
            comm->gather(mine, {all.data(), DType::f32, {how.ranks, mine.count()}});
            CHECK(std::equal(parameters.begin(), parameters.end(), all.begin()));  // the same bits on all ranks
            comm->leave();
        }
        if (comm == nullptr || comm->rank() == 0) result.parameters = parameters;
    };
    if (how.ranks == 1)
        work(nullptr);
    else
        in_ranks(how.ranks, milliseconds(30000), [&](Communicator& comm) { work(&comm); });
    return result;
}

/// Relative distance of what training has changed.
double distance(const Trained& a, const Trained& b, const Trained& start) {
    double difference = 0, change = 0;
    for (size_t i = 0; i < a.parameters.size(); ++i) {
        difference += std::pow(static_cast<double>(a.parameters[i] - b.parameters[i]), 2);
        change += std::pow(static_cast<double>(b.parameters[i] - start.parameters[i]), 2);
    }
    return std::sqrt(difference / change);
}

Trained untrained() {
    const std::unique_ptr<Backend> backend = make_backend("cpu", 1);
    NetDesc desc;
    desc.model = "resnet18";
    desc.classes = 5;
    desc.image_size = 32;
    desc.batch = 2;
    return {make_net(*backend, desc)->table().initial_values(3), {}};
}

}  // namespace

TEST_CASE("ranks that share a batch train as one rank with all of it; two that should differ do") {
    if (gloo_version().empty()) return;
    const Trained start = untrained(), one = trained({1, true, false});
    REQUIRE(start.parameters.size() == one.parameters.size());
    for (const int ranks : {2, 4}) {
        const Trained shared = trained({ranks, true, false});
        for (size_t step = 0; step < 5; ++step)
            CHECK(shared.losses[step] == doctest::Approx(one.losses[step]).epsilon(1e-4));
        const double far = distance(shared, one, start);
        CAPTURE(far);
        CHECK(far < 1e-3);
    }
    CHECK(distance(trained({2, false, false}), one, start) > 0.05);
    CHECK(distance(trained({2, true, true}), one, start) > 0.05);
}
