// What an evaluation counts. All of it is sums, so that ranks merge theirs and the result does not depend on their
// number.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace rn50 {

/// Precision, recall and F1 as fractions; 0 where their denominator is 0.
struct ClassScore {
    int64_t support = 0;    ///< samples of the class
    int64_t predicted = 0;  ///< samples taken for it
    double precision = 0, recall = 0, f1 = 0;
};

/// Counts by true class (row) and predicted class (column).
class ConfusionMatrix {
  public:
    explicit ConfusionMatrix(int64_t classes);

    int64_t classes() const { return classes_; }
    /// `prediction` -1: the net gave no usable answer; the sample counts as one of `label` that nothing was taken for.
    void add(int64_t label, int64_t prediction);
    /// Throws a broken contract when the numbers of classes differ.
    void merge(const ConfusionMatrix& other);

    int64_t at(int64_t label, int64_t prediction) const {
        return counts_[static_cast<size_t>(label * classes_ + prediction)];
    }
    int64_t unanswered(int64_t label) const { return unanswered_[static_cast<size_t>(label)]; }
    int64_t samples() const;
    int64_t correct() const;
    ClassScore score(int64_t label) const;
    /// Mean F1 over the classes that have samples, as a fraction: sklearn's
    /// f1_score(y, p, labels=unique(y), average="macro", zero_division=0). 0 without samples.
    double macro_f1() const;
    /// One vector a row.
    std::vector<std::vector<int64_t>> rows() const;

    /// classes * (classes + 1) counts, in a fixed order, and back.
    void append_to(std::vector<double>& flat) const;
    void add_from(const double* flat);

  private:
    int64_t classes_;
    std::vector<int64_t> counts_;
    std::vector<int64_t> unanswered_;
};

/// Index of the largest value; of several the first, as torch.argmax. -1 when a value is NaN.
int64_t argmax(const float* values, int64_t count);
/// How many values stand before `index` when sorted downward, equal ones by index: 0 for the argmax. -1 when one is
/// NaN.
int64_t rank_of(const float* values, int64_t count, int64_t index);

/// Loss, top-1, top-5 and the confusion matrix of one evaluation. NaN logits count as a wrong answer.
class EvalMetrics {
  public:
    explicit EvalMetrics(int64_t classes) : confusion_(classes) {}

    /// One sample: `logits` of all classes, and its loss.
    void add(const float* logits, int64_t label, double loss);

    int64_t images() const { return images_; }
    /// Mean over all images; 0 without any.
    double loss() const;
    /// Percent.
    double top1() const;
    double top5() const;
    double macro_f1() const { return 100 * confusion_.macro_f1(); }
    const ConfusionMatrix& confusion() const { return confusion_; }

    /// Everything as one flat vector of sums, so that an all-reduce (sum) over ranks merges them. Counts are exact up
    /// to 2^53.
    std::vector<double> flat() const;
    static EvalMetrics from_flat(int64_t classes, const std::vector<double>& flat);
    void merge(const EvalMetrics& other);

  private:
    ConfusionMatrix confusion_;
    int64_t images_ = 0;
    int64_t in_top5_ = 0;
    double loss_sum_ = 0;
};

}  // namespace rn50
