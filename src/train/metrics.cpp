#include "train/metrics.h"

#include <cmath>
#include <numeric>

#include "base/error.h"

namespace rn50 {

ConfusionMatrix::ConfusionMatrix(int64_t classes) : classes_(classes) {
    RN50_REQUIRE(classes > 0, "a confusion matrix of ", classes, " classes");
    counts_.resize(static_cast<size_t>(classes * classes));
    unanswered_.resize(static_cast<size_t>(classes));
}

void ConfusionMatrix::add(int64_t label, int64_t prediction) {
    RN50_REQUIRE(label >= 0 && label < classes_ && prediction >= -1 && prediction < classes_, "class ", label,
                 " taken for ", prediction, " of ", classes_);
    if (prediction < 0)
        ++unanswered_[static_cast<size_t>(label)];
    else
        ++counts_[static_cast<size_t>(label * classes_ + prediction)];
}

void ConfusionMatrix::merge(const ConfusionMatrix& other) {
    RN50_REQUIRE(classes_ == other.classes_, "merging ", classes_, " with ", other.classes_, " classes");
    for (size_t i = 0; i < counts_.size(); ++i)
        counts_[i] += other.counts_[i];
    for (size_t i = 0; i < unanswered_.size(); ++i)
        unanswered_[i] += other.unanswered_[i];
}

int64_t ConfusionMatrix::samples() const {
    return std::accumulate(counts_.begin(), counts_.end(), int64_t{0}) +
           std::accumulate(unanswered_.begin(), unanswered_.end(), int64_t{0});
}

int64_t ConfusionMatrix::correct() const {
    int64_t sum = 0;
    for (int64_t k = 0; k < classes_; ++k)
        sum += at(k, k);
    return sum;
}

ClassScore ConfusionMatrix::score(int64_t label) const {
    ClassScore score;
    score.support = unanswered(label);
    for (int64_t k = 0; k < classes_; ++k) {
        score.support += at(label, k);
        score.predicted += at(k, label);
    }
    const auto hits = static_cast<double>(at(label, label));
    if (score.predicted) score.precision = hits / static_cast<double>(score.predicted);
    if (score.support) score.recall = hits / static_cast<double>(score.support);
    const int64_t either = score.predicted + score.support;
    if (either) score.f1 = 2 * hits / static_cast<double>(either);
    return score;
}

double ConfusionMatrix::macro_f1() const {
    double sum = 0;
    int64_t present = 0;
    for (int64_t k = 0; k < classes_; ++k) {
        const ClassScore one = score(k);
        if (one.support == 0) continue;
        sum += one.f1;
        ++present;
    }
    return present ? sum / static_cast<double>(present) : 0;
}

std::vector<std::vector<int64_t>> ConfusionMatrix::rows() const {
    std::vector<std::vector<int64_t>> rows;
    for (int64_t k = 0; k < classes_; ++k)
        rows.emplace_back(counts_.begin() + k * classes_, counts_.begin() + (k + 1) * classes_);
    return rows;
}

void ConfusionMatrix::append_to(std::vector<double>& flat) const {
    flat.insert(flat.end(), counts_.begin(), counts_.end());
    flat.insert(flat.end(), unanswered_.begin(), unanswered_.end());
}

void ConfusionMatrix::add_from(const double* flat) {
    for (int64_t& count : counts_)
        count += std::llround(*flat++);
    for (int64_t& count : unanswered_)
        count += std::llround(*flat++);
}

int64_t argmax(const float* values, int64_t count) {
    int64_t best = 0;
    for (int64_t i = 0; i < count; ++i) {
        if (std::isnan(values[i])) return -1;
        if (values[i] > values[best]) best = i;
    }
    return best;
}

int64_t rank_of(const float* values, int64_t count, int64_t index) {
    int64_t before = 0;
    for (int64_t i = 0; i < count; ++i) {
        if (std::isnan(values[i])) return -1;
        before += values[i] > values[index] || (values[i] == values[index] && i < index);
    }
    return before;
}

void EvalMetrics::add(const float* logits, int64_t label, double loss) {
    const int64_t classes = confusion_.classes();
    confusion_.add(label, argmax(logits, classes));
    const int64_t rank = rank_of(logits, classes, label);
    in_top5_ += rank >= 0 && rank < 5;
    loss_sum_ += loss;
    ++images_;
}

double EvalMetrics::loss() const {
    return images_ ? loss_sum_ / static_cast<double>(images_) : 0;
}

double EvalMetrics::top1() const {
    return images_ ? 100 * static_cast<double>(confusion_.correct()) / static_cast<double>(images_) : 0;
}

double EvalMetrics::top5() const {
    return images_ ? 100 * static_cast<double>(in_top5_) / static_cast<double>(images_) : 0;
}

std::vector<double> EvalMetrics::flat() const {
    std::vector<double> flat{static_cast<double>(images_), static_cast<double>(in_top5_), loss_sum_};
    confusion_.append_to(flat);
    return flat;
}

EvalMetrics EvalMetrics::from_flat(int64_t classes, const std::vector<double>& flat) {
    RN50_REQUIRE(static_cast<int64_t>(flat.size()) == 3 + classes * (classes + 1), flat.size(), " sums for ", classes,
                 " classes");
    EvalMetrics metrics(classes);
    metrics.images_ = std::llround(flat[0]);
    metrics.in_top5_ = std::llround(flat[1]);
    metrics.loss_sum_ = flat[2];
    metrics.confusion_.add_from(flat.data() + 3);
    return metrics;
}

void EvalMetrics::merge(const EvalMetrics& other) {
    confusion_.merge(other.confusion_);
    images_ += other.images_;
    in_top5_ += other.in_top5_;
    loss_sum_ += other.loss_sum_;
}

}  // namespace rn50
