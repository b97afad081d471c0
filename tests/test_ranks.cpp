// Ranks: where a process stands, the store, and the collectives, here between threads of one process.
#include <doctest/doctest.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "base/half.h"
#include "comm/comm.h"
#include "comm/store.h"
#include "comm/watch.h"
#include "rank_support.h"

using namespace rn50;
using std::chrono::milliseconds;

namespace {

std::optional<Place> place_in(const std::map<std::string, std::string>& variables) {
    return place_from([&](const std::string& name) {
        const auto found = variables.find(name);
        return found == variables.end() ? std::string() : found->second;
    });
}

std::string what_of(const std::function<void()>& action) {
    try {
        action();
    } catch (const Error& error) {
        return error.what();
    }
    return "";
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

namespace {

int connected_to(int port) {
    const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in there{};
    there.sin_family = AF_INET;
    there.sin_port = htons(static_cast<uint16_t>(port));
    there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(connect(socket, reinterpret_cast<const sockaddr*>(&there), sizeof there) == 0);
    return socket;
}

}  // namespace

TEST_CASE("the store survives what is no message of ours") {
    const StoreServer server("127.0.0.1", 0, 2, "", milliseconds(2000));
    for (const std::string& rubbish :
         {std::string("GET / HTTP/1.1\r\n\r\n"), std::string("\xff\xff\xff\xff", 4), std::string("\0\0\0\0", 4),
          std::string("\0\0\0\1H", 5), std::string("\0\0\0\x09H\xff\xff\xff\xff\0\0\0\0", 13)}) {
        const int socket = connected_to(server.port());
        REQUIRE(send(socket, rubbish.data(), rubbish.size(), MSG_NOSIGNAL) > 0);
        char byte;
        CHECK(recv(socket, &byte, 1, 0) <= 0);  // it hangs up
        close(socket);
    }
    StoreClient client("127.0.0.1", server.port(), 1, "", milliseconds(2000));
    client.set("a", "b");
}

TEST_CASE("a connection that does not greet is closed, one that has greeted may be silent") {
    const StoreServer server("127.0.0.1", 0, 2, "", milliseconds(300));
    StoreClient client("127.0.0.1", server.port(), 1, "", milliseconds(2000));
    const int socket = connected_to(server.port());
    const timeval limit{5, 0};
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    REQUIRE(send(socket, "\0\0", 2, MSG_NOSIGNAL) == 2);  // the beginning of a message
    char byte;
    CHECK(recv(socket, &byte, 1, 0) == 0);
    close(socket);
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

TEST_CASE(
    "averages in 16 bits are near the mean, do not overflow before it, and carry what is no number to all ranks") {
    if (gloo_version().empty()) return;
    constexpr int64_t count = 10007;
    for (const DType dtype : {DType::f16, DType::bf16})
        for (const int ranks : {2, 3})
            in_ranks(ranks, milliseconds(20000), [&](Communicator& comm) {
                const bool f16 = dtype == DType::f16;
                const auto value = [&](int rank, int64_t i) {
                    if (i == 0) return 60000.0f;  // three of them are beyond f16
                    if (i == 1) return rank == 1 ? INFINITY : 1.0f;
                    if (i == 2) return rank == 1 ? NAN : 1.0f;
                    return std::sin(static_cast<float>(i * 7 + rank * 1000));
                };
                std::vector<uint16_t> values(count), all(values.size() * static_cast<size_t>(ranks));
                for (int64_t i = 0; i < count; ++i)
                    values[static_cast<size_t>(i)] =
                        f16 ? f32_to_f16(value(comm.rank(), i)) : f32_to_bf16(value(comm.rank(), i));
                const Tensor tensor{values.data(), dtype, {count}};
                comm.average(tensor);
                const auto got = [&](int64_t i) {
                    const uint16_t bits = values[static_cast<size_t>(i)];
                    return static_cast<double>(f16 ? f16_to_f32(bits) : bf16_to_f32(bits));
                };
                CHECK(got(0) == doctest::Approx(60000).epsilon(0.01));
                CHECK(std::isinf(got(1)));
                CHECK(std::isnan(got(2)));
                double difference = 0, size = 0;
                for (int64_t i = 3; i < count; ++i) {
                    double mean = 0;
                    for (int rank = 0; rank < ranks; ++rank)
                        mean += static_cast<double>(value(rank, i)) / ranks;
                    difference += (got(i) - mean) * (got(i) - mean);
                    size += mean * mean;
                }
                CHECK(std::sqrt(difference / size) < (f16 ? 1e-3 : 8e-3));
                comm.gather(tensor, {all.data(), dtype, {ranks, count}});
                for (size_t i = 0; i < all.size(); ++i)
                    if (all[i] != values[i % values.size()]) FAIL_CHECK("ranks have other bits at ", i);
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

TEST_CASE("an average in the background ends with the rank that it waits for, and with the one that has begun it") {
    if (gloo_version().empty()) return;
    std::vector<float> values[2] = {std::vector<float>(100000, 1), std::vector<float>(100000, 1)};
    SUBCASE("another rank fails") {
        in_ranks(2, milliseconds(20000), [&](Communicator& comm) {
            if (comm.rank() == 1) {
                comm.fail("the disk is full");
                return;
            }
            CHECK(contains(what_of([&] {
                               for (int i = 0; i < 3; ++i)
                                   comm.begin_average({values[0].data(), DType::f32, {100000}});
                               comm.finish_averages();
                           }),
                           "rank 1"));
        });
    }
    SUBCASE("the rank itself gives up") {
        const auto start = std::chrono::steady_clock::now();
        in_ranks(2, milliseconds(20000), [&](Communicator& comm) {
            if (comm.rank() == 0) {
                comm.begin_average({values[0].data(), DType::f32, {100000}});
                comm.fail("no picture is good");
                return;
            }
            CHECK(contains(what_of([&] { comm.barrier(); }), "no picture is good"));
        });
        CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(12));
    }
}

TEST_CASE("a process that does not come back after a loss is ended") {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        if (std::freopen("/dev/null", "w", stderr) == nullptr) _exit(1);  // it would tell of the loss
        Place place;
        place.size = 2;
        const StoreServer server("127.0.0.1", 0, 2, "", milliseconds(2000));
        place.port = server.port();
        const Watch watch(
            place, milliseconds(2000), [](const std::string&) { return std::string(after_a_loss); }, milliseconds(300));
        StoreClient other("127.0.0.1", server.port(), 1, "", milliseconds(2000));
        other.beat();
        other.farewell("the disk is full");
        sleep(20);  // as in a call of CUDA
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == static_cast<int>(Exit::peer_lost));
}

TEST_CASE("a rank that never arrives is named") {
    if (gloo_version().empty()) return;
    Place place;
    place.size = 3;
    place.port = 0;
    CHECK(contains(what_of([&] { Communicator(place, milliseconds(300)); }),
                   "rank 1, 2 of 3 did not arrive within 0.3 s"));
}
