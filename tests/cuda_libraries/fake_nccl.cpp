#include "fake_nccl.h"

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "fake.h"
#include "portable.h"
#include "simt_memory.h"
#include "streams.h"

namespace rn50::fake {

using cuda::NcclLibrary;

NcclWorld nccl_world;

namespace {

/// One collective of a group, by its number.
struct Meeting {
    std::string what;
    std::vector<const void*> sent;
    std::vector<void*> received;
    int there = 0;
    bool done = false;
};

/// The ranks of one id.
struct Group {
    std::mutex mutex;
    std::condition_variable changed;
    int size = 0, opened = 0;
    std::map<int, Meeting> meetings;
};

std::mutex world_mutex;
std::map<std::string, std::shared_ptr<Group>> groups;
int ids = 0;

struct Comm {
    std::shared_ptr<Group> group;
    int rank = 0, device = 0;
    std::shared_ptr<int> done = std::make_shared<int>(0);  ///< collectives begun on the stream; by the group's mutex
    /// Held by what is captured of this communicator, until its graph goes.
    std::shared_ptr<int> captured = std::make_shared<int>(0);
    std::mutex mutex;
    int polls = 0;
    bool finalizing = false;
    std::function<void()> pending;  ///< given to the stream when the call is through
    cudaStream_t stream = nullptr;
    std::shared_ptr<bool> aborted = std::make_shared<bool>(false);  ///< by the group's mutex
};

Comm& of(ncclComm_t comm) {
    return *reinterpret_cast<Comm*>(comm);
}

/// A thread on another GPU would be given a context there, and what it is to give to the communicator's.
void require_device(const Comm& comm, const char* what) {
    int device = 0;
    cudaGetDevice(&device);
    if (device != comm.device) note_fault(std::string(what) + " on another GPU than the communicator's");
}

ncclResult_t failing(const char* name, int rank) {
    const std::lock_guard<std::mutex> lock(world_mutex);
    ++nccl_world.calls;
    const auto found = nccl_world.failing.find(name);
    if (found == nccl_world.failing.end()) return ncclSuccess;
    return nccl_world.failing_rank < 0 || nccl_world.failing_rank == rank ? found->second : ncclSuccess;
}

size_t bytes_of(ncclDataType_t type) {
    return type == ncclFloat64 ? 8 : type == ncclFloat32 ? 4 : type == ncclUint8 ? 1 : 2;
}

float read(const void* memory, ncclDataType_t type, size_t i) {
    if (type == ncclFloat32) return static_cast<const float*>(memory)[i];
    if (type == ncclFloat16) return __half2float(static_cast<const __half*>(memory)[i]);
    return __bfloat162float(static_cast<const __nv_bfloat16*>(memory)[i]);
}

void write(void* memory, ncclDataType_t type, size_t i, float value) {
    if (type == ncclFloat32)
        static_cast<float*>(memory)[i] = value;
    else if (type == ncclFloat16)
        static_cast<__half*>(memory)[i] = __float2half_rn(value);
    else
        static_cast<__nv_bfloat16*>(memory)[i] = __float2bfloat16_rn(value);
}

void average(Meeting& meeting, size_t count, ncclDataType_t type) {
    for (size_t i = 0; i < count; ++i) {
        double sum = 0;
        for (const void* sent : meeting.sent)
            sum += static_cast<double>(read(sent, type, i));
        for (void* received : meeting.received)
            write(received, type, i, static_cast<float>(sum / static_cast<double>(meeting.sent.size())));
    }
}

void sum(Meeting& meeting, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        double sum = 0;
        for (const void* sent : meeting.sent)
            sum += static_cast<const double*>(sent)[i];
        for (void* received : meeting.received)
            static_cast<double*>(received)[i] = sum;
    }
}

void all_gather(Meeting& meeting, size_t bytes) {
    for (void* received : meeting.received)
        for (size_t rank = 0; rank < meeting.sent.size(); ++rank)
            std::memcpy(static_cast<char*>(received) + rank * bytes, meeting.sent[rank], bytes);
}

void broadcast(Meeting& meeting, size_t bytes) {
    for (void* received : meeting.received)
        std::memmove(received, meeting.sent[0], bytes);
}

/// On the stream, whose order is the communicator's: the last rank that comes does the work of all.
void meet(Group& group, const std::shared_ptr<bool>& aborted, int rank, int& done, const std::string& what,
          const void* sent, void* received, const std::function<void(Meeting&)>& work) {
    std::unique_lock<std::mutex> lock(group.mutex);
    Meeting& meeting = group.meetings[done++];
    if (meeting.there == 0) {
        meeting.what = what;
        meeting.sent.resize(static_cast<size_t>(group.size));
        meeting.received.resize(static_cast<size_t>(group.size));
    }
    if (meeting.what != what) note_fault("ranks call " + meeting.what + " and " + what + " in the same place");
    meeting.sent[static_cast<size_t>(rank)] = sent;
    meeting.received[static_cast<size_t>(rank)] = received;
    if (++meeting.there == group.size && !nccl_world.stuck) {
        const simt::DeviceAccess access;  // where the emulator's memory is averaged
        work(meeting);
        meeting.done = true;
        group.changed.notify_all();
    }
    group.changed.wait(lock, [&] { return meeting.done || *aborted; });
}

ncclResult_t collective(const char* name, ncclComm_t handle, cudaStream_t stream, size_t count, ncclDataType_t type,
                        const void* sent, void* received, std::function<void(Meeting&)> work) {
    Comm& comm = of(handle);
    if (const ncclResult_t status = failing(name, comm.rank)) return status;
    const std::lock_guard<std::mutex> lock(comm.mutex);
    if (comm.polls > 0 || comm.pending) note_fault(std::string(name) + " while a call is in progress");
    if (stream == nullptr) note_fault(std::string(name) + " on the null stream");
    if (comm.stream != nullptr && comm.stream != stream) note_fault("a communicator on two streams");
    if (count == 0) note_fault(std::string(name) + " of nothing");
    require_device(comm, name);
    comm.stream = stream;
    // Captured on one rank is captured on all.
    const bool captured = streams::is_captured(reinterpret_cast<streams::Stream*>(stream));
    const std::string what = std::string(name) + " of " + std::to_string(count) + " of type " + std::to_string(type) +
                             (captured ? ", captured" : "");
    comm.pending = [group = comm.group, aborted = comm.aborted, rank = comm.rank, done = comm.done, what, sent,
                    received, work = std::move(work), held = captured ? comm.captured : nullptr, stream] {
        // A communicator that does not block launches from a thread of its own.
        std::thread([&] {
            push(stream, [=] {
                static_cast<void>(held);
                meet(*group, aborted, rank, *done, what, sent, received, work);
            });
        }).join();
    };
    comm.polls = nccl_world.polls;
    return ncclInProgress;
}

// --- the functions ---

ncclResult_t get_version(int* version) {
    *version = nccl_world.version;
    return ncclSuccess;
}

ncclResult_t get_unique_id(ncclUniqueId* id) {
    if (const ncclResult_t status = failing("GetUniqueId", 0)) return status;
    const std::lock_guard<std::mutex> lock(world_mutex);
    std::memset(id->internal, 0, sizeof id->internal);
    std::snprintf(id->internal + 1, sizeof id->internal - 1, "make-believe %d", ++ids);  // as there: zeros in it
    return ncclSuccess;
}

ncclResult_t comm_init(ncclComm_t* made, int size, ncclUniqueId id, int rank, ncclConfig_t* config) {
    if (const ncclResult_t status = failing("CommInitRankConfig", rank)) return status;
    if (config->size != sizeof(ncclConfig_t) || config->magic != 0xcafebeef) note_fault("a config that was not set up");
    if (config->blocking != 0) note_fault("a communicator that blocks");
    auto comm = std::make_unique<Comm>();
    {
        const std::lock_guard<std::mutex> lock(world_mutex);
        auto& group = groups[std::string(id.internal, sizeof id.internal)];
        if (!group) group = std::make_shared<Group>();
        comm->group = group;
        ++nccl_world.live;
    }
    comm->rank = rank;
    cudaGetDevice(&comm->device);
    {
        const std::lock_guard<std::mutex> lock(comm->group->mutex);
        comm->group->size = size;
        if (rank != nccl_world.absent) ++comm->group->opened;
    }
    comm->polls = nccl_world.polls;
    *made = reinterpret_cast<ncclComm_t>(comm.release());
    return ncclInProgress;
}

ncclResult_t get_async_error(ncclComm_t handle, ncclResult_t* result) {
    Comm& comm = of(handle);
    if (const ncclResult_t status = failing("CommGetAsyncError", comm.rank)) return status;
    if ((*result = failing("async", comm.rank)) != ncclSuccess) return ncclSuccess;
    const std::lock_guard<std::mutex> lock(comm.mutex);
    *result = ncclInProgress;
    {
        const std::lock_guard<std::mutex> group(comm.group->mutex);
        if (comm.group->opened < comm.group->size) return ncclSuccess;
    }
    if (comm.polls > 0 && --comm.polls > 0) return ncclSuccess;
    if (comm.pending) std::exchange(comm.pending, nullptr)();
    *result = ncclSuccess;
    return ncclSuccess;
}

ncclResult_t comm_finalize(ncclComm_t handle) {
    Comm& comm = of(handle);
    if (const ncclResult_t status = failing("CommFinalize", comm.rank)) return status;
    const std::lock_guard<std::mutex> lock(comm.mutex);
    comm.finalizing = true;
    comm.polls = nccl_world.polls;
    return ncclInProgress;
}

void remove(ncclComm_t handle) {
    const bool outlived = of(handle).captured.use_count() > 1;
    delete &of(handle);
    const std::lock_guard<std::mutex> lock(world_mutex);
    nccl_world.outlived += outlived;
    --nccl_world.live;
}

ncclResult_t comm_destroy(ncclComm_t handle) {
    if (!of(handle).finalizing) note_fault("destroyed before it was finalized");
    remove(handle);
    return ncclSuccess;
}

ncclResult_t comm_abort(ncclComm_t handle) {
    {
        Comm& comm = of(handle);
        require_device(comm, "CommAbort");
        const std::lock_guard<std::mutex> lock(comm.group->mutex);
        *comm.aborted = true;
        comm.group->changed.notify_all();
    }
    // As NCCL does: it waits for the graphs that refer to the communicator to go.
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (of(handle).captured.use_count() > 1 && std::chrono::steady_clock::now() < end)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    remove(handle);
    return ncclSuccess;
}

const char* error_string(ncclResult_t result) {
    return result == ncclUnhandledCudaError ? "unhandled cuda error (run with NCCL_DEBUG=INFO for details)"
           : result == ncclRemoteError      ? "remote process exited or there was a network error"
           : result == ncclSystemError      ? "unhandled system error (run with NCCL_DEBUG=INFO for details)"
                                            : "another error";
}

const char* last_error(ncclComm_t) {
    return nccl_world.last_words.c_str();
}

ncclResult_t all_reduce(const void* from, void* to, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm,
                        cudaStream_t stream) {
    if (op == ncclSum && type == ncclFloat64)
        return collective("AllReduce", comm, stream, count, type, from, to,
                          [=](Meeting& meeting) { sum(meeting, count); });
    if (op != ncclAvg) note_fault("not the average");
    if (type != ncclFloat32 && type != ncclFloat16 && type != ncclBfloat16) note_fault("averages of another type");
    return collective("AllReduce", comm, stream, count, type, from, to,
                      [=](Meeting& meeting) { average(meeting, count, type); });
}

ncclResult_t all_gather_of(const void* from, void* to, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
    return collective("AllGather", comm, stream, count, type, from, to,
                      [=](Meeting& meeting) { all_gather(meeting, count * bytes_of(type)); });
}

ncclResult_t broadcast_of(const void* from, void* to, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                          cudaStream_t stream) {
    if (root != 0) note_fault("another root");
    return collective("Broadcast", comm, stream, count, type, from, to,
                      [=](Meeting& meeting) { broadcast(meeting, count * bytes_of(type)); });
}

}  // namespace

cuda::NcclLibrary fake_nccl() {
    NcclLibrary made;
    made.GetVersion = get_version;
    made.GetUniqueId = get_unique_id;
    made.CommInitRankConfig = comm_init;
    made.CommFinalize = comm_finalize;
    made.CommDestroy = comm_destroy;
    made.CommAbort = comm_abort;
    made.CommGetAsyncError = get_async_error;
    made.GetErrorString = error_string;
    made.GetLastError = last_error;
    made.AllReduce = all_reduce;
    made.AllGather = all_gather_of;
    made.Broadcast = broadcast_of;
    return made;
}

}  // namespace rn50::fake
