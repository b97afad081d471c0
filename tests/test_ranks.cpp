// Ranks: the store and the collectives, here between threads of one process.
#include <doctest/doctest.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "base/half.h"
#include "cli/ranks.h"
#include "comm/comm.h"
#include "comm/store.h"
#include "comm/watch.h"
#include "comm/wire.h"
#include "rank_support.h"

using namespace rn50;
using std::chrono::milliseconds;

namespace {

int connected_to(const StoreServer& server) {
    const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in there{};
    there.sin_family = AF_INET;
    there.sin_port = htons(static_cast<uint16_t>(server.port()));
    there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(connect(socket, reinterpret_cast<const sockaddr*>(&there), sizeof there) == 0);
    return socket;
}

/// Greets as rank 1 of 2 from another process than this one; the answer.
std::string greeting_of_another(int socket, const std::string& run) {
    std::string body;
    wire::put_text(body, wire::text_of({1, 2, "another", "elsewhere", run}));
    wire::put_text(body, "");
    const std::string message = wire::message(wire::greet, body);
    REQUIRE(send(socket, message.data(), message.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(message.size()));
    char answer[256];
    const ssize_t got = recv(socket, answer, sizeof answer, 0);
    return got > 0 ? std::string(answer, static_cast<size_t>(got)) : "";
}

}  // namespace

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
    CHECK(contains(join(1, "guess"), "another RN50_TOKEN"));
    CHECK(contains(what_of([&] { StoreServer("127.0.0.1", server.port(), 2, "", milliseconds(2000)); }),
                   "cannot listen on port"));
}

TEST_CASE("the store lets in one process a rank, of the same run and number of ranks") {
    Place place;
    place.size = 2;
    place.run = "Slurm step 7.0";
    const StoreServer server(place, milliseconds(2000));
    place.port = server.port();
    const auto against = [&](const Place& guest) { return what_of([&] { StoreClient(guest, milliseconds(2000)); }); };
    place.rank = 1;
    CHECK(against(place).empty());
    Place other = place;
    other.run = "Slurm step 7.1";
    CHECK(contains(against(other), "it belongs to Slurm step 7.1, rank 0 to Slurm step 7.0"));
    other = place;
    other.size = 3;
    CHECK(contains(against(other), "it is one of 3 ranks, rank 0 one of 2"));
    StoreClient asking(place, milliseconds(2000));
    std::string refused;
    CHECK(asking.get(key_of_refusal, refused));
    CHECK(contains(refused, cat("a process on ", host_name(), " as rank 1: it is one of 3 ranks")));

    const int socket = connected_to(server);
    CHECK(contains(greeting_of_another(socket, place.run), cat("rank 1 is there already, on ", host_name())));
    close(socket);
}

TEST_CASE("a rank's process may come anew as long as it has not shown life") {
    const StoreServer server("127.0.0.1", 0, 2, "", milliseconds(2000));
    const int socket = connected_to(server);
    CHECK(!greeting_of_another(socket, "").empty());
    const auto come = [&] {
        return what_of([&] { StoreClient("127.0.0.1", server.port(), 1, "", milliseconds(2000)); });
    };
    CHECK(contains(come(), "rank 1 is there already, on elsewhere"));
    close(socket);
    std::string said = "not yet";
    for (int i = 0; i < 50 && !said.empty(); ++i) {
        std::this_thread::sleep_for(milliseconds(20));
        said = come();
    }
    CHECK(said.empty());
}

TEST_CASE("the store is reached by IPv6 as well, and tells a rank of its machine where others came in") {
    Place place;
    place.address = "0.0.0.0";  // no loopback, so all interfaces
    const StoreServer server(place, milliseconds(2000));
    StoreClient here("127.0.0.1", server.port(), 0, "", milliseconds(2000));
    CHECK(here.local_address() == "127.0.0.1");  // nobody has come from elsewhere
    here.set(key_of_address, "10.0.0.1");
    CHECK(here.local_address() == "10.0.0.1");
    const int socket = ::socket(AF_INET6, SOCK_STREAM, 0);
    sockaddr_in6 loopback{};
    loopback.sin6_family = AF_INET6;
    loopback.sin6_addr = in6addr_loopback;
    const bool has_ipv6 = socket >= 0 && bind(socket, reinterpret_cast<sockaddr*>(&loopback), sizeof loopback) == 0;
    if (socket >= 0) close(socket);
    if (!has_ipv6) return;
    StoreClient other("::1", server.port(), 0, "", milliseconds(2000));
    other.set("a", "b");
}

TEST_CASE("a store that has no descriptor left waits without spinning, and lets in who waits once it has one") {
    const StoreServer server("127.0.0.1", 0, 2, "", milliseconds(2000));
    rlimit before{};
    REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
    const int next = dup(0);
    close(next);
    const rlimit none_left{static_cast<rlim_t>(next) + 1, before.rlim_max};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &none_left) == 0);
    const int socket = connected_to(server);  // takes the last one
    const std::clock_t start = std::clock();  // of all threads
    std::this_thread::sleep_for(milliseconds(500));
    const double spent = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    setrlimit(RLIMIT_NOFILE, &before);
    CHECK(spent < 0.1);
    CHECK(greeting_of_another(socket, "").size() == 5);  // a length and "done"
    close(socket);
}

