// The report: exact tables, chart coordinates worked out by hand, and pages that hold together whatever the names are.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/error.h"
#include "report/report.h"
#include "report/svg.h"
#include "report/table.h"

using namespace rn50::report;

namespace {

constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();

/// Four classes of 10 pictures, the last one absent.
RunReport small_report() {
    RunReport report;
    report.title = "ResNet-50 on data/";
    report.classes = {"none", "crack", "scratch", "stain"};
    report.confusion = {{10, 0, 0, 0}, {1, 6, 3, 0}, {0, 1, 8, 0}, {0, 0, 0, 0}};  // one scratch without an answer
    report.scores = {{10, 0.9091, 1, 0.9524}, {10, 0.8571, 0.6, 0.7059}, {10, 0.7273, 0.8, 0.7619}, {0, 0, 0, 0}};
    report.splits = {{"val", 30, 0.4321, 80, 100, 80.67}, {"hard", 12, 1.5, 50, 100, 45.5}};
    return report;
}

/// A report of `classes` classes and `epochs` epochs in which every number is made up.
RunReport large_report(size_t classes, size_t epochs) {
    RunReport report;
    report.title = "large";
    for (size_t k = 0; k < classes; ++k) {
        report.classes.push_back("class " + std::to_string(k));
        report.confusion.emplace_back(classes);
        for (size_t p = 0; p < classes; ++p)
            report.confusion[k][p] = k == p ? 40 : (k * 7 + p * 3) % 11 == 0;
        report.scores.push_back(
            {50, 0.9, 0.8, 0.5 + 0.4 * static_cast<double>(k * 37 % classes) / static_cast<double>(classes)});
    }
    for (size_t e = 1; e <= epochs; ++e)
        report.history.push_back({static_cast<int64_t>(e), 1e-4, 2.0 / static_cast<double>(e),
                                  2.1 / static_cast<double>(e), 90 + static_cast<double>(e % 7), 99, 88, 150, 0.01,
                                  10});
    return report;
}

size_t occurrences(const std::string& text, const std::string& part) {
    size_t count = 0;
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1))
        ++count;
    return count;
}

/// Every tag is closed in its order, attributes are quoted, and no bare & or < stands in the text. Returns what is
/// wrong.
std::string fault_of(const std::string& page) {
    const size_t begin = page.find("<html"), style_end = page.find("</style>");
    if (begin == std::string::npos || style_end == std::string::npos) return "no html or style";
    std::vector<std::string> open;
    for (size_t at = begin; at < page.size(); ++at) {
        if (page[at] == '&') {
            const std::string entity = page.substr(at, page.find(';', at) - at);
            if (entity != "&amp" && entity != "&lt" && entity != "&gt" && entity != "&quot" && entity != "&#39")
                return "entity " + entity;
        }
        if (page[at] != '<') continue;
        const size_t end = page.find('>', at);
        if (end == std::string::npos) return "tag without end";
        const std::string tag = page.substr(at + 1, end - at - 1);
        if (occurrences(tag, "\"") % 2) return "quotes of " + tag;
        const std::string name = tag.substr(0, tag.find_first_of(" />", 1));
        if (name[0] == '/') {
            if (open.empty() || "/" + open.back() != name) return "closing " + name;
            open.pop_back();
        } else if (tag.back() != '/' && name != "meta") {
            open.push_back(name);
        }
        at = name == "style" ? style_end - 1 : end;
    }
    return open.empty() ? "" : "not closed: " + open.back();
}

}  // namespace

TEST_CASE("report: the tables for the terminal") {
    RunReport report = small_report();
    report.bad_pictures = 1;
    CHECK("\n" + text_summary(report) == R"(
  split  images    loss  top-1   top-5  macro F1
  val        30  0.4321  80.00  100.00     80.67
  hard       12  1.5000  50.00  100.00     45.50

by class, on val:
  class    images  precision  recall    F1
  none         10       90.9   100.0  95.2
  crack        10       85.7    60.0  70.6
  scratch      10       72.7    80.0  76.2

largest confusions:
  class    taken for   pictures         share
  crack    -> scratch         3  of 10  30.0%
  crack    -> none            1  of 10  10.0%
  scratch  -> crack           1  of 10  10.0%

1 bad picture was skipped; bad_pictures.txt names them
)");
    CHECK(text_summary(RunReport{}).empty());
    report.confusion.pop_back();
    CHECK_THROWS_AS(text_summary(report), rn50::Error);
    CHECK_THROWS_AS(html(report), rn50::Error);
}

