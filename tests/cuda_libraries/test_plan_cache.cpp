// Which plans of convolutions are kept from start to start, for how long they are looked for, and where they lie.
#include <doctest/doctest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "captured_stderr.h"
#include "conv_scene.h"
#include "fake.h"

using namespace rn50;
using namespace rn50::cuda;
using fake::Engine;
using fake::inference;
using fake::Scene;
using fake::small;
using fake::world;
using Phase = ConvProducts::Phase;

TEST_CASE("convolutions: another batch takes the choice of this process and measures nothing") {
    Scene scene;
    const auto planner = std::make_shared<ConvPlanner>(nullptr, scene.options);
    const auto first = make_conv_products(planner, inference());
    const int runs = world.runs;
    ConvShape halved = inference();
    halved.batch = 2;
    const auto second = make_conv_products(planner, halved);
    CHECK(world.runs == runs);
    CHECK(Scene::engine_of(*second, halved, 2) == 2);
}

TEST_CASE("convolutions: when the time for measuring is spent, the heuristics' first is taken, and kept as well") {
    Scene scene;
    scene.options.clock = [] { return world.clock / 1000; };  // of the make-believe device
    ConvShape other = inference();
    other.height = 9;
    const auto both = [&](int64_t first, int64_t second) {
        const auto planner = std::make_shared<ConvPlanner>(nullptr, scene.options);
        const auto one = make_conv_products(planner, inference());
        const int measured = world.runs;
        const auto two = make_conv_products(planner, other);
        CHECK(Scene::engine_of(*one, inference(), 3) == first);
        CHECK(world.runs == measured + 1);  // nothing was timed for the second
        CHECK(Scene::engine_of(*two, other, 3) == second);
        return measured;
    };
    SUBCASE("after the first of the candidates") {
        scene.options.budget_seconds = 1e-6;
        CHECK(both(1, 1) > 0);
    }
    SUBCASE("between the second and the third") {
        world.engines[2].milliseconds = 0.1f;  // the fastest of all comes too late
        scene.options.budget_seconds = 0.045;  // the first takes 42 ms, the second 14
        CHECK(both(2, 1) > 0);
    }
    SUBCASE("before anything is measured") {
        scene.options.budget_seconds = 0;
        CHECK(both(1, 1) == 0);
    }
    // A later start has all the time it wants, and takes the same.
    scene.options.budget_seconds = 100;
    world.runs = 0;
    const int64_t first = scene.engine_for(inference()), second = scene.engine_for(other);
    CHECK(world.runs == 2);
    CHECK(second == 1);
    std::filesystem::remove_all(scene.folder);
    CHECK(scene.engine_for(other) != 1);
    CHECK(first <= 2);
}

TEST_CASE("plan cache: written before the first convolution runs and at the end, not for each that is prepared") {
    Scene scene;
    ConvShape other = inference();
    other.height = 9;
    {
        const auto planner = std::make_shared<ConvPlanner>(nullptr, scene.options);
        const auto one = make_conv_products(planner, inference());
        CHECK(!std::filesystem::exists(scene.folder));
        const auto two = make_conv_products(planner, other);
        CHECK(!std::filesystem::exists(scene.folder));
        Scene::engine_of(*one, inference(), 3);
        const std::string both = read_file(scene.cache_file());
        CHECK(both.find("5x6") != std::string::npos);
        CHECK(both.find("9x6") != std::string::npos);
        other.height = 11;
        make_conv_products(planner, other);
        CHECK(read_file(scene.cache_file()) == both);
    }
    CHECK(read_file(scene.cache_file()).find("11x6") != std::string::npos);

    SUBCASE("a start that takes long writes on its way") {
        std::filesystem::remove_all(scene.folder);
        scene.options.clock = [] { return world.clock / 1000; };
        world.engines[0].milliseconds = 4000;
        const auto planner = std::make_shared<ConvPlanner>(nullptr, scene.options);
        make_conv_products(planner, inference());
        CHECK(std::filesystem::exists(scene.folder));
    }
}