TEST_CASE("ranks consult without an engine, and sums in pieces are those of all at once") {
    if (gloo_version().empty()) return;
    in_ranks(3, milliseconds(20000), [](Communicator& comm) {
        for (int i = 0; i < 3; ++i) {
            const std::string answer =
                comm.consult(cat("rank ", comm.rank()),
                             [i](const std::vector<std::string>& all) { return cat(i, ": ", all[0], all[1], all[2]); });
            CHECK(answer == cat(i, ": rank 0rank 1rank 2"));
        }
        std::vector<double> mine(700'001);  // more than two pieces
        for (size_t i = 0; i < mine.size(); ++i)
            mine[i] = static_cast<double>(i) * (comm.rank() + 1);
        const std::vector<double> sums = comm.sum(mine);
        REQUIRE(sums.size() == mine.size());
        for (size_t i = 0; i < sums.size(); ++i)
            if (sums[i] != 6.0 * static_cast<double>(i)) FAIL_CHECK("another sum at ", i);
        comm.leave();
    });
}

TEST_CASE("the store survives what is no message of ours") {
    const StoreServer server("127.0.0.1", 0, 2, "", milliseconds(2000));
    for (const std::string& rubbish :
         {std::string("GET / HTTP/1.1\r\n\r\n"), std::string("\xff\xff\xff\xff", 4), std::string("\0\0\0\0", 4),
          std::string("\0\0\0\1H", 5), std::string("\0\0\0\x09H\xff\xff\xff\xff\0\0\0\0", 13)}) {
        const int socket = connected_to(server);
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
    const int socket = connected_to(server);
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
            comm.begin_sum({1.0, 0.1});
            CHECK(comm.finish_sum()[0] == ranks);
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

TEST_CASE("what ranks compare of their data: names, labels, order and splits, and the first line that differs") {
    const std::vector<std::string> classes{"good", "bad"};
    const auto data = [&](std::vector<Sample> train, const char* extra) {
        DataSplits splits;
        splits.classes = classes;
        splits.train = make_list_source(std::move(train), classes);
        splits.val = make_list_source({{"v", 0}}, classes);
        if (extra != nullptr) splits.extra.push_back({extra, make_list_source({{"x", 1}}, classes)});
        return common_data(splits);
    };
    const std::string mine = data({{"a", 0}, {"b", 1}}, "hard");
    CHECK(data({{"a", 0}, {"b", 1}}, "hard") == mine);
    const std::string digest = "rank 0 has train = 2 pictures with names and labels of digest ";
    CHECK(contains(difference(mine, data({{"a", 1}, {"b", 0}}, "hard"), 3), digest));
    CHECK(contains(difference(mine, data({{"b", 1}, {"a", 0}}, "hard"), 3), digest));
    CHECK(contains(difference(mine, data({{"a", 0}, {"c", 1}}, "hard"), 3), digest));
    CHECK(difference(mine, data({{"a", 0}}, "hard"), 3) ==
          "rank 0 has train = 2 pictures, rank 3 has train = 1 pictures");
    CHECK(difference(mine, data({{"a", 0}, {"b", 1}}, nullptr), 1) ==
          "rank 0 has hard = 1 pictures, rank 1 has nothing like it");
    CHECK(difference(data({{"a", 0}, {"b", 1}}, nullptr), mine, 1) ==
          "rank 0 has nothing like it, rank 1 has hard = 1 pictures");
}

TEST_CASE("ranks compare the contents of some of their pictures") {
    const std::string folder = cat(std::filesystem::temp_directory_path().string(), "/rn50_contents_", getpid(), "_");
    const auto data = [&](int host, int other) {
        const std::string place = cat(folder, host);
        std::filesystem::create_directories(place);
        std::vector<Sample> samples;
        for (int i = 0; i < 40; ++i) {
            samples.push_back({cat(place, "/", i), 0});
            std::ofstream(samples.back().path) << (i == other ? "another picture" : "a picture") << i;
        }
        DataSplits splits;
        splits.train = make_list_source(samples, {"good"});
        splits.val = make_list_source({samples[0]}, {"good"});
        std::string text = common_contents(splits);
        std::filesystem::remove_all(place);
        return text;
    };
    const std::string mine = data(0, -1);
    CHECK(data(1, -1) == mine);
    CHECK(data(1, 1) == mine);  // one that is not looked at
    CHECK(contains(difference(mine, data(1, 20), 1),
                   "rank 0 has train = 40 pictures, 16 of which have contents of digest "));
    CHECK(contains(difference(mine, data(1, 0), 1), "rank 0 has train = 40"));
}

TEST_CASE("a rank that never arrives is named") {
    if (gloo_version().empty()) return;
    Place place;
    place.size = 3;
    place.port = 0;
    CHECK(contains(what_of([&] { Communicator(place, milliseconds(300)); }),
                   "rank 1, 2 of 3 did not arrive within 0.3 s"));
}
