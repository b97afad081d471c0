#include "report/svg.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <sstream>

#include "base/error.h"
#include "report/table.h"

namespace rn50::report {

namespace {

// The frame of a line chart, in SVG units.
constexpr double width = 460, height = 220, left = 46, right = 12, top = 10, bottom = 26;

std::string general(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.10g", value);
    return text;
}

/// 1, 2, 2.5 or 5 times a power of ten: the smallest that divides `range` into at most `parts`.
double tick_step(double range, int parts) {
    const double decade = std::pow(10, std::floor(std::log10(range / parts)));
    for (const double factor : {1.0, 2.0, 2.5, 5.0})
        if (range / (decade * factor) <= parts + 1e-9) return decade * factor;
    return decade * 10;
}

/// An axis: value to place.
struct Axis {
    double low, high, at_low, at_high;
    double operator()(double value) const { return at_low + (value - low) / (high - low) * (at_high - at_low); }
};

struct Range {
    double low = 0, high = 0;
    bool empty = true;
};

Range finite_range(const std::vector<Series>& series) {
    Range range;
    for (const Series& one : series)
        for (const double y : one.y) {
            if (!std::isfinite(y)) continue;
            range.low = range.empty ? y : std::min(range.low, y);
            range.high = range.empty ? y : std::max(range.high, y);
            range.empty = false;
        }
    return range;
}

std::string grid(const Axis& x, const Axis& y, double y_step, const std::string& suffix) {
    std::ostringstream out;
    for (double value = std::ceil(y.low / y_step - 1e-9) * y_step; value <= y.high + 1e-9 * y_step; value += y_step) {
        const double shown_value = std::abs(value) < 1e-9 * y_step ? 0 : value;
        const std::string place = fixed(y(value), 1);
        out << "<line class=\"grid\" x1=\"" << left << "\" x2=\"" << width - right << "\" y1=\"" << place << "\" y2=\""
            << place << "\"/><text class=\"tick\" text-anchor=\"end\" x=\"" << left - 6 << "\" y=\""
            << fixed(y(value) + 3.5, 1) << "\">" << general(shown_value) << suffix << "</text>";
    }
    const double x_step = std::max(1.0, tick_step(std::max(1.0, x.high - x.low), 8));
    for (double value = std::ceil(x.low / x_step) * x_step; value <= x.high; value += x_step)
        if (value == std::floor(value))
            out << "<text class=\"tick\" text-anchor=\"middle\" x=\"" << fixed(x(value), 1) << "\" y=\"" << height - 8
                << "\">" << general(value) << "</text>";
    return out.str();
}

/// The line of one series, broken at gaps; points that stand alone become dots.
std::string polyline(const Series& series, const std::vector<double>& xs, const Axis& x, const Axis& y) {
    std::string path, dots;
    bool pen_down = false;
    for (size_t i = 0; i < series.y.size(); ++i) {
        if (!std::isfinite(series.y[i])) {
            pen_down = false;
            continue;
        }
        const std::string px = fixed(x(xs[i]), 1), py = fixed(y(std::clamp(series.y[i], y.low, y.high)), 1);
        path += (pen_down ? "L" : "M") + px + " " + py;
        const bool goes_on = i + 1 < series.y.size() && std::isfinite(series.y[i + 1]);
        if (!pen_down && !goes_on)
            dots += "<circle class=\"" + series.css_class + "\" r=\"3\" cx=\"" + px + "\" cy=\"" + py + "\"/>";
        pen_down = true;
    }
    return "<path class=\"line " + series.css_class + "\" d=\"" + path + "\"/>" + dots;
}

double share_of(const RunReport& report, size_t label, size_t prediction) {
    const int64_t support = report.scores[label].support;
    return support ? static_cast<double>(report.confusion[label][prediction]) / static_cast<double>(support) : 0;
}

// Shades of the heat map, "d1" to "d8" on the diagonal and "o1" to "o8" beside it, where also a small share must be
// seen.
constexpr int shades = 8;

int shade_of(double share, bool diagonal) {
    const double strength = diagonal ? share : std::sqrt(share);
    return std::clamp(static_cast<int>(std::ceil(strength * shades)), 1, shades);
}

std::string named_heat_map(const RunReport& report) {
    const size_t classes = report.classes.size();
    std::vector<std::string> names;
    int columns = 0;
    for (const std::string& name : report.classes) {
        names.push_back(shortened(shown(name), 24));
        columns = std::max(columns, display_width(names.back()));
    }
    const double cell = classes <= 12 ? 44 : classes <= 20 ? 32 : 24;
    const double margin = 16 + 6.6 * columns, side = cell * static_cast<double>(classes);
    std::ostringstream out;
    out << "<svg class=\"heat\" viewBox=\"0 0 " << margin + side + 2 << ' ' << margin + side + 2
        << "\" style=\"max-width:" << margin + side << "px\" role=\"img\" aria-label=\"confusion matrix\">";
    const auto place = [&](size_t i) { return margin + cell * static_cast<double>(i); };
    for (size_t k = 0; k < classes; ++k) {
        const std::string name = escape(names[k]);
        const double middle = place(k) + cell / 2;
        out << "<text class=\"tick\" text-anchor=\"end\" x=\"" << margin - 7 << "\" y=\"" << middle + 4 << "\">" << name
            << "</text><text class=\"tick\" transform=\"translate(" << middle + 4 << ' ' << margin - 7
            << ") rotate(-90)\">" << name << "</text>";
    }
    for (size_t label = 0; label < classes; ++label)
        for (size_t prediction = 0; prediction < classes; ++prediction) {
            const int64_t count = report.confusion[label][prediction];
            const bool diagonal = label == prediction;
            const int shade = shade_of(share_of(report, label, prediction), diagonal);
            const std::string css = count == 0 ? "zero" : (diagonal ? "d" : "o") + std::to_string(shade);
            out << "<rect class=\"" << css << "\" x=\"" << place(prediction) + 1 << "\" y=\"" << place(label) + 1
                << "\" width=\"" << cell - 2 << "\" height=\"" << cell - 2 << "\" rx=\"3\"><title>"
                << escape(report.classes[label]) << " → " << escape(report.classes[prediction]) << ": " << count
                << " of " << report.scores[label].support << "</title></rect>";
            if (count > 0)
                out << "<text class=\"count" << (shade > 4 ? " light" : "") << "\" text-anchor=\"middle\" x=\""
                    << place(prediction) + cell / 2 << "\" y=\"" << place(label) + cell / 2 + 4 << "\">" << count
                    << "</text>";
        }
    out << "</svg>";
    return out.str();
}

std::string compact_heat_map(const RunReport& report) {
    const size_t classes = report.classes.size();
    const double margin = 34, side = 640, cell = side / static_cast<double>(classes);
    // One path a shade: 40,000 cells with an element each would make the page heavy. A single wrong picture must still
    // be seen, so marks beside the diagonal are larger than their cell and never faint.
    std::array<std::ostringstream, shades + 1> paths[2];
    for (size_t label = 0; label < classes; ++label)
        for (size_t prediction = 0; prediction < classes; ++prediction) {
            if (report.confusion[label][prediction] == 0) continue;
            const bool diagonal = label == prediction;
            const double mark = diagonal ? cell : std::max(cell, 5.5), corner = margin + (cell - mark) / 2;
            const int shade = std::max(shade_of(share_of(report, label, prediction), diagonal), diagonal ? 1 : 3);
            paths[diagonal][static_cast<size_t>(shade)]
                << 'M' << fixed(corner + cell * static_cast<double>(prediction), 1) << ' '
                << fixed(corner + cell * static_cast<double>(label), 1) << 'h' << fixed(mark, 1) << 'v'
                << fixed(mark, 1) << "h-" << fixed(mark, 1) << 'z';
        }
    std::ostringstream out;
    out << "<svg class=\"heat\" viewBox=\"0 0 " << margin + side + 4 << ' ' << margin + side + 4
        << "\" style=\"max-width:" << margin + side
        << "px\" role=\"img\" aria-label=\"confusion matrix\"><rect class=\"zero\" x=\"" << margin << "\" y=\""
        << margin << "\" width=\"" << side << "\" height=\"" << side << "\"/>";
    for (const bool diagonal : {false, true})
        for (size_t shade = 1; shade <= shades; ++shade) {
            const std::string path = paths[diagonal][shade].str();
            if (!path.empty())
                out << "<path class=\"" << (diagonal ? "d" : "o") << shade << "\" d=\"" << path << "\"/>";
        }
    const double step = std::max(1.0, tick_step(static_cast<double>(classes), 12));
    for (double k = 0; k < static_cast<double>(classes); k += step) {
        const double middle = margin + cell * (k + 0.5);
        out << "<text class=\"tick\" text-anchor=\"end\" x=\"" << margin - 5 << "\" y=\"" << fixed(middle + 3.5, 1)
            << "\">" << general(k) << "</text><text class=\"tick\" text-anchor=\"middle\" x=\"" << fixed(middle, 1)
            << "\" y=\"" << margin - 6 << "\">" << general(k) << "</text>";
    }
    out << "</svg>";
    return out.str();
}

}  // namespace

std::string escape(const std::string& text) {
    std::string html;
    for (const char c : shown(text))
        switch (c) {
            case '&':
                html += "&amp;";
                break;
            case '<':
                html += "&lt;";
                break;
            case '>':
                html += "&gt;";
                break;
            case '"':
                html += "&quot;";
                break;
            case '\'':
                html += "&#39;";
                break;
            default:
                html += c;
        }
    return html;
}

std::string line_chart(const LineChart& chart) {
    const Range range = finite_range(chart.series);
    if (range.empty || chart.x.empty()) return {};
    double low = std::isfinite(chart.low) ? chart.low : range.low,
           high = std::isfinite(chart.high) ? chart.high : range.high;
    if (!(high > low)) {
        const double pad = high == 0 ? 1 : std::abs(high) * 0.5;
        low -= std::isfinite(chart.low) ? 0 : pad;
        high += pad;
    }
    const double step = tick_step(high - low, 5);
    low = std::floor(low / step + 1e-9) * step;
    high = std::ceil(high / step - 1e-9) * step;
    const double first = chart.x.front(), last = std::max(chart.x.back(), first + 1);
    const Axis x{first, last, left + 4, width - right - 4}, y{low, high, height - bottom, top};

    std::ostringstream out;
    out << "<figure><figcaption><b>" << escape(chart.title) << "</b><span>";
    for (const Series& series : chart.series)
        out << "<i class=\"key " << series.css_class << "\"></i>" << escape(series.name) << ' ';
    out << "</span></figcaption><svg viewBox=\"0 0 " << width << ' ' << height << "\" role=\"img\" aria-label=\""
        << escape(chart.title) << " by epoch\">" << grid(x, y, step, chart.suffix);
    if (std::isfinite(chart.marked_x)) {
        const std::string place = fixed(x(chart.marked_x), 1);
        out << "<line class=\"mark\" x1=\"" << place << "\" x2=\"" << place << "\" y1=\"" << top << "\" y2=\""
            << height - bottom << "\"><title>best: epoch " << general(chart.marked_x) << "</title></line>";
    }
    for (const Series& series : chart.series) {
        RN50_REQUIRE(series.y.size() == chart.x.size(), "series ", series.name, " of ", series.y.size(), " values");
        out << polyline(series, chart.x, x, y);
    }
    out << "</svg></figure>\n";
    return out.str();
}

std::string heat_map(const RunReport& report) {
    return report.classes.size() <= 30 ? named_heat_map(report) : compact_heat_map(report);
}

}  // namespace rn50::report
