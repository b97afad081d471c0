#include "nccl_collectives.h"

#include "base/error.h"

#ifdef RN50_NCCL
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <optional>
#include <thread>

#include "check.h"
#include "comm/nccl_advice.h"
#include "ledger.h"
#include "nccl_library.h"
#include "nccl_meeting.h"
#endif

namespace rn50::cuda {

#ifdef RN50_NCCL

namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr const char* library_file = "libnccl.so.2";
/// What the orderly end of a communicator, or its abortion, may take before it is left alone.
constexpr std::chrono::seconds farewell{10};
/// Of the device and of pinned memory, for what the host gathers; more goes in several pieces.
constexpr int64_t staging_bytes = int64_t{4} << 20, alignment = 256;

/// Between two looks at something that another thread or the GPU will change: soon at first, then seldom.
class Pause {
  public:
    void operator()() {
        if (++looks_ < 256)
            std::this_thread::yield();
        else
            std::this_thread::sleep_for(std::chrono::microseconds(looks_ < 1024 ? 50 : 1000));
    }

  private:
    int looks_ = 0;
};

/// NCCL's communicator. It is made not to block: a call returns at once, and whether it is through is asked for. So no
/// call is ever in NCCL for long, one lock goes around all of them, and abort() can come from another thread while
/// this one waits for a rank that is dead.
class NcclComm {
  public:
    /// On the current device.
    explicit NcclComm(const NcclLibrary& nccl) : state_(std::make_shared<State>()) {
        state_->nccl = nccl;
        check(cudaGetDevice(&state_->device), "cudaGetDevice");
    }
    NcclComm(const NcclComm&) = delete;
    NcclComm& operator=(const NcclComm&) = delete;

    ~NcclComm() {
        State& state = *state_;
        std::unique_lock<std::mutex> lock(state.mutex);
        if (state.aborted) {
            state.changed.wait_for(lock, farewell, [&] { return state.ended; });
            return;
        }
        if (state.comm == nullptr) return;
        const ncclComm_t comm = std::exchange(state.comm, nullptr);
        lock.unlock();
        if (!broken_ && finalized(comm))
            state.nccl.CommDestroy(comm);
        else
            state.nccl.CommAbort(comm);
    }

    /// Comes together with the other ranks of `id`.
    void open(const ncclUniqueId& id, const Place& place, milliseconds patience) {
        ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
        config.blocking = 0;
        const Clock::time_point end = Clock::now() + patience;
        ncclResult_t result;
        {
            const std::lock_guard<std::mutex> lock(state_->mutex);
            result = state_->nccl.CommInitRankConfig(&state_->comm, place.size, id, place.rank, &config);
        }
        Pause pause;
        while (result == ncclInProgress) {
            if (Clock::now() > end) {
                broken_ = true;
                const std::string late = cat("the GPUs did not come together by NCCL within ",
                                             std::chrono::duration<double>(patience).count(), " s");
                throw Error(Exit::peer_lost, cat(late, last_words()), nccl_remedy(late + last_words()));
            }
            pause();
            result = progress();
        }
        look_at("ncclCommInitRankConfig", result);
    }

    /// Calls NCCL and waits until that call is through, which does not mean that the GPU has done its work.
    template <class Call>
    void call(const char* what, const Call& work) {
        ncclResult_t result;
        {
            const std::lock_guard<std::mutex> lock(state_->mutex);
            refuse_after_abort();
            result = work(state_->nccl, state_->comm);
        }
        Pause pause;
        while (result == ncclInProgress) {
            pause();
            result = progress();
        }
        look_at(what, result);
    }

    /// Throws what went wrong meanwhile, in work that calls before have begun.
    void look() { look_at("NCCL", progress()); }

    /// Ends all that is in progress, on the GPU too. NCCL itself is left in a thread of its own: whoever aborts must
    /// not wait for it.
    void abort() {
        const std::shared_ptr<State> state = state_;
        ncclComm_t comm;
        {
            const std::lock_guard<std::mutex> lock(state->mutex);
            if (state->aborted) return;
            state->aborted = true;
            comm = std::exchange(state->comm, nullptr);
        }
        std::thread([state, comm] {
            cudaSetDevice(state->device);  // a new thread is on GPU 0, of which another rank may have taken all memory
            if (comm != nullptr) state->nccl.CommAbort(comm);
            const std::lock_guard<std::mutex> lock(state->mutex);
            state->ended = true;
            state->changed.notify_all();
        }).detach();
    }

