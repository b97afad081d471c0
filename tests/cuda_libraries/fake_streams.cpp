// Streams, events, devices and pinned memory of the make-believe CUDA. A stream is a thread that does in order what it
// is given, so that whoever forgets to let one stream wait for another finds other numbers.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "fake.h"

namespace rn50::fake {

namespace {

std::mutex world_mutex;
thread_local int current_device = 0;
thread_local bool in_capture = false;

/// A place in a stream's work that others wait for.
struct Mark {
    std::mutex mutex;
    std::condition_variable changed;
    bool reached = false;

    void reach() {
        const std::lock_guard<std::mutex> lock(mutex);
        reached = true;
        changed.notify_all();
    }
    void wait() {
        std::unique_lock<std::mutex> lock(mutex);
        changed.wait(lock, [this] { return reached; });
    }
    bool is_reached() {
        const std::lock_guard<std::mutex> lock(mutex);
        return reached;
    }
};

struct Event {
    double time = 0;
    std::shared_ptr<Mark> mark;
};

class Stream {
  public:
    Stream() : thread_([this] { run(); }) {}
    ~Stream() {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            closing_ = true;
        }
        changed_.notify_all();
        thread_.join();
    }
    void push(std::function<void()> work) {
        const std::lock_guard<std::mutex> lock(mutex_);
        queue_.push_back(std::move(work));
        changed_.notify_all();
    }
    int device() const { return device_; }
    bool idle() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return queue_.empty();
    }

  private:
    void run() {
        std::unique_lock<std::mutex> lock(mutex_);
        while (true) {
            changed_.wait(lock, [this] { return closing_ || !queue_.empty(); });
            if (queue_.empty()) return;
            const std::function<void()> work = queue_.front();
            lock.unlock();
            work();
            lock.lock();
            queue_.pop_front();  // until it is done, the stream is not idle
        }
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::function<void()>> queue_;
    bool closing_ = false;
    const int device_ = current_device;
    std::thread thread_;
};

std::set<Stream*> streams;  // by world_mutex

Stream* of(cudaStream_t stream) {
    return reinterpret_cast<Stream*>(stream);
}
Event* of(cudaEvent_t event) {
    return reinterpret_cast<Event*>(event);
}

void count(int World::*what, int by) {
    const std::lock_guard<std::mutex> lock(world_mutex);
    world.*what += by;
}

}  // namespace

void push(cudaStream_t stream, std::function<void()> work) {
    if (stream == nullptr)
        work();
    else
        of(stream)->push(std::move(work));
}

void drain() {
    const auto busy = [] {
        const std::lock_guard<std::mutex> lock(world_mutex);
        return std::any_of(streams.begin(), streams.end(),
                           [](Stream* stream) { return stream->device() == current_device && !stream->idle(); });
    };
    while (busy())
        std::this_thread::yield();
}

void note_fault(const std::string& what) {
    const std::lock_guard<std::mutex> lock(world_mutex);
    world.faults.push_back(what);
}

void set_capturing(bool capturing) {
    in_capture = capturing;
}

void refuse_in_capture(const char* name) {
    if (in_capture) note_fault(std::string(name) + " while a graph is captured");
}

cudaError_t told(const char* name) {
    const std::lock_guard<std::mutex> lock(world_mutex);
    const auto found = world.failing.find(name);
    return found == world.failing.end() ? cudaSuccess : found->second;
}

}  // namespace rn50::fake

using namespace rn50::fake;

