// What the ranks of a run do together. Every rank calls the same collectives in the same order.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "comm/place.h"
#include "tensor/tensor.h"

namespace rn50 {

class StoreClient;
class StoreServer;
class Watch;

/// The engine under a Communicator: one for each library. What it does not manage it throws as std::exception.
class Collectives {
  public:
    virtual ~Collectives() = default;
    /// f32, in place: the sum over the ranks, the same bits on all of them.
    virtual void sum(float* values, int64_t count) = 0;
    /// From rank 0 to all, in place.
    virtual void broadcast(void* data, int64_t bytes) = 0;
    /// `bytes` of each rank to `all` {size * bytes} of every rank.
    virtual void gather(const void* mine, int64_t bytes, void* all) = 0;
    /// From any thread: makes the collective in progress, and all later ones, throw.
    virtual void abort() = 0;
};

/// Gloo over TCP, by the interface at `local_address`. Throws Error(Exit::device) where this build lacks it, and
/// Error(Exit::peer_lost) when the ranks do not reach each other within `patience`.
std::unique_ptr<Collectives> make_gloo(StoreClient& store, const Place& place, std::chrono::milliseconds patience);

/// "gloo 0.5.0", or "" where this build lacks it.
std::string gloo_version();
/// Throws Error(Exit::device) with what to install when this build lacks it.
void require_gloo();

class Communicator {
  public:
    /// Meets the other ranks; rank 0 serves the store. Throws Error(Exit::peer_lost) naming the ranks that did not come
    /// within `patience`. From then on a rank that is silent for `patience`, or whose process ends, is lost: then every
    /// collective of the others throws Error(Exit::peer_lost) saying which rank on which host, and why.
    Communicator(const Place& place, std::chrono::milliseconds patience);
    /// Without leave() before it, the others lose this rank.
    ~Communicator();
    Communicator(const Communicator&) = delete;
    Communicator& operator=(const Communicator&) = delete;

    const Place& place() const { return place_; }
    int rank() const { return place_.rank; }
    int size() const { return place_.size; }

    /// f32 in memory of this machine, in place: the mean over the ranks, the same bits on all of them.
    void average(const Tensor& values);
    /// Becomes what rank 0 has.
    void broadcast(const Tensor& values);
    /// `all` {size, count}: what each rank has, by rank.
    void gather(const float* mine, int64_t count, float* all);
    std::vector<double> gather(const std::vector<double>& mine);
    /// The texts of all ranks, by rank, of any length each.
    std::vector<std::string> gather(const std::string& mine);
    /// Each number summed over the ranks, added in their order.
    std::vector<double> sum(const std::vector<double>& mine);
    void barrier();

    /// The orderly end, on all ranks.
    void leave();
    /// The other end: the other ranks are told `reason`.
    void fail(const std::string& reason);

  private:
    template <class Work>
    void together(const Work& work);
    void meet(std::chrono::milliseconds patience);
    [[noreturn]] void throw_lost(const std::string& loss) const;

    Place place_;
    std::chrono::milliseconds patience_;
    std::unique_ptr<StoreServer> server_;  ///< in rank 0; the last to go
    std::unique_ptr<StoreClient> store_;
    std::unique_ptr<Collectives> engine_;
    std::unique_ptr<Watch> watch_;
};

}  // namespace rn50