  private:
    struct State {
        NcclLibrary nccl;
        int device = 0;
        std::mutex mutex;
        std::condition_variable changed;
        ncclComm_t comm = nullptr;  ///< taken out by whoever ends it
        bool aborted = false, ended = false;
    };

    void refuse_after_abort() const {
        if (state_->aborted) throw Error(Exit::peer_lost, "the collectives were ended because a rank was lost", "");
    }

    ncclResult_t progress() {
        const std::lock_guard<std::mutex> lock(state_->mutex);
        refuse_after_abort();
        ncclResult_t result = ncclSuccess;
        const ncclResult_t asked = state_->nccl.CommGetAsyncError(state_->comm, &result);
        return asked == ncclSuccess ? result : asked;
    }

    std::string last_words() const {
        const char* const words = state_->nccl.GetLastError(nullptr);
        return words == nullptr || *words == '\0' ? "" : cat(" (", words, ")");
    }

    void look_at(const char* what, ncclResult_t result) {
        if (result == ncclSuccess) return;
        broken_ = true;
        const std::string said = cat(state_->nccl.GetErrorString(result), last_words());
        // A connection that breaks is another rank's end: the heartbeats tell which.
        const bool of_others = result == ncclRemoteError || result == ncclSystemError;
        throw Error(of_others ? Exit::peer_lost : Exit::device, cat(what, ": ", said), nccl_remedy(said));
    }

    bool finalized(ncclComm_t comm) const {
        const NcclLibrary& nccl = state_->nccl;
        const Clock::time_point end = Clock::now() + farewell;
        ncclResult_t result = nccl.CommFinalize(comm);
        Pause pause;
        while (result == ncclInProgress && Clock::now() < end) {
            pause();
            if (nccl.CommGetAsyncError(comm, &result) != ncclSuccess) return false;
        }
        return result == ncclSuccess;
    }

    std::shared_ptr<State> state_;
    bool broken_ = false;  ///< of no more use; ended in the rough way
};

/// A stream of the current device whose work goes before that of others that are ready at the same time: an average
/// that is ready need not wait behind a queue of convolutions.
class Stream {
  public:
    Stream() {
        int lowest = 0, highest = 0;
        check(cudaDeviceGetStreamPriorityRange(&lowest, &highest), "priorities of streams");
        check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, highest), "cudaStreamCreate");
    }
    ~Stream() { cudaStreamDestroy(stream_); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    cudaStream_t get() const { return stream_; }

  private:
    cudaStream_t stream_ = nullptr;
};

class Event {
  public:
    Event() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate"); }
    ~Event() { cudaEventDestroy(event_); }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;

    /// What `later` does from now on comes after all that `earlier` was given so far.
    void order(cudaStream_t earlier, cudaStream_t later) const {
        check(cudaEventRecord(event_, earlier), "cudaEventRecord");
        check(cudaStreamWaitEvent(later, event_, 0), "cudaStreamWaitEvent");
    }
    void record(cudaStream_t stream) const { check(cudaEventRecord(event_, stream), "cudaEventRecord"); }
    cudaError_t query() const { return cudaEventQuery(event_); }

  private:
    cudaEvent_t event_ = nullptr;
};

/// Memory of the device and of the host, pinned, of one size.
class Staging {
  public:
    explicit Staging(int64_t bytes) {
        check(ledger().take(Taken::collectives, &device_, bytes), "memory for what ranks gather");
        const cudaError_t status = cudaMallocHost(&host_, static_cast<size_t>(bytes));
        if (status != cudaSuccess) ledger().give_back(device_);
        check(status, "pinned memory for what ranks gather");
    }
    ~Staging() {
        ledger().give_back(device_);
        cudaFreeHost(host_);
    }
    Staging(const Staging&) = delete;
    Staging& operator=(const Staging&) = delete;
    char* device() const { return static_cast<char*>(device_); }
    char* host() const { return static_cast<char*>(host_); }

