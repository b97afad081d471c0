// What a run or an evaluation has found, as a text for the terminal and as one HTML file. Plain data in, a string out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace rn50::report {

/// One epoch of training. A NaN means "not measured" and is shown as a dash.
struct EpochRow {
    int64_t epoch = 0;  ///< counted from 1
    double lr = 0;      ///< at the end of the epoch
    double train_loss = 0, val_loss = 0;
    double top1 = 0, top5 = 0, macro_f1 = 0;  ///< percent, on val
    double images_per_s = 0;
    double data_wait = 0;  ///< fraction
    double seconds = 0;
};

/// One class of the evaluated split. Fractions.
struct ClassRow {
    int64_t support = 0;  ///< samples
    double precision = 0, recall = 0, f1 = 0;
};

/// One evaluated split: val, and such as hard/ beside it.
struct SplitRow {
    std::string name;
    int64_t images = 0;
    double loss = 0, top1 = 0, top5 = 0, macro_f1 = 0;  ///< percent
};

struct RunReport {
    std::string title;  ///< "ResNet-50 on data/"
    /// Shown as a list at the head: {"model", "resnet50, 8 classes, 64 px"}, {"device", ...}, {"best", "epoch 17"} ...
    std::vector<std::pair<std::string, std::string>> facts;
    std::vector<std::string> classes;
    std::vector<EpochRow> history;                ///< empty for an evaluation alone
    std::string split = "val";                    ///< the split that `scores` and `confusion` tell of
    std::vector<ClassRow> scores;                 ///< by class
    std::vector<std::vector<int64_t>> confusion;  ///< [true][predicted]; a row may sum to less than the support
    std::vector<SplitRow> splits;
    std::string options;      ///< run.toml
    std::string memory_plan;  ///< MemoryPlan::table()
    int64_t bad_pictures = 0;
    double elapsed_s = 0;
};

/// Two classes taken for each other in one direction.
struct Confusion {
    int64_t label = 0, prediction = 0, count = 0, support = 0;
};
/// The largest entries beside the diagonal: by count, then by share of the class, then by index; at most `limit`.
std::vector<Confusion> worst_confusions(const RunReport& report, size_t limit);

/// Indices of the classes that have samples, the lowest F1 first.
std::vector<size_t> classes_by_f1(const RunReport& report);
/// The epoch of `best`: highest top-1, then lowest loss; null without a history.
const EpochRow* best_epoch(const RunReport& report);
/// Throws a broken contract when scores or confusion do not fit the number of classes.
void check(const RunReport& report);

/// Tables for the terminal: splits, classes (the 10 of lowest F1 when there are more than 20), worst confusions.
std::string text_summary(const RunReport& report);
/// One self-contained file: inline CSS and SVG, no scripts, no network.
std::string html(const RunReport& report);

}  // namespace rn50::report
