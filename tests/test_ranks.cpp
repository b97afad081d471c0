// Ranks: where a process stands, the store, and the collectives, here between threads of one process.
#include <doctest/doctest.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "base/error.h"
#include "base/half.h"
#include "comm/comm.h"
#include "comm/store.h"
#include "comm/straggler.h"
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

namespace {

/// Three ranks by a clock of seconds.
struct Watched {
    Stragglers ranks{3, {std::chrono::seconds(30), std::chrono::seconds(600)}};
    Standing standings[3];
    const Stragglers::Time start = std::chrono::steady_clock::now();

    Standing& operator[](int rank) { return standings[rank]; }
    Watched& all(Pace pace, double usual_s = 0) {
        for (Standing& standing : standings) {
            standing.pace = pace;
            standing.usual_s = usual_s;
        }
        return *this;
    }
    Watched& at(uint64_t a, uint64_t b, uint64_t c) {
        standings[0].place = a;
        standings[1].place = b;
        standings[2].place = c;
        return *this;
    }
    void heard(int second) {
        for (int rank = 0; rank < 3; ++rank)
            ranks.heard(rank, standings[rank], start + std::chrono::seconds(second));
    }
    std::string verdict(int second) const {
        return ranks.verdict(start + std::chrono::seconds(second), [](int rank) { return cat("rank ", rank); });
    }
    /// Nothing is said at `patient`, and what is said a second later holds `words`.
    void ends_after(int patient, const std::string& words) {
        CHECK(verdict(patient) == "");
        CAPTURE(verdict(patient + 1));
        CHECK(contains(verdict(patient + 1), words));
    }
};

}  // namespace

TEST_CASE("a rank that keeps the others waiting is named, as soon as what it does allows") {
    Watched w;
    w.all(Pace::stepping, 0.5).at(5, 4, 5).heard(0);
    SUBCASE("in a step") {
        w.ends_after(30, "rank 1 was lost: it lives, but has not come to the next collective");
    }
    SUBCASE("the others wait for their GPUs, outside the collectives") {
        w.at(6, 4, 6).heard(0);
        w.ends_after(30, "rank 1 was lost");
    }
    SUBCASE("somebody else has come further meanwhile") {
        w[2].place = 6;
        w.heard(20);
        w.ends_after(50, "rank 1 was lost");
    }
    SUBCASE("no step is known yet") {
        w.all(Pace::stepping).heard(0);
        w.ends_after(600, "rank 1 was lost");
    }
    SUBCASE("steps are slow: twenty of them are allowed") {
        w[2].usual_s = 10;
        w.heard(0);
        w.ends_after(200, "rank 1 was lost");
    }
    SUBCASE("it waits for its pictures") {
        w[1].pace = Pace::loading;
        w.heard(0);
        w.ends_after(600, "for 600 s, in which the others wait; it waits for its pictures");
    }
    SUBCASE("it waits for its pictures, and steps are very slow") {
        w[1].pace = Pace::loading;
        w[0].usual_s = 60;
        w.heard(0);
        w.ends_after(1200, "rank 1 was lost");
    }
    SUBCASE("it evaluates, and comes further by that") {
        w[1].pace = Pace::evaluating;
        w.heard(0);
        ++w[1].progress;
        w.heard(500);
        w.ends_after(1100, "it evaluates");
    }
    SUBCASE("it saves") {
        w[1].pace = Pace::saving;
        w.heard(0);
        w.ends_after(600, "it saves");
    }
    SUBCASE("it starts up") {
        w.all(Pace::starting).heard(0);
        w.ends_after(3600, "rank 1 was lost");
    }
    SUBCASE("the process that looks has slept") {
        w.ranks.forgive(w.start + std::chrono::seconds(900));
        w.ends_after(930, "rank 1 was lost");
    }
    SUBCASE("it has left") {
        w.ranks.gone(1);
        CHECK(w.verdict(599) == "");
    }
}

TEST_CASE("a signal that asks to stop ends all waiting but that for a checkpoint") {
    Watched w;
    w.all(Pace::stepping, 2).at(5, 4, 5);
    w[0].signal = 15;
    for (const Pace pace : {Pace::loading, Pace::evaluating}) {
        w[1].pace = pace;
        w.heard(0);
        w.ends_after(40, "rank 1 was lost");
    }
    w[1].pace = Pace::starting;
    w.heard(0);
    w.ends_after(30, "rank 1 was lost");
    w[1].pace = Pace::saving;
    w.heard(0);
    w.ends_after(600, "rank 1 was lost");
    w.at(5, 5, 5).heard(0);
    w.ends_after(40, "no rank has come further for 40 s");
}

