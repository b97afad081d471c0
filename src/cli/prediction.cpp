#include "cli/prediction.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/error.h"

namespace rn50 {

namespace fs = std::filesystem;

namespace {

constexpr size_t shown_classes = 5;

/// Six decimals: what follows is noise of the arithmetic.
double rounded(double probability) {
    return std::round(probability * 1e6) / 1e6;
}

std::string decimals(double probability) {
    char text[32];
    std::snprintf(text, sizeof text, "%.6f", probability);
    return text;
}

std::string csv_cell(const std::string& text) {
    if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
    std::string cell = "\"";
    for (const char c : text)
        cell += c == '"' ? std::string("\"\"") : std::string(1, c);
    return cell + '"';
}

std::string json_line(const Prediction& prediction) {
    nlohmann::ordered_json object{{"path", prediction.path}};
    if (!prediction.error.empty()) {
        object["error"] = prediction.error;
    } else {
        object["class"] = prediction.top.front().first;
        object["probability"] = rounded(prediction.top.front().second);
        object["top5"] = nlohmann::ordered_json::array();
        for (const auto& [name, probability] : prediction.top)
            object["top5"].push_back(nlohmann::ordered_json::array({name, rounded(probability)}));
    }
    // File names need not be UTF-8; JSON has to be.
    return object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

bool is_picture_name(const fs::path& path) {
    static const std::vector<std::string> extensions{".jpg", ".jpeg", ".png", ".bmp", ".tga", ".ppm", ".pgm"};
    std::string extension = path.extension().string();
    std::transform(extension.begin(), extension.end(), extension.begin(),
                   [](unsigned char c) { return static_cast<char>(c >= 'A' && c <= 'Z' ? c + 'a' - 'A' : c); });
    return std::find(extensions.begin(), extensions.end(), extension) != extensions.end();
}

bool is_hidden(const fs::path& path) {
    const std::string name = path.filename().string();
    return !name.empty() && name[0] == '.';
}

std::vector<std::string> pictures_below(const std::string& folder) {
    std::vector<std::string> found;
    try {
        fs::recursive_directory_iterator entries(folder, fs::directory_options::follow_directory_symlink);
        for (; entries != fs::recursive_directory_iterator(); ++entries) {
            if (is_hidden(entries->path())) {
                entries.disable_recursion_pending();
            } else if (!entries->is_directory() && is_picture_name(entries->path())) {
                found.push_back(entries->path().string());
            }
        }
    } catch (const fs::filesystem_error& error) {
        throw Error(Exit::data, cat(error.path1().string(), ": ", error.code().message()), "check its permissions");
    }
    if (found.empty())
        throw Error(Exit::data, cat(folder, ": no pictures below"), "jpg, png, bmp, tga, ppm, pgm are read");
    std::sort(found.begin(), found.end());
    return found;
}

}  // namespace

Prediction make_prediction(const std::string& path, const float* logits, const std::vector<std::string>& classes) {
    const size_t count = classes.size();
    Prediction prediction{path, "", {}};
    if (!std::all_of(logits, logits + count, [](float logit) { return std::isfinite(logit); })) {
        prediction.error = "the net gives no finite answer";
        return prediction;
    }
    const double highest = *std::max_element(logits, logits + count);
    double sum = 0;
    for (size_t i = 0; i < count; ++i)
        sum += std::exp(logits[i] - highest);

    std::vector<size_t> order(count);
    std::iota(order.begin(), order.end(), size_t{0});
    const size_t shown = std::min(count, shown_classes);
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(shown), order.end(),
                      [&](size_t a, size_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
    for (size_t i = 0; i < shown; ++i)
        prediction.top.emplace_back(classes[order[i]], std::exp(logits[order[i]] - highest) / sum);
    return prediction;
}

std::string prediction_header(PredictionForm form) {
    return form == PredictionForm::csv ? "path,class,probability,error\n" : "";
}

std::string prediction_line(const Prediction& prediction, PredictionForm form) {
    const bool failed = !prediction.error.empty();
    if (form == PredictionForm::json) return json_line(prediction);
    if (form == PredictionForm::csv) {
        const std::string answer =
            failed ? "," : cat(csv_cell(prediction.top.front().first), ",", decimals(prediction.top.front().second));
        return cat(csv_cell(prediction.path), ",", answer, ",", csv_cell(prediction.error), "\n");
    }
    if (failed) return "";
    return cat(prediction.path, "\t", prediction.top.front().first, "\t", decimals(prediction.top.front().second),
               "\n");
}

std::vector<std::string> find_pictures(const std::vector<std::string>& paths) {
    std::vector<std::string> pictures;
    for (const std::string& path : paths) {
        std::error_code unknown;
        if (fs::is_directory(path, unknown)) {
            const std::vector<std::string> below = pictures_below(path);
            pictures.insert(pictures.end(), below.begin(), below.end());
        } else {
            pictures.push_back(path);
        }
    }
    return pictures;
}

}  // namespace rn50