extern "C" {

// --- devices -----------------------------------------------------------------------------------------------------
cudaError_t cudaSetDevice(int device) {
    current_device = device;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
    *device = current_device;
    return told("cudaGetDevice");
}
cudaError_t cudaDeviceGetPCIBusId(char* bus, int length, int device) {
    std::snprintf(bus, static_cast<size_t>(length), "0000:%02d:00.0", device);
    return told("cudaDeviceGetPCIBusId");
}
cudaError_t cudaDeviceGetByPCIBusId(int* device, const char* bus) {
    *device = std::atoi(bus + 5);
    return told("cudaDeviceGetByPCIBusId");
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
    *can = 1;
    if (device == peer) note_fault("asked whether a GPU reaches itself");
    return told("cudaDeviceCanAccessPeer");
}

// --- streams -----------------------------------------------------------------------------------------------------
cudaError_t cudaDeviceGetStreamPriorityRange(int* lowest, int* highest) {
    *lowest = 0;
    *highest = -5;
    return told("cudaDeviceGetStreamPriorityRange");
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* made, unsigned flags, int priority) {
    refuse_in_capture("cudaStreamCreateWithPriority");
    if (const cudaError_t status = told("cudaStreamCreateWithPriority")) return status;
    if (flags != cudaStreamNonBlocking) note_fault("a stream that waits for the null stream");
    if (priority > 0 || priority < -5) note_fault("no such priority");
    *made = reinterpret_cast<cudaStream_t>(new Stream);
    const std::lock_guard<std::mutex> lock(world_mutex);
    streams.insert(of(*made));
    ++world.live_streams;
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* made, unsigned flags) {
    return cudaStreamCreateWithPriority(made, flags, 0);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    {
        const std::lock_guard<std::mutex> lock(world_mutex);
        streams.erase(of(stream));
        --world.live_streams;
    }
    delete of(stream);
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    refuse_in_capture("cudaStreamSynchronize");
    const auto mark = std::make_shared<Mark>();
    push(stream, [mark] { mark->reach(); });
    mark->wait();
    return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    refuse_in_capture("cudaStreamQuery");
    if (const cudaError_t status = told("cudaStreamQuery")) return status;
    if (stream == nullptr || stream == cudaStreamLegacy) return cudaSuccess;  // does at once what it is given
    return of(stream)->idle() ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    if (const cudaError_t status = told("cudaStreamWaitEvent")) return status;
    if (const std::shared_ptr<Mark> mark = of(event)->mark) push(stream, [mark] { mark->wait(); });
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
    if (const cudaError_t status = told("cudaMemcpyAsync")) return status;
    push(stream, [=] { std::memcpy(to, from, bytes); });
    return cudaSuccess;
}

// --- events ------------------------------------------------------------------------------------------------------
cudaError_t cudaEventCreate(cudaEvent_t* event) {
    return cudaEventCreateWithFlags(event, 0);
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    if (const cudaError_t status = told("cudaEventCreate")) return status;
    *event = reinterpret_cast<cudaEvent_t>(new Event);
    count(&World::live_events, 1);
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete of(event);
    count(&World::live_events, -1);
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    if (const cudaError_t status = told("cudaEventRecord")) return status;
    of(event)->time = world.clock;
    const auto mark = std::make_shared<Mark>();
    of(event)->mark = mark;
    push(stream, [mark] { mark->reach(); });
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    refuse_in_capture("cudaEventSynchronize");
    if (of(event)->mark) of(event)->mark->wait();
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    refuse_in_capture("cudaEventQuery");
    if (const cudaError_t status = told("cudaEventQuery")) return status;
    return !of(event)->mark || of(event)->mark->is_reached() ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float* elapsed, cudaEvent_t begin, cudaEvent_t end) {
    *elapsed = static_cast<float>(of(end)->time - of(begin)->time);
    return cudaSuccess;
}

// --- pinned memory -----------------------------------------------------------------------------------------------
cudaError_t cudaMallocHost(void** memory, size_t bytes) {
    refuse_in_capture("cudaMallocHost");
    if (const cudaError_t status = told("cudaMallocHost")) return status;
    *memory = std::malloc(bytes);
    count(&World::live_pinned, 1);
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
    if (memory == nullptr) return cudaSuccess;
    refuse_in_capture("cudaFreeHost");
    drain();
    std::free(memory);
    count(&World::live_pinned, -1);
    return cudaSuccess;
}
}
