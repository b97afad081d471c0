// What the ranks of a run do together. Every rank calls the same collectives in the same order.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "comm/nccl_log.h"
#include "comm/place.h"
#include "comm/straggler.h"
#include "tensor/tensor.h"

namespace rn50 {

class Backend;
class StoreClient;
class StoreServer;
class Watch;

/// The engine under a Communicator: one for each library. Tensors lie in the backend's memory; an engine takes them as
/// the backend has left them, and the backend goes on with them after it. What an engine does not manage it throws as
/// std::exception; as Error with another code than Exit::peer_lost where the fault is this rank's own.
class Collectives {
  public:
    virtual ~Collectives() = default;
    /// "Gloo 0.5.0"
    virtual std::string name() const = 0;
    /// f32, f16 or bf16, in place: the mean over the ranks, the same bits on all of them. May go on in the background,
    /// in the order of the calls and beside other collectives: until finish_averages() nobody else touches the values.
    virtual void begin_average(const Tensor& values) = 0;
    /// What the backend does from now on finds all averages that were begun.
    virtual void finish_averages() = 0;
    /// Calls `run`, which gives the backend a Recording of collectives of this engine. Those that come after are done
    /// after it.
    virtual void run_recorded(const std::function<void()>& run) { run(); }
    /// From rank 0 to all, in place.
    virtual void broadcast(const Tensor& values) = 0;
    /// `all` {size, ...}: `mine` of every rank.
    virtual void gather(const Tensor& mine, const Tensor& all) = 0;
    /// The same in memory of the host, `bytes` of each rank.
    virtual void gather_host(const void* mine, int64_t bytes, void* all) = 0;
    /// In memory of the host, in place: each number summed over the ranks, the same bits on all of them.
    virtual void sum_host(double* numbers, int64_t count) = 0;
    /// sum_host() in two halves, at most `most_begun` numbers: what is begun before other collectives is through before
    /// them, however late these come to be, and finish_sum() waits for no more. Other collectives may come between the
    /// halves, but no second sum in halves. An engine whose collectives the host itself carries out does all of it in
    /// the first half.
    virtual void begin_sum(const double* numbers, int64_t count) {
        begun_.assign(numbers, numbers + count);
        sum_host(begun_.data(), count);
    }
    virtual void finish_sum(double* numbers) { std::copy(begun_.begin(), begun_.end(), numbers); }
    static constexpr int64_t most_begun = 65536;
    /// What to do when all ranks wait in a collective and none comes out, in words; "": nothing is known.
    virtual std::string hang_remedy() const { return ""; }
    /// By which ways this rank reaches others, after collectives have been; none where the engine does not tell.
    virtual std::vector<NcclLink> links() const { return {}; }
    /// From any thread: makes the collective in progress, and all later ones, throw.
    virtual void abort() = 0;

  private:
    std::vector<double> begun_;
};

/// Makes this rank's engine; every rank calls it at the same time, and none waits longer than `patience`.
using EngineMaker =
    std::function<std::unique_ptr<Collectives>(StoreClient& store, const Place& place, std::chrono::milliseconds)>;

/// Gloo over TCP, by the interface at `local_address`. Throws Error(Exit::device) where this build lacks it, and
/// Error(Exit::peer_lost) when the ranks do not reach each other within `patience`.
std::unique_ptr<Collectives> make_gloo(StoreClient& store, const Place& place, std::chrono::milliseconds patience);

/// The engine for tensors of this backend: Gloo on a CPU; on GPUs NCCL, by the module that made it.
EngineMaker engine_for(Backend& backend);

/// "gloo 0.5.0", or "" where this build lacks it.
std::string gloo_version();
/// Throws Error(Exit::device) with what to install when this build lacks it.
void require_gloo();

/// What a process may take to leave after a loss, at most: the patience, and no more than this.
constexpr std::chrono::seconds longest_leaving{20};

class Communicator {
  public:
    /// Meets the other ranks; rank 0 serves the store. Throws Error(Exit::peer_lost) naming the ranks that did not come
    /// within `patience.silence`. From then on a rank that is silent for so long, or whose process ends, is lost, and
    /// ranks that do not come further are, as Stragglers has it: then every collective of the others throws
    /// Error(Exit::peer_lost) saying which rank on which host, and why.
    Communicator(const Place& place, const Patience& patience);
    /// Without leave() before it, the others lose this rank.
    ~Communicator();
    Communicator(const Communicator&) = delete;
    Communicator& operator=(const Communicator&) = delete;