  private:
    void* device_ = nullptr;
    void* host_ = nullptr;
};

std::string bus_of_current_device() {
    int device = 0;
    char bus[32] = "";
    check(cudaGetDevice(&device), "cudaGetDevice");
    check(cudaDeviceGetPCIBusId(bus, sizeof bus, device), "the GPU's place on PCI");
    return bus;
}

/// Whether this GPU reaches the memory of the one at `bus` without the host; nothing where that is not to be seen.
std::optional<bool> peer_access_to(const std::string& bus) {
    int mine = 0, other = 0, direct = 0;
    if (bus.empty() || cudaDeviceGetByPCIBusId(&other, bus.c_str()) != cudaSuccess ||
        cudaGetDevice(&mine) != cudaSuccess || cudaDeviceCanAccessPeer(&direct, mine, other) != cudaSuccess) {
        cudaGetLastError();  // another rank's GPU may be hidden from this one
        return {};
    }
    return direct != 0;
}

/// The ways that the ranks will probably take, in words, by what rank 0 knows.
std::string ways_from_here(const Place& place, const std::string& bus_of_peer) {
    if (place.rank != 0) return "";
    std::error_code none;
    NcclGround ground;
    ground.peer_access = peer_access_to(bus_of_peer);
    ground.several_hosts = place.local_size < place.size;
    ground.infiniband =
        std::filesystem::directory_iterator("/sys/class/infiniband", none) != std::filesystem::directory_iterator();
    return nccl_ways(ground, [](const std::string& name) {
        const char* const value = std::getenv(name.c_str());
        return std::string(value == nullptr ? "" : value);
    });
}

ncclDataType_t type_of(DType dtype) {
    switch (dtype) {
        case DType::f32:
            return ncclFloat32;
        case DType::f16:
            return ncclFloat16;
        case DType::bf16:
            return ncclBfloat16;
        default:
            RN50_REQUIRE(false, "averages of ", name_of(dtype));
            return ncclFloat32;
    }
}

/// All calls of NCCL go to one stream, beside the backend's. NCCL runs what a communicator was given in the order of
/// the calls, and that order must be the same on all ranks; on two streams it would join them itself, and a collective
/// of the one would wait for the other's. Where the backend's work and a collective depend on each other, events say
/// so. By them a recorded step (Backend::record) takes in this stream and what NCCL gives it: NCCL's calls may be
/// captured, from NCCL 2.9 and CUDA 11.3 on, if all ranks do so and launch their graphs in one order, and a graph goes
/// before its communicator ("Using NCCL with CUDA Graphs" in NCCL's user guide).
class NcclCollectives final : public Collectives {
  public:
    NcclCollectives(const NcclLibrary& nccl, cudaStream_t backend, StoreClient& store, const Place& place,
                    milliseconds patience)
        : backend_(backend),
          ranks_(place.size),
          piece_(std::max<int64_t>(alignment, staging_bytes / (place.size + 1) / alignment * alignment)),
          staging_(piece_ * (place.size + 1)),
          comm_(nccl) {
        int version = 0;
        nccl.GetVersion(&version);
        ncclUniqueId id{};
        if (place.rank == 0) {
            const ncclResult_t result = nccl.GetUniqueId(&id);
            if (result != ncclSuccess) {
                const char* const words = nccl.GetLastError(nullptr);
                const std::string said = cat(nccl.GetErrorString(result), " (", words == nullptr ? "" : words, ")");
                throw Error(Exit::device, cat("ncclGetUniqueId: ", said), nccl_remedy(said));
            }
        }
        const NcclMeeting meeting =
            meet_for_nccl(store, place, {machine_name(), bus_of_current_device(), nccl_version_text(version)},
                          std::string(id.internal, sizeof id.internal), patience);
        RN50_REQUIRE(meeting.id.size() == sizeof id.internal, "an id of ", meeting.id.size(), " bytes");
        std::memcpy(id.internal, meeting.id.data(), sizeof id.internal);
        name_ = cat("NCCL ", nccl_version_text(version), ways_from_here(place, meeting.peer));
        comm_.open(id, place, patience);
    }

