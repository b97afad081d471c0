#include <algorithm>
#include <cmath>
#include <sstream>

#include "base/error.h"
#include "report/report.h"
#include "report/svg.h"
#include "report/table.h"

namespace rn50::report {

namespace {

constexpr size_t worst_pairs = 30;

// Blue against orange: told apart by nearly every eye, and by their lightness on a grey printer.
constexpr char style[] = R"css(
:root{--ink:#16202c;--soft:#5c6b7c;--line:#e3e8ee;--paper:#fff;--back:#f4f6f9;--blue:#1d4ed8;--orange:#c2410c}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Noto Sans","Noto Sans CJK SC","Microsoft YaHei",sans-serif}
main{max-width:1040px;margin:0 auto;padding:32px 20px 48px}
h1{font-size:26px;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:18px;margin:0 0 12px}
section{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:20px 22px;margin-top:18px}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:2px 18px;margin:12px 0 0}
.facts dt,.note,footer{color:var(--soft)}
.note{margin:12px 0 0;font-size:13px}
.facts dd{margin:0;overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(144px,1fr));gap:12px;margin-top:18px}
.card{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:12px 16px}
.card b{display:block;font-size:22px;line-height:1.3;font-variant-numeric:tabular-nums;white-space:nowrap}
.card span{color:var(--soft);font-size:13px}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(380px,1fr));gap:20px 28px}
figure{margin:0;break-inside:avoid}
figcaption{display:flex;justify-content:space-between;gap:12px;margin-bottom:4px;font-size:14px}
figcaption span{color:var(--soft);white-space:nowrap}
.key{display:inline-block;width:14px;height:3px;border-radius:2px;margin:0 6px 3px 10px;vertical-align:middle}
svg{display:block;width:100%;height:auto}
.tick{font-size:11.5px;fill:var(--soft)}
.grid{stroke:var(--line)}
.mark{stroke:var(--soft);stroke-dasharray:3 4}
.line{fill:none;stroke-width:2.2;stroke-linejoin:round;stroke-linecap:round}
.line.c1{stroke:var(--blue)}.line.c2{stroke:#d97706}.line.c3{stroke:#0d9488}.line.c4{stroke:#8b98a8}
.key.c1{background:var(--blue)}.key.c2{background:#d97706}.key.c3{background:#0d9488}.key.c4{background:#8b98a8}
circle.c1{fill:var(--blue)}circle.c2{fill:#d97706}circle.c3{fill:#0d9488}circle.c4{fill:#8b98a8}
.heat{margin:0 auto}
.zero{fill:#f4f6f9}.count{font-size:12px;font-variant-numeric:tabular-nums}.light{fill:#fff}
.d1{fill:#e8f0fe}.d2{fill:#cfdffc}.d3{fill:#b0c9f9}.d4{fill:#8caff5}.d5{fill:#648fee}.d6{fill:#4271e4}.d7{fill:#2c5cdb}.d8{fill:#1d4ed8}
.o1{fill:#fef0e3}.o2{fill:#fcdfc4}.o3{fill:#f8c79b}.o4{fill:#f0a868}.o5{fill:#e48540}.o6{fill:#d66826}.o7{fill:#cb5216}.o8{fill:#b93a08}
.legend{display:flex;flex-wrap:wrap;gap:4px 22px;margin:0 0 10px;font-size:13px;color:var(--soft)}
.legend i{display:inline-block;width:14px;height:14px;border-radius:3px;margin-right:2px;vertical-align:-2px}
.legend .d2{background:#cfdffc}.legend .d5{background:#648fee}.legend .d8{background:#1d4ed8}
.legend .o1{background:#fef0e3}.legend .o4{background:#f0a868}.legend .o8{background:#b93a08}
table{border-collapse:collapse;width:100%;font-size:14px}
th{font-weight:600;color:var(--soft);text-align:left;border-bottom:1px solid #c9d2dc;padding:5px 10px 5px 0;vertical-align:bottom}
td{border-bottom:1px solid var(--line);padding:4px 10px 4px 0}
td:first-child,.name{overflow-wrap:anywhere}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.best td{background:#eef4ff;font-weight:600}
.bar{width:22%;padding-left:10px}
.bar i{display:block;height:9px;border-radius:2px;background:var(--blue)}
.bar i.low{background:var(--orange)}
pre{font:12.5px/1.5 ui-monospace,"DejaVu Sans Mono",Consolas,monospace;margin:0;white-space:pre-wrap;overflow-wrap:anywhere}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(380px,1fr));gap:20px 36px}
footer{margin-top:18px;font-size:13px}
@media(max-width:480px){.charts,.two{grid-template-columns:1fr}}
@media print{
@page{margin:13mm}
body{background:#fff;font-size:12px;-webkit-print-color-adjust:exact;print-color-adjust:exact}
main{max-width:none;padding:0}
table{font-size:11px}
section{border:0;border-radius:0;padding:0;margin-top:22px}
.charts,.two{grid-template-columns:1fr 1fr}
.cards{grid-template-columns:repeat(4,1fr)}
.heat{max-height:240mm}
thead{display:table-header-group}
tr,svg{break-inside:avoid}
h2{break-after:avoid}
}
)css";

std::string number_cell(const std::string& text) {
    return "<td class=\"n\">" + text + "</td>";
}

/// The head of a table; a heading that starts with '>' stands over numbers, as in Table.
std::string table_head(const std::vector<std::string>& columns) {
    std::string row;
    for (const std::string& column : columns)
        row += column[0] == '>' ? "<th class=\"n\">" + column.substr(1) + "</th>" : "<th>" + column + "</th>";
    return "<table><thead><tr>" + row + "</tr></thead><tbody>";
}

std::string percent(double value, int digits) {
    return std::isfinite(value) ? fixed(value, digits) + "%" : "-";
}

std::string card(const std::string& value, const std::string& label) {
    return "<div class=\"card\"><b>" + escape(value) + "</b><span>" + escape(label) + "</span></div>";
}

/// Mean over the epochs, weighted by their time; NaN when none was measured.
double mean_images_per_s(const RunReport& report) {
    double images = 0, seconds = 0;
    for (const EpochRow& row : report.history) {
        if (!std::isfinite(row.images_per_s) || !(row.seconds > 0)) continue;
        images += row.images_per_s * row.seconds;
        seconds += row.seconds;
    }
    return seconds > 0 ? images / seconds : std::nan("");
}

std::string head(const RunReport& report) {
    std::ostringstream out;
    out << "<header><h1>" << escape(report.title) << "</h1><dl class=\"facts\">";
    for (const auto& [name, value] : report.facts)
        out << "<dt>" << escape(name) << "</dt><dd>" << escape(value) << "</dd>";
    out << "</dl></header>\n<div class=\"cards\">";
    for (const SplitRow& split : report.splits) {
        if (split.name != report.split) continue;
        out << card(percent(split.top1, 2), "top-1 on " + split.name) << card(percent(split.macro_f1, 2), "macro F1");
        if (report.classes.size() > 5) out << card(percent(split.top5, 2), "top-5");
        out << card(fixed(split.loss, 4), "loss");
    }
    const double rate = mean_images_per_s(report);
    if (std::isfinite(rate)) out << card(fixed(rate, rate < 100 ? 1 : 0), "images a second");
    if (report.elapsed_s > 0) out << card(duration(report.elapsed_s), "in all");
    out << "</div>\n";
    return out.str();
}

std::string charts(const RunReport& report) {
    if (report.history.size() < 2) return {};  // a single point is no curve; the table below has it
    std::vector<double> epochs;
    Series train{"train", "c4", {}}, val{"val", "c1", {}}, top1{"top-1", "c1", {}}, f1{"macro F1", "c3", {}};
    Series lr{"learning rate", "c2", {}}, rate{"training", "c1", {}};
    for (const EpochRow& row : report.history) {
        epochs.push_back(static_cast<double>(row.epoch));
        train.y.push_back(row.train_loss);
        val.y.push_back(row.val_loss);
        top1.y.push_back(row.top1);
        f1.y.push_back(row.macro_f1);
        lr.y.push_back(row.lr);
        rate.y.push_back(row.images_per_s);
    }
    const double none = std::nan(""), best = static_cast<double>(best_epoch(report)->epoch);
    return "<section><h2>Training</h2><div class=\"charts\">" +
           line_chart({"Loss", "", epochs, {train, val}, 0, none, best}) +
           line_chart({"Accuracy on val", "%", epochs, {top1, f1}, none, none, best}) +
           line_chart({"Learning rate", "", epochs, {lr}, 0, none, best}) +
           line_chart({"Images a second", "", epochs, {rate}, 0, none, best}) +
           "</div><p class=\"note\">By epoch; the dashed line marks the epoch that best.safetensors "
           "keeps.</p></section>\n";
}

std::string splits(const RunReport& report) {
    if (report.splits.empty()) return {};
    std::ostringstream out;
    out << "<section><h2>Results</h2>" << table_head({"split", ">images", ">loss", ">top-1", ">top-5", ">macro F1"});
    for (const SplitRow& split : report.splits)
        out << "<tr><td>" << escape(split.name) << "</td>" << number_cell(grouped(split.images))
            << number_cell(fixed(split.loss, 4)) << number_cell(percent(split.top1, 2))
            << number_cell(percent(split.top5, 2)) << number_cell(percent(split.macro_f1, 2)) << "</tr>";
    out << "</tbody></table></section>\n";
    return out.str();
}

std::string confusion(const RunReport& report) {
    if (report.confusion.empty()) return {};
    return "<section><h2>Confusion matrix</h2><div class=\"legend\"><span>rows: what it is; columns: what it was taken "
           "for"
           "</span><span><i class=\"d2\"></i><i class=\"d5\"></i><i class=\"d8\"></i> right</span><span><i "
           "class=\"o1\"></i>"
           "<i class=\"o4\"></i><i class=\"o8\"></i> wrong, by share of the row</span></div>" +
           heat_map(report) + "</section>\n";
}

std::string pairs(const RunReport& report) {
    const std::vector<Confusion> worst = worst_confusions(report, worst_pairs);
    if (worst.empty()) return {};
    std::ostringstream out;
    out << "<section><h2>Largest confusions</h2>" << table_head({"is", "taken for", ">pictures", ">of", ">share"});
    for (const Confusion& one : worst)
        out << "<tr><td>" << escape(report.classes[static_cast<size_t>(one.label)]) << "</td><td class=\"name\">"
            << escape(report.classes[static_cast<size_t>(one.prediction)]) << "</td>" << number_cell(grouped(one.count))
            << number_cell(grouped(one.support))
            << number_cell(percent(100 * static_cast<double>(one.count) / static_cast<double>(one.support), 1))
            << "</tr>";
    out << "</tbody></table></section>\n";
    return out.str();
}

std::string classes(const RunReport& report) {
    if (report.scores.empty()) return {};
    const std::vector<size_t> order = classes_by_f1(report);
    std::ostringstream out;
    out << "<section><h2>Classes</h2>"
        << table_head({"class", ">index", ">images", ">precision", ">recall", ">F1", " "});
    for (const size_t k : order) {
        const ClassRow& score = report.scores[k];
        out << "<tr><td>" << escape(report.classes[k]) << "</td>" << number_cell(std::to_string(k))
            << number_cell(grouped(score.support)) << number_cell(percent(100 * score.precision, 1))
            << number_cell(percent(100 * score.recall, 1)) << number_cell(percent(100 * score.f1, 1))
            << "<td class=\"bar\"><i" << (score.f1 < 0.8 ? " class=\"low\"" : "")
            << " style=\"width:" << fixed(100 * score.f1, 1) << "%\"></i></td></tr>";
    }
    out << "</tbody></table><p class=\"note\">On " << escape(report.split) << ", the lowest F1 first.";
    if (order.size() < report.classes.size())
        out << ' ' << report.classes.size() - order.size() << " of " << report.classes.size()
            << " classes have no pictures there; they are left out, of the macro F1 as well.";
    out << "</p></section>\n";
    return out.str();
}

std::string history(const RunReport& report) {
    if (report.history.empty()) return {};
    const EpochRow* best = best_epoch(report);
    std::ostringstream out;
    out << "<section><h2>Epochs</h2>"
        << table_head({">epoch", ">learning rate", ">train loss", ">val loss", ">top-1", ">top-5", ">macro F1",
                       ">images/s", ">data wait", ">time"});
    for (const EpochRow& row : report.history) {
        char lr[32];
        std::snprintf(lr, sizeof lr, "%.2e", row.lr);
        out << (&row == best ? "<tr class=\"best\">" : "<tr>") << number_cell(std::to_string(row.epoch))
            << number_cell(lr) << number_cell(fixed(row.train_loss, 4)) << number_cell(fixed(row.val_loss, 4))
            << number_cell(percent(row.top1, 2)) << number_cell(percent(row.top5, 2))
            << number_cell(percent(row.macro_f1, 2))
            << number_cell(fixed(row.images_per_s, row.images_per_s < 100 ? 1 : 0))
            << number_cell(percent(100 * row.data_wait, 1)) << number_cell(duration(row.seconds)) << "</tr>";
    }
    out << "</tbody></table></section>\n";
    return out.str();
}

std::string text_block(const std::string& title, const std::string& text) {
    if (text.empty()) return {};
    std::string lines;  // escape() would take line ends for control characters
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);)
        lines += escape(line) + "\n";
    return "<div><h2>" + title + "</h2><pre>" + lines + "</pre></div>";
}

}  // namespace

std::string html(const RunReport& report) {
    check(report);
    std::string page = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<title>" +
                       escape(report.title) +
                       "</title>\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<style>" +
                       style + "</style></head>\n<body><main>\n";
    page += head(report) + charts(report) + splits(report) + confusion(report) + pairs(report) + classes(report) +
            history(report);
    const std::string blocks = text_block("Options", report.options) + text_block("Memory plan", report.memory_plan);
    if (!blocks.empty()) page += "<section class=\"two\">" + blocks + "</section>\n";
    page += "<footer>Written by rn50.";
    if (report.bad_pictures > 0)
        page += cat(" ", grouped(report.bad_pictures), " bad picture", report.bad_pictures == 1 ? " was" : "s were",
                    " skipped; bad_pictures.txt names them.");
    return page + "</footer>\n</main></body></html>\n";
}

}  // namespace rn50::report