TEST_CASE("report: of many classes the terminal shows the worst") {
    const RunReport report = large_report(200, 0);
    const std::string text = text_summary(report);
    CHECK(text.find("the 10 of 200 classes with the lowest F1") != std::string::npos);
    CHECK(occurrences(text, "\n") < 30);
    const std::vector<size_t> order = classes_by_f1(report);
    REQUIRE(order.size() == 200);
    for (size_t i = 1; i < order.size(); ++i)
        CHECK(report.scores[order[i - 1]].f1 <= report.scores[order[i]].f1);
}

TEST_CASE("report: confusions by count, then share, then index") {
    RunReport report;
    report.classes = {"a", "b", "c"};
    report.scores = {{100, 0, 0, 0}, {10, 0, 0, 0}, {10, 0, 0, 0}};
    report.confusion = {{93, 5, 2}, {2, 3, 5}, {5, 0, 5}};
    const std::vector<Confusion> worst = worst_confusions(report, 4);
    REQUIRE(worst.size() == 4);
    const int64_t expected[][4] = {{1, 2, 5, 10}, {2, 0, 5, 10}, {0, 1, 5, 100}, {1, 0, 2, 10}};
    for (size_t i = 0; i < 4; ++i) {
        CHECK(worst[i].label == expected[i][0]);
        CHECK(worst[i].prediction == expected[i][1]);
        CHECK(worst[i].count == expected[i][2]);
        CHECK(worst[i].support == expected[i][3]);
    }
}

TEST_CASE("report: the best epoch has the highest top-1, then the lowest loss, then comes first") {
    RunReport report;
    CHECK(best_epoch(report) == nullptr);
    const double rows[][2] = {{90, 0.5}, {95, 0.4}, {95, 0.3}, {95, 0.3}, {94, 0.1}};
    for (const auto& row : rows) {
        EpochRow epoch;
        epoch.epoch = static_cast<int64_t>(report.history.size()) + 1;
        epoch.top1 = row[0];
        epoch.val_loss = row[1];
        report.history.push_back(epoch);
    }
    CHECK(best_epoch(report)->epoch == 3);
}

TEST_CASE("report: a chart draws its values to scale and leaves gaps") {
    // The frame: x from 50 to 444, y from 194 (low) to 10 (high).
    LineChart chart{"t", "%", {1, 2, 3}, {{"s", "c1", {0, 50, 100}}}, 0, 100, 2};
    const std::string svg = line_chart(chart);
    CHECK(svg.find("d=\"M50.0 194.0L247.0 102.0L444.0 10.0\"") != std::string::npos);
    CHECK(svg.find("class=\"mark\" x1=\"247.0\"") != std::string::npos);
    CHECK(svg.find(">100%</text>") != std::string::npos);
    CHECK(svg.find("nan") == std::string::npos);

    chart.series[0].y = {0, nan_value, 100};
    CHECK(line_chart(chart).find("d=\"M50.0 194.0M444.0 10.0\"") != std::string::npos);
    CHECK(occurrences(line_chart(chart), "<circle") == 2);
    chart.series[0].y = {nan_value, nan_value, std::numeric_limits<double>::infinity()};
    CHECK(line_chart(chart).empty());
    // Axes without a range: all values alike, all zero.
    for (const double value : {0.0, 7.0, -3.0}) {
        chart = {"t", "", {1}, {{"s", "c1", {value}}}, nan_value, nan_value, nan_value};
        CHECK(line_chart(chart).find("nan") == std::string::npos);
        CHECK(line_chart(chart).find("inf") == std::string::npos);
    }
}

