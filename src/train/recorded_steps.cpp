#include "train/recorded_steps.h"

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/log.h"

namespace rn50 {

namespace {

/// The first loads kernels and connects the ranks; the second shows that nothing of that is left.
constexpr int64_t plain_runs = 2;

}  // namespace

void RecordedSteps::run(const Kind& kind, const std::function<void()>& work) {
    Piece& piece = pieces_[kind];
    if (piece.recording && ctx_.profile == nullptr) return replay(piece);
    const bool records = !given_up_ && ctx_.profile == nullptr && piece.plain >= plain_runs;
    if (!records) {
        ++piece.plain;
        return work();
    }
    record(piece, work);
    if (piece.recording) return replay(piece);
    work();
}

/// Recorded work has not run; what the host keeps of it (tensors of the arena) is as if it had.
void RecordedSteps::record(Piece& piece, const std::function<void()>& work) {
    std::string why;
    if (ctx_.arena.spoils_released()) {
        why = "RN50_ARENA has memory filled as it is released";
    } else {
        const Arena::Mark before = ctx_.arena.mark();
        piece.layout = ctx_.arena.layout();
        piece.recording = backend_.record(work, why);
        if (!piece.recording) ctx_.arena.rewind(before);
        RN50_REQUIRE(ctx_.arena.layout() == piece.layout, "a recorded step leaves tensors behind");
    }
    // NCCL wants a collective captured on all ranks or on none. They agree over the store: a sum between them may have
    // been begun, and may then only be finished.
    const auto all_have_it = [](const std::vector<std::string>& of_ranks) {
        const bool all =
            std::all_of(of_ranks.begin(), of_ranks.end(), [](const std::string& it) { return it == "yes"; });
        return std::string(all ? "yes" : "no");
    };
    if (comm_ != nullptr && comm_->consult(piece.recording ? "yes" : "no", all_have_it) == "no")
        piece.recording = nullptr;
    if (!piece.recording) give_up(why);
}

void RecordedSteps::replay(Piece& piece) {
    // Its scratch memory is free between the steps, and must not have become anybody's own.
    RN50_REQUIRE(ctx_.arena.layout() == piece.layout, "the arena is not as it was when the step was recorded");
    ++replays_;
    if (comm_ != nullptr)
        comm_->run_recorded([&] { piece.recording->run(); });
    else
        piece.recording->run();
}

void RecordedSteps::give_up(const std::string& why) {
    given_up_ = true;
    for (auto& [kind, piece] : pieces_)
        piece.recording = nullptr;
    // A rank without a reason of its own leaves the word to the one that has it.
    if (!why.empty()) log::warn(cat("--cuda-graph: steps are not recorded and go op by op: ", why));
}

}  // namespace rn50