    std::string name() const override { return name_; }

    void begin_average(const Tensor& values) override {
        const ncclDataType_t type = type_of(values.dtype);
        if (values.count() == 0) return;
        handover_.order(backend_, stream_.get());
        comm_.call("ncclAllReduce", [&](const NcclLibrary& nccl, ncclComm_t comm) {
            return nccl.AllReduce(values.data, values.data, static_cast<size_t>(values.count()), type, ncclAvg, comm,
                                  stream_.get());
        });
    }

    void finish_averages() override {
        comm_.look();
        handover_.order(stream_.get(), backend_);
    }

    /// A graph has its collectives on the backend's stream. They and what goes to NCCL's own before and afterwards must
    /// not overtake each other.
    void run_recorded(const std::function<void()>& run) override {
        comm_.look();
        handover_.order(stream_.get(), backend_);
        run();
        handover_.order(backend_, stream_.get());
    }

    void broadcast(const Tensor& values) override {
        if (values.bytes() == 0) return;
        handover_.order(backend_, stream_.get());
        comm_.call("ncclBroadcast", [&](const NcclLibrary& nccl, ncclComm_t comm) {
            return nccl.Broadcast(values.data, values.data, static_cast<size_t>(values.bytes()), ncclUint8, 0, comm,
                                  stream_.get());
        });
        handover_.order(stream_.get(), backend_);
    }

    void gather(const Tensor& mine, const Tensor& all) override {
        if (mine.bytes() == 0) return;
        handover_.order(backend_, stream_.get());
        gather_bytes(mine.data, all.data, mine.bytes());
        handover_.order(stream_.get(), backend_);
    }

    void gather_host(const void* mine, int64_t bytes, void* all) override {
        for (int64_t begin = 0; begin < bytes; begin += piece_) {
            const int64_t count = std::min(piece_, bytes - begin);
            gather_piece(static_cast<const char*>(mine) + begin, count);
            for (int64_t rank = 0; rank < ranks_; ++rank)
                std::memcpy(static_cast<char*>(all) + rank * bytes + begin, staging_.host() + rank * count,
                            static_cast<size_t>(count));
        }
    }

    /// Not gathered: that goes round a ring of all ranks, while NCCL has trees for sums.
    void sum_host(double* numbers, int64_t count) override {
        const int64_t most = piece_ * (ranks_ + 1) / int64_t{sizeof(double)};
        for (int64_t begin = 0; begin < count; begin += most) {
            const int64_t piece = std::min(most, count - begin);
            queue_sum(staging_, numbers + begin, piece);
            wait();
            std::memcpy(numbers + begin, staging_.host(), static_cast<size_t>(piece) * sizeof(double));
        }
    }

    /// Queued behind the averages of the step that computes, and before those of the next one, whose computing it need
    /// not wait for: the stream is not the backend's.
    void begin_sum(const double* numbers, int64_t count) override {
        RN50_REQUIRE(begun_ == 0, "a second sum is begun before the first one is finished");
        queue_sum(of_begun_, numbers, count);
        summed_.record(stream_.get());
        begun_ = count;
    }

    void finish_sum(double* numbers) override {
        wait([this] { return summed_.query(); });
        std::memcpy(numbers, of_begun_.host(), static_cast<size_t>(std::exchange(begun_, 0)) * sizeof(double));
    }

    std::string hang_remedy() const override { return nccl_remedy("timed out"); }

    std::vector<NcclLink> links() const override { return links_in(nccl_log()); }

    void abort() override { comm_.abort(); }

  private:
    void gather_bytes(const void* mine, void* all, int64_t bytes) {
        comm_.call("ncclAllGather", [&](const NcclLibrary& nccl, ncclComm_t comm) {
            return nccl.AllGather(mine, all, static_cast<size_t>(bytes), ncclUint8, comm, stream_.get());
        });
    }