TEST_CASE("report: the page is whole, of itself alone, and holds what was measured") {
    RunReport report = small_report();
    report.facts = {{"model", "resnet50"}};
    report.options = "lr = 1\nname = \"<x>\"\n";
    report.history = large_report(1, 18).history;
    report.history[3].val_loss = nan_value;
    const std::string page = html(report);
    CHECK(fault_of(page) == "");
    for (const char* part :
         {"ResNet-50 on data/", "80.67%", "30.0%", "resnet50", "lr = 1\nname = &quot;&lt;x&gt;&quot;", "hard"})
        CHECK_MESSAGE(page.find(part) != std::string::npos, part);
    for (const char* part : {"<script", "http:", "https:", "src=", "@import", "url(", "nan", "inf\""})
        CHECK_MESSAGE(page.find(part) == std::string::npos, part);
    CHECK(fault_of(html(RunReport{})) == "");
    CHECK(fault_of("<html><style></style><b></html>") != "");  // the check itself
    CHECK(fault_of("<html><style></style>a & b;</html>") != "");
}

TEST_CASE("report: names cannot break the page or the terminal") {
    RunReport report = small_report();
    report.classes = {"<script>alert('x')</script>", "a\"b&c", "\xff\xfe Latin \xfc", "\033[2Jline\nend"};
    report.confusion[1][3] = 2;
    report.title = "</title><b>";
    const std::string page = html(report), text = text_summary(report);
    CHECK(fault_of(page) == "");
    CHECK(page.find("<script") == std::string::npos);
    CHECK(page.find("&lt;script&gt;alert(&#39;x&#39;)") != std::string::npos);
    CHECK(page.find("a&quot;b&amp;c") != std::string::npos);
    CHECK(page.find('\xff') == std::string::npos);
    CHECK(text.find('\033') == std::string::npos);
    CHECK(text.find("\xEF\xBF\xBD[2Jline\xEF\xBF\xBD"
                    "end") != std::string::npos);
}

TEST_CASE("report: a page of 200 classes stays small, and shows the 30 worst pairs") {
    const std::string page = html(large_report(200, 50));
    CHECK(fault_of(page) == "");
    CHECK(page.size() < 400000);
    const size_t pairs = page.find("Largest confusions");
    CHECK(occurrences(page.substr(pairs, page.find("</table>", pairs) - pairs), "<tr>") == 31);
    CHECK(page.find("<title>class 0 →") == std::string::npos);
    CHECK(html(large_report(30, 0)).find("<title>class 0 →") != std::string::npos);
}

TEST_CASE("report: names are measured in columns, numbers written for people") {
    CHECK(display_width("crack") == 5);
    CHECK(display_width("Größe") == 5);
    CHECK(display_width("划痕") == 4);
    CHECK(display_width("e\xCC\x81") == 1);  // e and a combining accent
    CHECK(shortened("inclusion", 9) == "inclusion");
    CHECK(shortened("inclusion", 8) == "inclusi…");
    CHECK(shortened("划痕锈蚀", 6) == "划痕…");
    CHECK(shown("ok ü") == "ok ü");
    CHECK(shown("\xC0\xAF|\xED\xA0\x80|\xF4\x90\x80\x80").find('\xC0') ==
          std::string::npos);  // overlong, surrogate, too high

    Table table({"name", ">n"});
    table.row({"划痕", "5"});
    table.row({"pit", "12"});
    CHECK(table.str() == "  name   n\n  划痕   5\n  pit   12\n");

    CHECK(fixed(1.005, 1) == "1.0");
    CHECK(fixed(nan_value, 2) == "-");
    CHECK(grouped(0) == "0");
    CHECK(grouped(999) == "999");
    CHECK(grouped(1281167) == "1,281,167");
    CHECK(grouped(-1000) == "-1,000");
    CHECK(grouped(-100) == "-100");
    CHECK(duration(12.34) == "12.3 s");
    CHECK(duration(59.96) == "1 min 00 s");
    CHECK(duration(245) == "4 min 05 s");
    CHECK(duration(7380) == "2 h 03 min");
    CHECK(duration(270000) == "3 d 03 h");
    CHECK(duration(nan_value) == "-");
}
