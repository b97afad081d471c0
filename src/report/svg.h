// Charts as inline SVG: text that scales, prints and needs no script. Colours are CSS classes of the page (html.cpp).
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "report/report.h"

namespace rn50::report {

/// `text` as HTML: cleaned by shown(), and with & < > " ' written as entities.
std::string escape(const std::string& text);

/// One line of a chart. What is not finite is a gap.
struct Series {
    std::string name;
    std::string css_class;  ///< its colour: "c1" ... "c4"
    std::vector<double> y;  ///< by x
};

struct LineChart {
    std::string title;
    std::string suffix;     ///< behind the numbers of the y axis: "%"
    std::vector<double> x;  ///< whole numbers, ascending
    std::vector<Series> series;
    double low = std::numeric_limits<double>::quiet_NaN();  ///< ends of the y axis; NaN: from the data
    double high = std::numeric_limits<double>::quiet_NaN();
    double marked_x = std::numeric_limits<double>::quiet_NaN();  ///< a vertical line, where finite
};

/// A <figure> with title, legend and chart; empty when no value is finite.
std::string line_chart(const LineChart& chart);
/// An <svg> of the confusion matrix, each row shaded by share of its class: with names and numbers up to 30 classes,
/// above that a compact one with class indices.
std::string heat_map(const RunReport& report);

}  // namespace rn50::report