TEST_CASE("when nobody comes further and nobody is behind, the ways between the ranks are broken") {
    Watched w;
    w.all(Pace::stepping, 0.5);
    SUBCASE("all are in one collective") {
        w[0].collective = w[1].collective = "a broadcast of 4 bytes";
        w.at(5, 5, 7).heard(0);
        w.ends_after(
            600,
            "no rank has come further for 600 s: each of rank 0, rank 1 waits in a broadcast of 4 bytes; rank 2 "
            "waits in a collective");
    }
    SUBCASE("all wait for their GPUs") {
        w.at(6, 6, 6).heard(0);
        w.ends_after(600, "each of rank 0, rank 1, rank 2 computes, or waits for its GPU");
    }
    SUBCASE("steps are slow") {
        w[1].usual_s = 45;
        w.at(6, 6, 6).heard(0);
        w.ends_after(900, "no rank has come further for 900 s");
    }
    SUBCASE("it is the first collective of all") {
        w.all(Pace::meeting).at(3, 3, 3).heard(0);
        w.ends_after(30, "no rank has come further for 30 s");
    }
    SUBCASE("one of them is not there yet") {
        w.all(Pace::meeting).at(3, 3, 1);
        w[2].pace = Pace::starting;
        w.heard(0);
        w.ends_after(600, "no rank has come further");
    }
    SUBCASE("all look for pictures") {
        w.all(Pace::starting).at(4, 4, 4).heard(0);
        w.ends_after(3600, "no rank has come further");
    }
}

TEST_CASE("ranks in different collectives are named at once") {
    Watched w;
    const auto enter = [&](int rank, const CollectiveKind& kind) {
        w[rank].enter(kind);
        w[rank].collective = words_for(kind);
    };
    for (int rank = 0; rank < 3; ++rank)
        enter(rank, {"a broadcast", 8});
    w.heard(0);
    CHECK(w.verdict(0) == "");
    SUBCASE("of another kind") {
        for (int rank = 0; rank < 3; ++rank)
            ++w[rank].place;
        enter(0, {"an average", 8});
        enter(1, {"an average", 8});
        w.heard(1);
        CHECK(w.verdict(1) == "");  // rank 2 is not there yet
        enter(2, {"a broadcast", 8});
        w.heard(2);
        CHECK(w.verdict(2) ==
              "the ranks have gone to different collectives: rank 0 waits in an average of 8 bytes, rank 2 waits in a "
              "broadcast of 8 bytes");
    }
    SUBCASE("of another size, which some have left behind") {
        for (int rank = 0; rank < 3; ++rank) {
            ++w[rank].place;
            enter(rank, {"an average", rank == 1 ? 16 : 8});
        }
        for (int i = 0; i < 20; ++i)
            for (const int rank : {0, 2}) {
                ++w[rank].place;
                enter(rank, {"a gathering", 8});
            }
        w.heard(1);
        CHECK(contains(w.verdict(1), "rank 1 waits in an average of 16 bytes, rank 0 waits in a gathering of 8 bytes"));
    }
    SUBCASE("one is so far ahead that nobody knows") {
        ++w[0].place;
        for (int i = 0; i < 100; ++i) {
            enter(0, {"an average", 8});
            ++w[0].place;
        }
        w.heard(1);
        CHECK(w.verdict(1) == "");
    }
}

TEST_CASE("a heartbeat's numbers come back, and others are refused") {
    Standing sent, got;
    sent.place = 12345678901234;
    for (int i = 0; i < 50; ++i)
        sent.enter({"an average", i});
    sent.progress = 7;
    sent.pace = Pace::evaluating;
    sent.usual_s = 0.25;
    sent.signal = 15;
    REQUIRE(numbers_from(numbers_of(sent), got));
    CHECK(numbers_of(got) == numbers_of(sent));
    CHECK(got.place == sent.place);
    CHECK(got.recent == sent.recent);
    CHECK(got.recent.size() == Standing::most_recent);
    CHECK(got.pace == sent.pace);
    CHECK(got.usual_s == sent.usual_s);
    for (const char* const text :
         {"", "1", "1 3 s 1 0", "1 3 z 1 0 -", "1 3 s nan 0 -", "1 3 s -1 0 -", "1 3 s 1 0 - 5", "x 3 s 1 0 -",
          "1 3 s 1e300 0 -", "99999999999999999999999 3 s 1 0 -", "1 3 s 1 0 0123456", "1 3 s 1 0 0123456x"}) {
        CAPTURE(text);
        CHECK_FALSE(numbers_from(text, got));
    }
}

TEST_CASE("the store names a rank whose heartbeats live and which hangs") {
    const StoreServer server("127.0.0.1", 0, 2, "", milliseconds(400));
    StoreClient waiting("127.0.0.1", server.port(), 0, "", milliseconds(2000)),
        hanging("127.0.0.1", server.port(), 1, "", milliseconds(2000));
    Standing there, behind;
    there.place = 5;
    behind.place = 4;
    behind.pace = Pace::stepping;
    behind.usual_s = 0.01;
    std::string loss;
    const auto start = std::chrono::steady_clock::now();
    while (loss.empty() && std::chrono::steady_clock::now() - start < std::chrono::seconds(10)) {
        loss = waiting.beat(there);
        hanging.beat(behind);
        std::this_thread::sleep_for(milliseconds(50));
    }
    CHECK(
        contains(loss, cat("rank 1 on ", host_name(), " was lost: it lives, but has not come to the next collective")));
}

