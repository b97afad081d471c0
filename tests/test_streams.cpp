// The streams under the emulator and the make-believe libraries: what a capture notes, and what it refuses, as CUDA
// does.
#include "streams.h"

#include <doctest/doctest.h>

#include <set>
#include <string>
#include <thread>
#include <vector>

using namespace rn50;
using namespace rn50::streams;

namespace {

/// Streams and events that go with the scope.
struct Scene {
    Stream* const first = make_stream();
    Stream* const second = make_stream();
    Event* const there = make_event();
    Event* const back = make_event();
    std::shared_ptr<const Graph> graph;
    ~Scene() {
        destroy(there);
        destroy(back);
        destroy(first);
        destroy(second);
    }
    Status end() { return end_capture(first, graph); }
};

}  // namespace

TEST_CASE("streams: what is captured is done by each launch, and not before") {
    const Scene scene;
    std::shared_ptr<const Graph> graph;
    int done = 0;
    REQUIRE(begin_capture(scene.first, false) == success);
    CHECK(is_captured(scene.first));
    push(scene.first, [&] { ++done; });
    push(scene.first, [&] { done *= 10; });
    CHECK(end_capture(scene.first, graph) == success);
    CHECK_FALSE(is_captured(scene.first));
    REQUIRE((graph != nullptr));
    CHECK(nodes_of(*graph) == 2);
    CHECK(done == 0);
    for (const int expected : {10, 110, 1110}) {
        CHECK(launch(graph, scene.first) == success);
        CHECK(done == expected);
    }
}

TEST_CASE("streams: a launch keeps to the captured dependencies, and to no other order") {
    Scene scene;
    std::string order;
    begin_capture(scene.first, false);
    push(scene.first, [&] { order += "a"; });
    record(scene.there, scene.first);
    CHECK(wait(scene.second, scene.there) == success);
    push(scene.second, [&] { order += "b"; });
    push(scene.first, [&] { order += "c"; });
    record(scene.back, scene.second);
    CHECK(wait(scene.first, scene.back) == success);
    push(scene.first, [&] { order += "d"; });
    REQUIRE(scene.end() == success);
    std::set<std::string> seen;
    for (int i = 0; i < 10; ++i) {
        order.clear();
        launch(scene.graph, scene.first);
        seen.insert(order);
    }
    CHECK(seen == std::set<std::string>{"abcd", "acbd"});
    int plain = 0;
    push(scene.second, [&] { ++plain; });  // a stream of its own again
    CHECK(plain == 1);
}

TEST_CASE("streams: a capture refuses what CUDA refuses, and comes to nothing then") {
    const auto spoiled = [](const std::function<void(Scene&)>& breach, bool relaxed = false) {
        Scene scene;
        record(scene.there, scene.second);  // outside
        begin_capture(scene.first, relaxed);
        push(scene.first, [] {});
        breach(scene);
        CHECK(push(scene.first, [] {}) == capture_invalidated);
        CHECK(scene.end() == capture_invalidated);
        CHECK((scene.graph == nullptr));
        int plain = 0;
        CHECK(push(scene.first, [&] { ++plain; }) == success);
        CHECK(plain == 1);
    };
    spoiled([](Scene& s) { CHECK(synchronize(s.first) == capture_unsupported); });
    spoiled([](Scene& s) { CHECK(query(s.first) == capture_unsupported); });
    spoiled([](Scene& s) { CHECK(wait(s.first, s.there) == capture_isolation); });
    spoiled([](Scene&) { CHECK(unsafe_call() == capture_unsupported); });
    spoiled([](Scene& s) {
        CHECK(record(s.back, s.first) == success);
        CHECK(synchronize(s.back) == captured_event);
    });
    spoiled([](Scene& s) {
        begin_capture(s.second, false);
        record(s.back, s.second);
        CHECK(wait(s.first, s.back) == capture_merge);
        std::shared_ptr<const Graph> graph;
        CHECK(end_capture(s.second, graph) == capture_invalidated);
    });
    CHECK(live_graphs() == 0);
}

TEST_CASE("streams: a capture's end needs its own stream and thread, and all streams joined") {
    Scene scene;
    std::shared_ptr<const Graph> graph;
    CHECK(end_capture(scene.first, graph) == capture_unmatched);
    begin_capture(scene.first, false);
    CHECK(begin_capture(scene.first, false) == capture_unsupported);
    push(scene.first, [] {});
    record(scene.there, scene.first);
    wait(scene.second, scene.there);
    CHECK(end_capture(scene.second, graph) == capture_unmatched);
    std::thread([&] {
        CHECK(unsafe_call() == success);  // another thread's
        CHECK(push(scene.second, [] {}) == success);
        CHECK(end_capture(scene.first, graph) == capture_wrong_thread);
    }).join();
    CHECK(scene.end() == capture_unjoined);
    CHECK((scene.graph == nullptr));
    CHECK(wait(scene.first, scene.there) == captured_event);  // of a capture that has ended

    begin_capture(scene.first, true);
    CHECK(unsafe_call() == success);
    CHECK(scene.end() == success);
}

TEST_CASE("streams: with threads, launches of graphs stand in their stream's order") {
    set_threaded(true);
    {
        Scene scene;
        std::vector<int> seen;
        int number = 0;
        begin_capture(scene.first, false);
        push(scene.first, [&] { seen.push_back(number); });
        REQUIRE(scene.end() == success);
        for (int i = 1; i <= 50; ++i) {
            push(scene.first, [&, i] { number = i; });
            launch(scene.graph, scene.first);
        }
        synchronize(scene.first);
        REQUIRE(seen.size() == 50);
        for (int i = 1; i <= 50; ++i)
            CHECK(seen[static_cast<size_t>(i - 1)] == i);
    }
    set_threaded(false);
}
