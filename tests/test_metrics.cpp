// Metrics against scikit-learn 1.x and PyTorch, on the same made-up answers.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "train/metrics.h"

using namespace rn50;

namespace {

constexpr int64_t classes = 7;

struct Answers {
    std::vector<int64_t> labels;
    std::vector<std::vector<float>> logits;
};

/// 200 answers of a generator that Python repeats; class 6 has no samples, yet is predicted.
///     def nxt(): global x; x = (x * 1103515245 + 12345) % 2**31; return x >> 16        # x = 1 at first
///     for i in range(200): lab = nxt() % 6; row = [(nxt() % 1000) / 1000 for _ in range(7)]; row[lab] += 0.3
Answers made_up_answers() {
    uint64_t x = 1;
    const auto next = [&] {
        x = (x * 1103515245 + 12345) % (uint64_t{1} << 31);
        return static_cast<int64_t>(x >> 16);
    };
    Answers answers;
    for (int i = 0; i < 200; ++i) {
        answers.labels.push_back(next() % 6);
        std::vector<double> row(classes);
        for (double& value : row)
            value = static_cast<double>(next() % 1000) / 1000;
        row[static_cast<size_t>(answers.labels.back())] += 0.3;
        answers.logits.emplace_back(row.begin(), row.end());
    }
    return answers;
}

}  // namespace

TEST_CASE("metrics: confusion, precision, recall, F1 and top-k are scikit-learn's") {
    const Answers answers = made_up_answers();
    EvalMetrics metrics(classes);
    for (size_t i = 0; i < answers.labels.size(); ++i)
        metrics.add(answers.logits[i].data(), answers.labels[i], 0.01 * static_cast<double>(i));

    // sklearn.metrics.confusion_matrix(y, p, labels=range(7))
    const std::vector<std::vector<int64_t>> confusion{
        {9, 1, 3, 2, 4, 2, 2},  {2, 9, 2, 4, 1, 1, 5},  {6, 4, 16, 5, 2, 3, 2}, {2, 4, 4, 16, 1, 2, 3},
        {1, 1, 5, 3, 18, 4, 6}, {5, 6, 1, 5, 6, 20, 2}, {0, 0, 0, 0, 0, 0, 0}};
    CHECK(metrics.confusion().rows() == confusion);
    // sklearn.metrics.precision_recall_fscore_support(y, p, labels=range(7), zero_division=0)
    const double precision[] = {0.36, 0.36, 0.5161290323, 0.4571428571, 0.5625, 0.625, 0.0};
    const double recall[] = {0.3913043478, 0.375, 0.4210526316, 0.5, 0.4736842105, 0.4444444444, 0.0};
    const double f1[] = {0.375, 0.3673469388, 0.4637681159, 0.4776119403, 0.5142857143, 0.5194805195, 0.0};
    const int64_t support[] = {23, 24, 38, 32, 38, 45, 0};
    for (int64_t k = 0; k < classes; ++k) {
        const ClassScore score = metrics.confusion().score(k);
        CHECK(score.support == support[k]);
        CHECK(score.precision == doctest::Approx(precision[k]).epsilon(1e-9));
        CHECK(score.recall == doctest::Approx(recall[k]).epsilon(1e-9));
        CHECK(score.f1 == doctest::Approx(f1[k]).epsilon(1e-9));
    }
    // f1_score(y, p, labels=np.unique(y), average="macro"); over all seven classes it would be 0.388
    CHECK(metrics.macro_f1() == doctest::Approx(45.291553813038005).epsilon(1e-12));
    // top_k_accuracy_score
    CHECK(metrics.top1() == doctest::Approx(44.0));
    CHECK(metrics.top5() == doctest::Approx(94.0));
    CHECK(metrics.images() == 200);
    CHECK(metrics.loss() == doctest::Approx(0.995));
}

TEST_CASE("metrics: ranks merge to the same sums as one") {
    const Answers answers = made_up_answers();
    EvalMetrics whole(classes), first(classes), second(classes);
    for (size_t i = 0; i < answers.labels.size(); ++i) {
        whole.add(answers.logits[i].data(), answers.labels[i], 0.5);
        (i % 3 ? first : second).add(answers.logits[i].data(), answers.labels[i], 0.5);
    }
    const std::vector<float> unusable(classes, std::numeric_limits<float>::quiet_NaN());
    for (EvalMetrics* one : {&whole, &whole, &first, &second})
        one->add(unusable.data(), 2, 0.5);
    std::vector<double> sum = first.flat();
    const std::vector<double> other = second.flat();
    for (size_t i = 0; i < sum.size(); ++i)
        sum[i] += other[i];
    CHECK(sum == whole.flat());
    CHECK(EvalMetrics::from_flat(classes, sum).flat() == whole.flat());
    first.merge(second);
    CHECK(first.flat() == whole.flat());
    CHECK(first.macro_f1() == whole.macro_f1());
}

TEST_CASE("metrics: of equal logits the first wins, in top-1 and in top-5") {
    // torch.argmax(torch.zeros(7)) == 0
    const std::vector<float> equal(classes, 0.5f);
    CHECK(argmax(equal.data(), classes) == 0);
    for (int64_t label = 0; label < classes; ++label) {
        EvalMetrics metrics(classes);
        metrics.add(equal.data(), label, 0);
        CHECK(metrics.top1() == (label == 0 ? 100 : 0));
        CHECK(metrics.top5() == (label < 5 ? 100 : 0));
    }
    const float later[] = {1, 3, 2, 3};
    CHECK(argmax(later, 4) == 1);
    CHECK(rank_of(later, 4, 1) == 0);
    CHECK(rank_of(later, 4, 3) == 1);
    CHECK(rank_of(later, 4, 2) == 2);
    CHECK(rank_of(later, 4, 0) == 3);
}

TEST_CASE("metrics: NaN is a wrong answer, infinity an ordinary one") {
    const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
    for (int place = 0; place < 3; ++place) {
        EvalMetrics metrics(3);
        std::vector<float> logits{9, 1, 2};
        logits[static_cast<size_t>(place)] = nan;
        metrics.add(logits.data(), 0, nan);
        CHECK(metrics.images() == 1);
        CHECK(metrics.top1() == 0);
        CHECK(metrics.top5() == 0);
        CHECK(metrics.macro_f1() == 0);
        CHECK(std::isnan(metrics.loss()));
        CHECK(metrics.confusion().unanswered(0) == 1);
        CHECK(metrics.confusion().score(0).support == 1);
        CHECK(metrics.confusion().samples() == 1);
    }
    EvalMetrics metrics(3);
    const float huge[] = {-inf, inf, 0};
    metrics.add(huge, 1, 0);
    CHECK(metrics.top1() == 100);
}

TEST_CASE("metrics: of no images everything is 0; fewer than five classes are always in the top five") {
    const EvalMetrics none(4);
    CHECK(none.loss() == 0);
    CHECK(none.top1() == 0);
    CHECK(none.top5() == 0);
    CHECK(none.macro_f1() == 0);
    EvalMetrics one(4);
    const float logits[] = {4, 3, 2, 1};
    one.add(logits, 3, 0);
    CHECK(one.top1() == 0);
    CHECK(one.top5() == 100);
}
