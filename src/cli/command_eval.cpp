// rn50 eval: how well a checkpoint does on val, and on the splits beside it.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "cli/classifier.h"
#include "cli/commands.h"
#include "cli/picture_options.h"
#include "report/report.h"
#include "report/table.h"
#include "train/metrics.h"

namespace rn50 {

namespace {

constexpr size_t largest_matrix = 20;  // classes; more do not fit a terminal, and the worst confusions tell enough

/// -log softmax(logits)[label]
double cross_entropy(const float* logits, size_t classes, int32_t label) {
    const double highest = *std::max_element(logits, logits + classes);
    double sum = 0;
    for (size_t i = 0; i < classes; ++i)
        sum += std::exp(logits[i] - highest);
    return std::log(sum) + highest - logits[label];
}

EvalMetrics evaluate(Classifier& classifier, const NamedSource& split, const Options& options) {
    const size_t classes = classifier.classes().size();
    LoaderOptions loading;
    loading.batch_size = options.batch_size;
    loading.workers = static_cast<int>(options.workers);
    loading.max_bad = options.max_bad;
    loading.pictures = classifier.pictures();
    loading.give_way = classifier.on_cpu();
    Loader loader(*split.source, loading, classifier.host_memory());
    loader.start_epoch(0);

    EvalMetrics metrics(static_cast<int64_t>(classes));
    while (const Batch* batch = loader.next()) {
        const float* logits = classifier.logits(*batch);
        for (int64_t i = 0; i < batch->count; ++i, logits += classes) {
            const int32_t label = batch->labels.as<int32_t>()[i];
            metrics.add(logits, label, cross_entropy(logits, classes, label));
        }
        log::progress(cat(split.name, "  ", metrics.images(), "/", split.source->size(), " pictures"));
    }
    log::progress_done();
    for (const BadPicture& bad : loader.bad())
        log::warn(cat("skipped ", bad.name, ": ", bad.reason));
    return metrics;
}

void print_json(const std::vector<std::pair<std::string, EvalMetrics>>& results) {
    const auto object_of = [](const EvalMetrics& metrics) {
        return nlohmann::ordered_json{{"top1", metrics.top1()},
                                      {"top5", metrics.top5()},
                                      {"macro_f1", metrics.macro_f1()},
                                      {"loss", metrics.loss()},
                                      {"images", metrics.images()}};
    };
    nlohmann::ordered_json object = object_of(results.front().second);
    for (size_t i = 1; i < results.size(); ++i)
        object["splits"][results[i].first] = object_of(results[i].second);
    std::puts(object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
}

/// Rows are the true classes, columns the predicted ones, headed by the row's number.
std::string matrix_table(const std::vector<std::string>& classes, const ConfusionMatrix& confusion) {
    std::vector<std::string> head{"true \\ predicted"};
    for (size_t i = 0; i < classes.size(); ++i)
        head.push_back(cat(">", i + 1));
    report::Table table(head);
    for (size_t i = 0; i < classes.size(); ++i) {
        std::vector<std::string> cells{cat(i + 1, " ", classes[i])};
        for (size_t j = 0; j < classes.size(); ++j) {
            const int64_t count = confusion.at(static_cast<int64_t>(i), static_cast<int64_t>(j));
            cells.push_back(count == 0 ? "." : std::to_string(count));
        }
        table.row(cells);
    }
    return table.str();
}

void print_tables(const std::vector<std::string>& classes,
                  const std::vector<std::pair<std::string, EvalMetrics>>& results) {
    report::RunReport report;
    report.classes = classes;
    report.split = results.front().first;
    const ConfusionMatrix& confusion = results.front().second.confusion();
    for (int64_t label = 0; label < confusion.classes(); ++label) {
        const ClassScore score = confusion.score(label);
        report.scores.push_back({score.support, score.precision, score.recall, score.f1});
    }
    report.confusion = confusion.rows();
    for (const auto& [name, metrics] : results)
        report.splits.push_back(
            {name, metrics.images(), metrics.loss(), metrics.top1(), metrics.top5(), metrics.macro_f1()});
    std::fputs(report::text_summary(report).c_str(), stdout);
    if (classes.size() <= largest_matrix) std::printf("\n%s", matrix_table(classes, confusion).c_str());
}

}  // namespace

int run_eval(const Options& options) {
    Classifier classifier(options, options.batch_size);
    log::info(cat(classifier.path(), ": ", classifier.describe()));
    std::vector<std::pair<std::string, EvalMetrics>> results;
    std::vector<std::string> warnings;
    const std::vector<NamedSource> splits =
        open_evaluation(options.data, data_options(options), classifier.classes(), warnings);
    for (const std::string& warning : warnings)
        log::warn(warning);
    for (const NamedSource& split : splits)
        results.emplace_back(split.name, evaluate(classifier, split, options));
    if (options.json) {
        print_json(results);
    } else {
        print_tables(classifier.classes(), results);
    }
    return static_cast<int>(Exit::ok);
}

}  // namespace rn50