TEST_CASE("a rank's latest steps say what is usual: one stall among them is not") {
    Place place;
    const StoreServer server("127.0.0.1", 0, 1, "", milliseconds(2000));
    place.port = server.port();
    Watch watch(
        place, milliseconds(2000), [](const std::string&) { return std::string(); }, milliseconds(300));
    CHECK(watch.standing().usual_s == 0);
    watch.step_took(1000);  // the first
    CHECK(watch.standing().usual_s == 0);
    watch.step_took(300);
    CHECK(watch.standing().usual_s == 300);
    for (int i = 0; i < 10; ++i)
        watch.step_took(0.5 + i / 100.0);
    CHECK(watch.standing().usual_s == doctest::Approx(0.59));
    for (int i = 0; i < 64; ++i)
        watch.step_took(2);
    CHECK(watch.standing().usual_s == 2);
}

namespace {

/// An engine whose averages and broadcasts come back when as many ranks have come to them: with too many, never, as
/// where the packets between the ranks are lost.
class DeafEngine : public Collectives {
  public:
    DeafEngine(std::shared_ptr<std::atomic<int>> arrived, int wanted) : arrived_(std::move(arrived)), wanted_(wanted) {}
    std::string name() const override { return "deaf"; }
    void begin_average(const Tensor&) override {}
    void finish_averages() override { meet(); }
    void broadcast(const Tensor&) override { meet(); }
    void gather(const Tensor&, const Tensor&) override {}
    void gather_host(const void*, int64_t, void*) override {}
    void sum_host(double*, int64_t) override {}
    void abort() override { aborted_ = true; }

  private:
    void meet() {
        for (++*arrived_; *arrived_ < wanted_; std::this_thread::sleep_for(milliseconds(5)))
            if (aborted_) throw std::runtime_error("aborted");
    }

    std::shared_ptr<std::atomic<int>> arrived_;
    int wanted_;
    std::atomic<bool> aborted_{false};
};

EngineMaker deaf(int wanted = 1000) {
    return [arrived = std::make_shared<std::atomic<int>>(0), wanted](StoreClient&, const Place&, milliseconds) {
        return std::make_unique<DeafEngine>(arrived, wanted);
    };
}

}  // namespace

TEST_CASE("ranks that go to different collectives end, and say so") {
    in_ranks(
        2, milliseconds(8000),
        [](Communicator& comm) {
            const Tensor values{nullptr, DType::f32, {100}};
            const std::string said = what_of([&] {
                if (comm.rank() == 0)
                    comm.broadcast(values);
                else
                    comm.average(values);
            });
            CAPTURE(said);
            CHECK(contains(said, "the ranks have gone to different collectives: rank 0 on "));
            CHECK(contains(said, "waits in a broadcast of 400 bytes, rank 1 on "));
            CHECK(contains(said, "waits in the averages"));
        },
        deaf());
}

TEST_CASE("a rank that is slow in a step, or whose pictures come late, is waited for; one that hangs is not") {
    const auto lost = [](double usual_s, bool loading) {
        std::string said;
        const auto work = [&](Communicator& comm) {
            comm.pace(Pace::stepping);
            for (int i = 0; i < 3; ++i)
                comm.step_took(usual_s);
            const std::string words = what_of([&] {
                if (comm.rank() == 1) {
                    const PaceFor wait(&comm, loading ? Pace::loading : Pace::stepping);
                    std::this_thread::sleep_for(milliseconds(3500));
                }
                comm.average({nullptr, DType::f32, {100}});
                comm.leave();
            });
            if (comm.rank() == 0) said = words;
        };
        in_ranks(2, {milliseconds(2000), milliseconds(60'000)}, work, deaf(2));
        return said;
    };
    CHECK(lost(1, false) == "");
    CHECK(lost(0.01, true) == "");
    CHECK(contains(lost(0.01, false), "rank 1 on "));
}

TEST_CASE("ranks that wait for each other for ever end, and all say who is where") {
    std::mutex mutex;
    std::vector<std::string> said;
    const auto ranks_with = [&](Pace pace) {
        const auto start = std::chrono::steady_clock::now();
        in_ranks(
            2, {milliseconds(600), milliseconds(1500)},
            [&](Communicator& comm) {
                comm.pace(pace);
                const std::string words = what_of([&] { comm.average({nullptr, DType::f32, {100}}); });
                const std::lock_guard<std::mutex> lock(mutex);
                said.push_back(words);
            },
            deaf());
        return std::chrono::steady_clock::now() - start;
    };
    CHECK(ranks_with(Pace::stepping) > milliseconds(1400));
    REQUIRE(said.size() == 2);
    for (const std::string& words : said) {
        CAPTURE(words);
        CHECK(contains(words, "no rank has come further for 1 s: each of rank 0 on "));
        CHECK(contains(words, "waits in the averages"));
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
