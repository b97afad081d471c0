// What predict says of one picture, in the forms of the command line.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace rn50 {

struct Prediction {
    std::string path;
    std::string error;                                ///< why there is no answer; then `top` is empty
    std::vector<std::pair<std::string, double>> top;  ///< up to five classes with their probabilities, best first
};

enum class PredictionForm : uint8_t { plain, json, csv };

/// The softmax of one picture's logits, {classes}; equal ones in the order of the classes. Logits that are not finite
/// make an error.
Prediction make_prediction(const std::string& path, const float* logits, const std::vector<std::string>& classes);

/// The line before the first picture, with its line end; "" where the form has none.
std::string prediction_header(PredictionForm form);
/// One line with its end. plain: path, class and probability between tabs, "" for an error (which goes to stderr);
/// json: one object; csv: quoted as RFC 4180 says, lines ended by a line feed alone.
std::string prediction_line(const Prediction& prediction, PredictionForm form);

/// The pictures that the paths name, in their order: a file stands for itself, a folder for all pictures below it by
/// name (those that training would take, hidden ones aside). A path that does not exist stands in the list as it is, so
/// that its error is told in its place. Throws Error(Exit::data) when a folder cannot be read or nothing is named.
std::vector<std::string> find_pictures(const std::vector<std::string>& paths);

}  // namespace rn50
