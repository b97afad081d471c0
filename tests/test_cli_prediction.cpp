// What predict prints: probabilities, the three forms, the pictures that paths name.
#include <unistd.h>

#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/prediction.h"

namespace fs = std::filesystem;
using namespace rn50;

TEST_CASE("prediction: softmax, best first, equal ones in the order of the classes, at most five") {
    const std::vector<std::string> classes{"a", "b", "c", "d", "e", "f"};
    const float logits[] = {0, std::log(2.f), 0, std::log(4.f), -100, 0};
    const Prediction prediction = make_prediction("p", logits, classes);
    REQUIRE(prediction.error.empty());
    REQUIRE(prediction.top.size() == 5);
    CHECK(prediction.top[0].first == "d");
    CHECK(prediction.top[0].second == doctest::Approx(4.0 / 9));
    CHECK(prediction.top[1].first == "b");
    CHECK(prediction.top[1].second == doctest::Approx(2.0 / 9));
    CHECK(prediction.top[2].first == "a");
    CHECK(prediction.top[3].first == "c");
    CHECK(prediction.top[4].first == "f");

    const float large[] = {1e30f, 0};
    CHECK(make_prediction("p", large, {"x", "y"}).top[0].second == 1);
    CHECK(make_prediction("p", large, {"x", "y"}).top.size() == 2);
}

TEST_CASE("prediction: logits that are not finite are an error, not a class") {
    const float logits[] = {1, std::numeric_limits<float>::quiet_NaN()};
    const Prediction prediction = make_prediction("p", logits, {"x", "y"});
    CHECK(prediction.top.empty());
    CHECK(prediction.error == "the net gives no finite answer");
}

TEST_CASE("prediction: the three forms") {
    const Prediction good{"a/\"b\",c.jpg", "", {{"pit, deep", 0.75}, {"none", 0.2500004}}};
    const Prediction bad{"x.jpg", "x.jpg: not a picture", {}};
    CHECK(prediction_line(good, PredictionForm::plain) == "a/\"b\",c.jpg\tpit, deep\t0.750000\n");
    CHECK(prediction_line(bad, PredictionForm::plain).empty());
    CHECK(prediction_header(PredictionForm::csv) == "path,class,probability,error\n");
    CHECK(prediction_line(good, PredictionForm::csv) == "\"a/\"\"b\"\",c.jpg\",\"pit, deep\",0.750000,\n");
    CHECK(prediction_line(bad, PredictionForm::csv) == "x.jpg,,,x.jpg: not a picture\n");

    const auto object = nlohmann::json::parse(prediction_line(good, PredictionForm::json));
    CHECK(object.size() == 4);
    CHECK(object["path"] == good.path);
    CHECK(object["class"] == "pit, deep");
    CHECK(object["probability"] == 0.75);
    CHECK(object["top5"] == nlohmann::json::parse(R"([["pit, deep", 0.75], ["none", 0.25]])"));
    CHECK(nlohmann::json::parse(prediction_line(bad, PredictionForm::json)) ==
          nlohmann::json::parse(R"({"path": "x.jpg", "error": "x.jpg: not a picture"})"));
    // A name that is not UTF-8 does not end the program.
    CHECK(nlohmann::json::accept(prediction_line({"\xff.jpg", "e", {}}, PredictionForm::json)));
}

TEST_CASE("prediction: folders give their pictures by name, files stand for themselves") {
    const fs::path root = fs::temp_directory_path() / cat("rn50_prediction_", getpid());
    fs::create_directories(root / "in" / "deep");
    fs::create_directories(root / "in" / ".hidden");
    fs::create_directories(root / "empty");
    for (const char* name :
         {"in/b.JPG", "in/a.png", "in/deep/c.jpeg", "in/.d.jpg", "in/.hidden/e.jpg", "in/notes.txt", "z.odd"})
        std::ofstream(root / name) << "x";
    const std::string at = root.string() + "/";
    CHECK(find_pictures({at + "z.odd", at + "in", "/gone.jpg"}) ==
          std::vector<std::string>{at + "z.odd", at + "in/a.png", at + "in/b.JPG", at + "in/deep/c.jpeg", "/gone.jpg"});
    CHECK_THROWS_AS(find_pictures({at + "empty"}), Error);
    fs::remove_all(root);
}
