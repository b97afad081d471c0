// A training step that is given to the device as a whole (Backend::record), once it has run op by op.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "backend/backend.h"
#include "comm/comm.h"

namespace rn50 {

class RecordedSteps {
  public:
    /// What makes one piece of work another than the others: each has a recording of its own.
    using Kind = std::array<int64_t, 4>;

    /// `comm`: the ranks that the work meets; null: none. All must outlive this, and this must go before anything that
    /// the recorded work uses.
    RecordedSteps(Backend& backend, Context& ctx, Communicator* comm) : backend_(backend), ctx_(ctx), comm_(comm) {}

    /// Does `work`, which gives a kind the same ops on the same tensors each time: op by op at first, until all that
    /// libraries do once is done; then by its recording. All ranks do the same kinds in the same order. Where nothing
    /// can be recorded that is said once, and all ranks go on op by op. (A rank alone whose recording breaks off before
    /// its last collective has gone another way than the others, which ends the run as such ranks end it.)
    void run(const Kind& kind, const std::function<void()>& work);

    /// How often recordings have run.
    int64_t replays() const { return replays_; }

  private:
    struct Piece {
        int64_t plain = 0;  ///< how often it ran op by op
        std::unique_ptr<Recording> recording;
        uint64_t layout = 0;  ///< of the arena, before it
    };
    void record(Piece& piece, const std::function<void()>& work);
    void replay(Piece& piece);
    void give_up(const std::string& why);

    Backend& backend_;
    Context& ctx_;
    Communicator* comm_;
    std::map<Kind, Piece> pieces_;
    bool given_up_ = false;
    int64_t replays_ = 0;
};

}  // namespace rn50