    /// From `mine` to the staging's host memory.
    void gather_piece(const char* mine, int64_t bytes) {
        char* const sent = staging_.device() + ranks_ * piece_;
        const auto size = static_cast<size_t>(bytes);
        std::memcpy(staging_.host(), mine, size);
        check(cudaMemcpyAsync(sent, staging_.host(), size, cudaMemcpyHostToDevice, stream_.get()), "copy to the GPU");
        gather_bytes(sent, staging_.device(), bytes);
        check(cudaMemcpyAsync(staging_.host(), staging_.device(), size * static_cast<size_t>(ranks_),
                              cudaMemcpyDeviceToHost, stream_.get()),
              "copy from the GPU");
        wait();
    }

    /// To the staging's host memory.
    void queue_sum(const Staging& staging, const double* numbers, int64_t count) {
        const size_t size = static_cast<size_t>(count) * sizeof(double);
        std::memcpy(staging.host(), numbers, size);
        check(cudaMemcpyAsync(staging.device(), staging.host(), size, cudaMemcpyHostToDevice, stream_.get()),
              "copy to the GPU");
        comm_.call("ncclAllReduce", [&](const NcclLibrary& nccl, ncclComm_t comm) {
            return nccl.AllReduce(staging.device(), staging.device(), static_cast<size_t>(count), ncclFloat64, ncclSum,
                                  comm, stream_.get());
        });
        check(cudaMemcpyAsync(staging.host(), staging.device(), size, cudaMemcpyDeviceToHost, stream_.get()),
              "copy from the GPU");
    }

    void wait() {
        wait([this] { return cudaStreamQuery(stream_.get()); });
    }

    /// Until `query` says that the GPU is through. Waiting inside CUDA would have no end where a rank is dead.
    template <class Query>
    void wait(const Query& query) {
        Pause pause;
        while (true) {
            const cudaError_t status = query();
            comm_.look();
            if (status == cudaSuccess) return;
            if (status != cudaErrorNotReady) check(status, "gathering from the ranks");
            cudaGetLastError();  // "not ready" is no error
            pause();
        }
    }

    cudaStream_t backend_;
    int64_t ranks_, piece_;  ///< bytes of each rank
    std::string name_;
    Stream stream_;
    Event handover_, summed_;
    int64_t begun_ = 0;                                       ///< numbers of the sum that was begun
    Staging staging_;                                         ///< of all ranks, then this one's
    Staging of_begun_{most_begun * int64_t{sizeof(double)}};  ///< other sums and gathers may come between its halves
    NcclComm comm_;                                           ///< the first to go: it waits for the stream's work
};

const NcclLibrary& the_library() {
    static const NcclLibrary loaded = load_nccl(library_file);
    return loaded;
}

}  // namespace

std::string nccl_built() {
    return nccl_version_text(NCCL_VERSION_CODE);
}

void require_nccl() {
    the_library();
}

std::string nccl_loaded() {
    try {
        int version = 0;
        the_library().GetVersion(&version);
        return nccl_version_text(version);
    } catch (const Error&) {
        return "";
    }
}

std::unique_ptr<Collectives> make_nccl(const NcclLibrary& nccl, cudaStream_t stream, StoreClient& store,
                                       const Place& place, milliseconds patience) {
    return std::make_unique<NcclCollectives>(nccl, stream, store, place, patience);
}

std::unique_ptr<Collectives> make_nccl(cudaStream_t stream, StoreClient& store, const Place& place,
                                       milliseconds patience) {
    return make_nccl(the_library(), stream, store, place, patience);
}

#else

std::string nccl_built() {
    return "";
}

std::string nccl_loaded() {
    return "";
}

void require_nccl() {
    throw Error(Exit::device, "several GPUs need NCCL, which rn50_cuda.so was built without",
                "install its header (nccl.h: libnccl-dev, on Red Hat libnccl-devel) and build anew: make");
}

std::unique_ptr<Collectives> make_nccl(cudaStream_t, StoreClient&, const Place&, std::chrono::milliseconds) {
    require_nccl();
    return nullptr;
}

#endif

}  // namespace rn50::cuda
