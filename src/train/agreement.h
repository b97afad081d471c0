// What the ranks of a run agree on after each step. It goes as sums: many ranks have these sooner than what each of
// them says.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/comm.h"

namespace rn50 {

/// What one rank has to say.
struct Notice {
    double loss = 0;           ///< of a step, the mean over this rank's pictures; 0 where no step is spoken of
    double wait = 0;           ///< seconds that the rank has waited for its pictures
    int64_t bad_pictures = 0;  ///< met since its last notice
    int signal = 0;            ///< that asks it to stop; 0: none
    bool save_is_due = false;
    bool unread = false;   ///< the pictures of the next step cannot be read
    bool unready = false;  ///< those of the step after the next one are still to be loaded
};

/// What all of them have said.
struct Notices {
    double loss = 0;                                            ///< the mean over the ranks
    std::vector<double> waits;                                  ///< seconds, by rank
    int64_t bad_pictures = 0;                                   ///< of all ranks together
    int signal = 0;                                             ///< that any rank was asked to stop by; 0: none
    bool save_is_due = false, unread = false, unready = false;  ///< of any rank

    double longest_wait() const;
};

/// In two halves, between which a step may be launched: the sum that is begun before it is there when the step before
/// it is done, while a sum that is called after it would wait for its last average, which is for all of it.
class Agreement {
  public:
    /// `comm` null: this process is alone, and agrees with itself.
    explicit Agreement(Communicator* comm) : comm_(comm) {}

    void tell(const Notice& mine);
    Notices hear();

  private:
    Communicator* comm_;
    Notice mine_;
};

/// The signal by which any rank was asked to stop, or 0; the same on all ranks, which all have to ask. `comm` null: of
/// this process.
int agreed_signal(Communicator* comm);

}  // namespace rn50
