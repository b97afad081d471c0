#include "report/report.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "report/table.h"

namespace rn50::report {

namespace {

constexpr size_t all_classes_up_to = 20;
constexpr size_t worst_classes = 10;
constexpr size_t worst_pairs = 10;

std::string split_table(const RunReport& report) {
    Table table({"split", ">images", ">loss", ">top-1", ">top-5", ">macro F1"});
    for (const SplitRow& split : report.splits)
        table.row({split.name, grouped(split.images), fixed(split.loss, 4), fixed(split.top1, 2), fixed(split.top5, 2),
                   fixed(split.macro_f1, 2)});
    return table.str();
}

std::string class_table(const RunReport& report) {
    std::vector<size_t> shown_classes;
    for (size_t k = 0; k < report.scores.size(); ++k)
        if (report.scores[k].support > 0) shown_classes.push_back(k);
    const size_t present = shown_classes.size();
    std::string heading = cat("by class, on ", report.split, ":\n");
    if (present > all_classes_up_to) {
        shown_classes = classes_by_f1(report);
        shown_classes.resize(worst_classes);
        heading = cat("the ", worst_classes, " of ", present, " classes with the lowest F1, on ", report.split, ":\n");
    }
    Table table({"class", ">images", ">precision", ">recall", ">F1"});
    for (const size_t k : shown_classes) {
        const ClassRow& score = report.scores[k];
        table.row({report.classes[k], grouped(score.support), fixed(100 * score.precision, 1),
                   fixed(100 * score.recall, 1), fixed(100 * score.f1, 1)});
    }
    return heading + table.str();
}

std::string confusion_table(const RunReport& report) {
    const std::vector<Confusion> worst = worst_confusions(report, worst_pairs);
    if (worst.empty()) return {};
    Table table({"class", "taken for", ">pictures", "", ">share"});
    for (const Confusion& one : worst)
        table.row({report.classes[static_cast<size_t>(one.label)],
                   "-> " + report.classes[static_cast<size_t>(one.prediction)], grouped(one.count),
                   "of " + grouped(one.support),
                   fixed(100 * static_cast<double>(one.count) / static_cast<double>(one.support), 1) + "%"});
    return "largest confusions:\n" + table.str();
}

}  // namespace

void check(const RunReport& report) {
    const size_t classes = report.classes.size();
    RN50_REQUIRE(report.scores.empty() || report.scores.size() == classes, report.scores.size(), " scores");
    RN50_REQUIRE(report.confusion.empty() || report.confusion.size() == classes, report.confusion.size(), " rows");
    for (const auto& row : report.confusion)
        RN50_REQUIRE(row.size() == classes, "a row of ", row.size());
    RN50_REQUIRE(report.confusion.empty() || !report.scores.empty(), "a confusion matrix without scores");
}

std::vector<size_t> classes_by_f1(const RunReport& report) {
    std::vector<size_t> order;
    for (size_t k = 0; k < report.scores.size(); ++k)
        if (report.scores[k].support > 0) order.push_back(k);
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return report.scores[a].f1 < report.scores[b].f1; });
    return order;
}

std::vector<Confusion> worst_confusions(const RunReport& report, size_t limit) {
    std::vector<Confusion> all;
    for (size_t label = 0; label < report.confusion.size(); ++label)
        for (size_t prediction = 0; prediction < report.confusion[label].size(); ++prediction)
            if (label != prediction && report.confusion[label][prediction] > 0)
                all.push_back({static_cast<int64_t>(label), static_cast<int64_t>(prediction),
                               report.confusion[label][prediction], report.scores[label].support});
    // At equal counts the smaller class has the larger share; the sort is stable, so the index decides at last.
    std::stable_sort(all.begin(), all.end(), [](const Confusion& a, const Confusion& b) {
        return a.count != b.count ? a.count > b.count : a.support < b.support;
    });
    if (all.size() > limit) all.resize(limit);
    return all;
}

const EpochRow* best_epoch(const RunReport& report) {
    const EpochRow* best = nullptr;
    for (const EpochRow& row : report.history)
        if (!best || row.top1 > best->top1 || (row.top1 == best->top1 && row.val_loss < best->val_loss)) best = &row;
    return best;
}

std::string text_summary(const RunReport& report) {
    check(report);
    std::string text;
    if (!report.splits.empty()) text += split_table(report);
    if (!report.scores.empty()) text += "\n" + class_table(report);
    const std::string confusions = confusion_table(report);
    if (!confusions.empty()) text += "\n" + confusions;
    if (report.bad_pictures > 0)
        text += cat("\n", grouped(report.bad_pictures), " bad picture", report.bad_pictures == 1 ? " was" : "s were",
                    " skipped; bad_pictures.txt names them\n");
    return text;
}

}  // namespace rn50::report
