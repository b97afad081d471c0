// Ranks that come no further: the rule, what heartbeats carry for it, and the communicator that ends the run by it.
#include <doctest/doctest.h>

#include <atomic>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "base/error.h"
#include "comm/comm.h"
#include "comm/store.h"
#include "comm/straggler.h"
#include "comm/watch.h"
#include "rank_support.h"

using namespace rn50;
using std::chrono::milliseconds;

namespace {}  // namespace

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
