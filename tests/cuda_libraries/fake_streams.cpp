// Streams, events, graphs, devices and pinned memory of the make-believe CUDA. A stream is a thread that does in order
// what it is given, so that whoever forgets to let one stream wait for another finds other numbers.
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>

#include "fake.h"
#include "streams.h"

namespace rn50::fake {

namespace {

std::mutex world_mutex;

struct Event {
    double time = 0;
    streams::Event* const event = streams::make_event();
    ~Event() { streams::destroy(event); }
};

using Graph = std::shared_ptr<const streams::Graph>;

streams::Stream* of(cudaStream_t stream) {
    return reinterpret_cast<streams::Stream*>(stream == cudaStreamLegacy ? nullptr : stream);
}
Event* of(cudaEvent_t event) {
    return reinterpret_cast<Event*>(event);
}
Graph* of(cudaGraph_t graph) {
    return reinterpret_cast<Graph*>(graph);
}
Graph* of(cudaGraphExec_t graph) {
    return reinterpret_cast<Graph*>(graph);
}

void count(int World::*what, int by) {
    const std::lock_guard<std::mutex> lock(world_mutex);
    world.*what += by;
}

/// A breach of what may be captured is an error of the call that commits it, and noted.
cudaError_t answer(const char* name, streams::Status status) {
    if (status != streams::success && status != streams::not_ready)
        note_fault(std::string(name) + " while a graph is captured: error " + std::to_string(status));
    return static_cast<cudaError_t>(status);
}

}  // namespace

void push(cudaStream_t stream, std::function<void()> work) {
    answer("work", streams::push(of(stream), std::move(work)));
}

void drain() {
    streams::drain();
}

void note_fault(const std::string& what) {
    const std::lock_guard<std::mutex> lock(world_mutex);
    world.faults.push_back(what);
}

cudaError_t refuse_in_capture(const char* name) {
    return answer(name, streams::unsafe_call());
}

cudaError_t told(const char* name) {
    const std::lock_guard<std::mutex> lock(world_mutex);
    const auto found = world.failing.find(name);
    return found == world.failing.end() ? cudaSuccess : found->second;
}

}  // namespace rn50::fake

using namespace rn50::fake;
namespace streams = rn50::streams;

extern "C" {

// --- devices -----------------------------------------------------------------------------------------------------
cudaError_t cudaSetDevice(int device) {
    streams::current_device() = device;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
    *device = streams::current_device();
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
    if (const cudaError_t status = told("cudaStreamCreateWithPriority")) return status;
    if (flags != cudaStreamNonBlocking) note_fault("a stream that waits for the null stream");
    if (priority > 0 || priority < -5) note_fault("no such priority");
    streams::set_threaded(true);
    *made = reinterpret_cast<cudaStream_t>(streams::make_stream());
    count(&World::live_streams, 1);
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* made, unsigned flags) {
    return cudaStreamCreateWithPriority(made, flags, 0);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    count(&World::live_streams, -1);
    streams::destroy(of(stream));
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    return answer("cudaStreamSynchronize", streams::synchronize(of(stream)));
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    if (const cudaError_t status = told("cudaStreamQuery")) return status;
    return answer("cudaStreamQuery", streams::query(of(stream)));
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    if (const cudaError_t status = told("cudaStreamWaitEvent")) return status;
    return answer("cudaStreamWaitEvent", streams::wait(of(stream), of(event)->event));
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
    if (const cudaError_t status = told("cudaMemcpyAsync")) return status;
    return answer("cudaMemcpyAsync", streams::push(of(stream), [=] { std::memcpy(to, from, bytes); }));
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
    return answer("cudaEventRecord", streams::record(of(event)->event, of(stream)));
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    return answer("cudaEventSynchronize", streams::synchronize(of(event)->event));
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    if (const cudaError_t status = told("cudaEventQuery")) return status;
    return answer("cudaEventQuery", streams::query(of(event)->event));
}
cudaError_t cudaEventElapsedTime(float* elapsed, cudaEvent_t begin, cudaEvent_t end) {
    *elapsed = static_cast<float>(of(end)->time - of(begin)->time);
    return cudaSuccess;
}

// --- graphs ------------------------------------------------------------------------------------------------------
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
    return answer("cudaStreamBeginCapture", streams::begin_capture(of(stream), mode == cudaStreamCaptureModeRelaxed));
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    Graph captured;
    const streams::Status status = streams::end_capture(of(stream), captured);
    *graph = captured ? reinterpret_cast<cudaGraph_t>(new Graph(captured)) : nullptr;
    return static_cast<cudaError_t>(status);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* instance, cudaGraph_t graph, unsigned long long) {
    if (const cudaError_t status = told("cudaGraphInstantiate")) return status;
    *instance = reinterpret_cast<cudaGraphExec_t>(new Graph(*of(graph)));
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t instance, cudaStream_t stream) {
    return answer("cudaGraphLaunch", streams::launch(*of(instance), of(stream)));
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete of(graph);
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t instance) {
    delete of(instance);
    return cudaSuccess;
}

// --- pinned memory -----------------------------------------------------------------------------------------------
cudaError_t cudaMallocHost(void** memory, size_t bytes) {
    if (const cudaError_t status = refuse_in_capture("cudaMallocHost")) return status;
    if (const cudaError_t status = told("cudaMallocHost")) return status;
    *memory = std::malloc(bytes);
    count(&World::live_pinned, 1);
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
    if (memory == nullptr) return cudaSuccess;
    if (const cudaError_t status = refuse_in_capture("cudaFreeHost")) return status;
    drain();
    std::free(memory);
    count(&World::live_pinned, -1);
    return cudaSuccess;
}
}
