// The pictures that a run cannot use, of all ranks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <vector>

#include "comm/comm.h"
#include "pipeline/loader.h"
#include "train/run_dir.h"

namespace rn50 {

/// Those of a loader and of the other ranks' loaders of the same pictures.
class BadList {
  public:
    /// `comm` null: there are no other ranks.
    BadList(const Loader& loader, RunDir& run, Communicator* comm) : loader_(loader), run_(run), comm_(comm) {}

    /// What the loader has met since this was asked last.
    std::vector<BadPicture> take_new();
    /// Lists what this rank and the others have found, each once; all ranks have to call it. Throws on all of them when
    /// it has become too much.
    void add(const std::vector<BadPicture>& mine);
    /// Lists what the loader has met, this rank's alone.
    void tell_new();

  private:
    void tell(const BadPicture& bad);

    const Loader& loader_;
    RunDir& run_;
    Communicator* comm_;
    size_t taken_ = 0;         ///< of the loader's own
    std::set<int64_t> known_;  ///< by index
    std::vector<BadPicture> of_ranks_;
};

}  // namespace rn50
