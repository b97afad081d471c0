#include "train/agreement.h"

#include <signal.h>

#include <algorithm>

#include "base/interrupt.h"

namespace rn50 {

namespace {

/// Signals that ask to stop. When ranks have caught different ones the last of these counts.
constexpr int stopping_signals[] = {SIGHUP, SIGINT, SIGTERM};

/// How many ranks have caught which signal is a sum: one number for each.
void append_signal(std::vector<double>& numbers, int caught) {
    for (const int signal : stopping_signals)
        numbers.push_back(signal == caught ? 1 : 0);
}

/// What such sums say, which begin at `at`, and go on after them.
int take_signal(const std::vector<double>& sums, size_t& at) {
    int found = 0;
    for (const int signal : stopping_signals)
        if (sums[at++] > 0) found = signal;
    return found;
}

}  // namespace

double Notices::longest_wait() const {
    return *std::max_element(waits.begin(), waits.end());
}

void Agreement::tell(const Notice& mine) {
    mine_ = mine;
    if (comm_ == nullptr) return;
    std::vector<double> numbers{mine.loss, static_cast<double>(mine.bad_pictures), mine.save_is_due ? 1.0 : 0.0,
                                mine.unread ? 1.0 : 0.0, mine.unready ? 1.0 : 0.0};
    append_signal(numbers, mine.signal);
    const size_t first_wait = numbers.size();
    numbers.resize(first_wait + static_cast<size_t>(comm_->size()), 0.0);
    numbers[first_wait + static_cast<size_t>(comm_->rank())] = mine.wait;
    comm_->begin_sum(numbers);
}

Notices Agreement::hear() {
    Notices all;
    if (comm_ == nullptr) {
        all.loss = mine_.loss;
        all.waits = {mine_.wait};
        all.bad_pictures = mine_.bad_pictures;
        all.signal = mine_.signal;
        all.save_is_due = mine_.save_is_due;
        all.unread = mine_.unread;
        all.unready = mine_.unready;
        return all;
    }
    const std::vector<double> sums = comm_->finish_sum();
    size_t at = 0;
    all.loss = sums[at++] / comm_->size();
    all.bad_pictures = static_cast<int64_t>(sums[at++]);
    all.save_is_due = sums[at++] > 0;
    all.unread = sums[at++] > 0;
    all.unready = sums[at++] > 0;
    all.signal = take_signal(sums, at);
    all.waits.assign(sums.begin() + static_cast<ptrdiff_t>(at), sums.end());
    return all;
}

int agreed_signal(Communicator* comm) {
    if (comm == nullptr) return interrupt_requested();
    std::vector<double> mine;
    append_signal(mine, interrupt_requested());
    size_t at = 0;
    return take_signal(comm->sum(mine), at);
}

}  // namespace rn50