TEST_CASE("plan cache: a second start measures nothing and takes the same plans") {
    Scene scene;
    scene.conv(small());
    CHECK(world.runs > 0);
    world.runs = world.heuristics = 0;
    const auto again = scene.conv(small());
    CHECK(world.runs == 0);
    CHECK(world.heuristics == 0);
    CHECK(Scene::engine_of(*again, small(), 3) == 2);

    SUBCASE("another cuDNN, GPU, precision or shape measures for itself") {
        ConvShape other = small();
        other.tf32 = true;
        scene.conv(other);
        CHECK(world.runs > 1);
        world.runs = 0;
        world.cudnn = 90200;
        scene.conv(small());
        CHECK(world.runs > 0);
        world.runs = 0;
        world.gpu = "Make-Believe 2";
        scene.conv(small());
        CHECK(world.runs > 0);
    }
    SUBCASE("a file of another version, of another machine or with damage is measured and written anew") {
        const std::string path = scene.cache_file(), whole = read_file(path);
        const auto replaced = [&](const std::string& from, const std::string& to) {
            std::string changed = whole;
            changed.replace(changed.find(from), from.size(), to);
            return changed;
        };
        for (const std::string& text :
             {replaced("\"version\": 2", "\"version\": 1"), replaced("Make-Believe 1", "Make-Believe 7"),
              whole.substr(0, whole.size() / 2), std::string("{}"), std::string("[1, 2"), std::string(),
              replaced("\"engine\": 2", "\"engine\": \"two\"")}) {
            CAPTURE(text);
            write_file_atomic(path, text);
            world.runs = 0;
            scene.conv(small());
            CHECK(world.runs > 0);
            CHECK(read_file(path) == whole);
        }
    }
    SUBCASE("an engine that is gone, has other knobs, is forbidden or has grown is measured anew") {
        world.runs = 0;
        const auto measured = [&] {
            world.runs = 0;
            scene.conv(small());
            return world.runs > 0;
        };
        CHECK(!measured());
        world.engines[1].index = 12;
        CHECK(measured());
        world.engines[1].knobs = {{3, 0}};
        CHECK(measured());
        world.engines[1].numerical = {CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC};
        CHECK(measured());
        CHECK(scene.engine_for(small()) == 3);
        world.engines[2].workspace = int64_t{2} << 30;
        CHECK(measured());
        CHECK(scene.engine_for(small()) == 1);
    }
}

TEST_CASE("plan cache: choices of several processes are kept beside one another") {
    Scene scene;
    const auto one = std::make_shared<ConvPlanner>(nullptr, scene.options);
    const auto two = std::make_shared<ConvPlanner>(nullptr, scene.options);
    ConvShape other = inference();
    other.height = 9;
    make_conv_products(one, inference());
    make_conv_products(two, other);
    one->keep();
    two->keep();
    world.runs = 0;
    scene.conv(inference());
    scene.conv(other);
    CHECK(world.runs == 0);
}

TEST_CASE("plan cache: a folder that cannot be made is no error") {
    Scene scene;
    write_file_atomic(scene.folder.string(), "a file where a folder should be");
    scene.options.cache_folder = (scene.folder / "inside").string();
    CHECK(scene.engine_for(inference()) == 2);
}

TEST_CASE("plan cache: the folder comes from the environment") {
    const char* names[] = {"RN50_PLAN_CACHE", "XDG_CACHE_HOME", "HOME", "RN50_AUTOTUNE", "RN50_AUTOTUNE_SECONDS"};
    std::vector<std::string> before;
    for (const char* name : names)
        before.push_back(std::getenv(name) ? std::getenv(name) : "");
    setenv("RN50_PLAN_CACHE", "/one", 1);
    setenv("XDG_CACHE_HOME", "/two", 1);
    setenv("HOME", "/three", 1);
    unsetenv("RN50_AUTOTUNE");
    CHECK(PlannerOptions::from_environment().cache_folder == "/one");
    unsetenv("RN50_PLAN_CACHE");
    CHECK(PlannerOptions::from_environment().cache_folder == "/two/rn50");
    unsetenv("XDG_CACHE_HOME");
    CHECK(PlannerOptions::from_environment().cache_folder == "/three/.cache/rn50");
    CHECK(PlannerOptions::from_environment().autotune);
    unsetenv("RN50_AUTOTUNE_SECONDS");
    CHECK(PlannerOptions::from_environment().budget_seconds == 120);
    setenv("RN50_AUTOTUNE_SECONDS", "7.5", 1);
    CHECK(PlannerOptions::from_environment().budget_seconds == 7.5);
    for (const char* const wrong : {"soon", "-1", "3s", "nan"}) {
        setenv("RN50_AUTOTUNE_SECONDS", wrong, 1);
        CHECK_THROWS_AS(PlannerOptions::from_environment(), Error);
    }
    unsetenv("RN50_AUTOTUNE_SECONDS");
    setenv("RN50_AUTOTUNE", "0", 1);
    CHECK(!PlannerOptions::from_environment().autotune);
    CHECK(PlannerOptions::from_environment().cache_folder.empty());
    for (size_t i = 0; i < before.size(); ++i)
        before[i].empty() ? unsetenv(names[i]) : setenv(names[i], before[i].c_str(), 1);
}