    /// Gives the ranks their engine, which must not be older than the backend whose tensors it takes; once, before any
    /// collective.
    void connect(const EngineMaker& make);

    /// Over the store, so before connect() too; all ranks ask. Rank 0 lays what each of them says, by rank, before the
    /// judge, whose answer all get. `mine` and the answer are shorter than a megabyte. Throws Error(Exit::peer_lost)
    /// when a rank is lost.
    using Judge = std::function<std::string(const std::vector<std::string>&)>;
    std::string consult(const std::string& mine, const Judge& judge);

    /// The orderly end without an engine, of ranks that all end for one reason: nobody is lost by it.
    void part();

    const Place& place() const { return place_; }
    int rank() const { return place_.rank; }
    int size() const { return place_.size; }

    std::string engine() const { return engine_->name(); }
    /// All ranks ask, after a first collective: by which ways they reach each other, in words; "" where their engine
    /// does not tell.
    std::string ways();

    // --- tensors in the backend's memory: see Collectives ---
    void begin_average(const Tensor& values);
    void finish_averages();
    void average(const Tensor& values) {
        begin_average(values);
        finish_averages();
    }
    void broadcast(const Tensor& values);
    void gather(const Tensor& mine, const Tensor& all);
    /// Calls `run`, which has the backend do recorded work (Backend::record) with collectives of this communicator in
    /// it; all ranks with recordings of the same.
    void run_recorded(const std::function<void()>& run);

    // --- numbers and texts of the host ---
    /// What each rank has, by rank.
    std::vector<double> gather(const std::vector<double>& mine);
    /// The texts of all ranks, by rank, of any length each.
    std::vector<std::string> gather(const std::string& mine);
    /// Each number summed over the ranks. With many ranks this takes less time than to gather them.
    std::vector<double> sum(std::vector<double> mine);
    /// The same in two halves: see Collectives.
    void begin_sum(const std::vector<double>& mine);
    std::vector<double> finish_sum();
    void barrier();

    // --- what the other ranks may know of this one, to tell a hang from work: see Stragglers ---
    /// What it does from now on; `starting` at first. Returns what it did before.
    Pace pace(Pace pace);
    /// It has come further, though by no collective.
    void progress();
    /// A step took so long, without the wait for its own pictures.
    void step_took(double seconds);

    /// The orderly end, on all ranks.
    void leave();
    /// The other end: the other ranks are told `reason`.
    void fail(const std::string& reason);

  private:
    template <class Work>
    void together(const CollectiveKind& kind, const Work& work);
    void meet();
    /// Breaks what waits, and returns what to do about the loss.
    std::string end_engine(const std::string& loss);
    std::string wait_for(const std::string& key);
    void abort_engine();
    void gather_host(const void* mine, int64_t bytes, void* all);
    [[noreturn]] void throw_lost(const std::string& loss) const;

    Place place_;
    Patience patience_;
    std::unique_ptr<StoreServer> server_;  ///< in rank 0; the last to go
    std::unique_ptr<StoreClient> store_;
    std::mutex engine_mutex_;  ///< engine_ is set by one thread and aborted by another
    std::unique_ptr<Collectives> engine_;
    std::unique_ptr<Watch> watch_;
    int consultations_ = 0;
    size_t numbers_begun_ = 0;  ///< of the sum that was begun and not finished
};

/// What a rank does until the end of this. Nothing without other ranks.
class PaceFor {
  public:
    PaceFor(Communicator* comm, Pace pace) : comm_(comm), before_(comm != nullptr ? comm->pace(pace) : pace) {}
    ~PaceFor() {
        if (comm_ != nullptr) comm_->pace(before_);
    }
    PaceFor(const PaceFor&) = delete;
    PaceFor& operator=(const PaceFor&) = delete;

  private:
    Communicator* comm_;
    Pace before_;
};

}  // namespace rn50
