#include "recording.h"

#include "base/error.h"

namespace rn50::cuda {

namespace {

/// A graph that was instantiated. What it holds of others, as NCCL's plans of its collectives, goes with it.
class GraphRecording final : public Recording {
  public:
    GraphRecording(cudaGraphExec_t graph, cudaStream_t stream) : graph_(graph), stream_(stream) {}
    /// Not while it runs: NCCL's part of it is told of its end by the host.
    ~GraphRecording() override {
        cudaStreamSynchronize(stream_);
        cudaGraphExecDestroy(graph_);
    }
    GraphRecording(const GraphRecording&) = delete;
    GraphRecording& operator=(const GraphRecording&) = delete;

    void run() override { check(cudaGraphLaunch(graph_, stream_), "launch of a recorded step"); }

  private:
    cudaGraphExec_t graph_;
    cudaStream_t stream_;
};

/// From the begin of a capture to its end, which comes whatever happens between: the stream can be used again then.
/// Thread-local: what other threads do meanwhile, decoders that take memory, or the thread in which NCCL launches for a
/// communicator that does not block, is none of its business. NCCL's launches belong to it by their stream.
class Capture {
  public:
    explicit Capture(cudaStream_t stream) : stream_(stream) {
        check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    }
    ~Capture() {
        if (open_) end();
        if (graph_ != nullptr) cudaGraphDestroy(graph_);
        cudaGetLastError();  // what was told is told once
    }
    Capture(const Capture&) = delete;
    Capture& operator=(const Capture&) = delete;

    /// The graph, which goes with this.
    cudaGraph_t graph() {
        check(end(), "cudaStreamEndCapture");
        return graph_;
    }

  private:
    cudaError_t end() {
        open_ = false;
        return cudaStreamEndCapture(stream_, &graph_);
    }

    cudaStream_t stream_;
    cudaGraph_t graph_ = nullptr;
    bool open_ = true;
};

}  // namespace

std::unique_ptr<Recording> record_graph(cudaStream_t stream, const std::function<void()>& work, std::string& why) {
    try {
        Capture capture(stream);
        work();
        cudaGraphExec_t instance = nullptr;
        check(cudaGraphInstantiate(&instance, capture.graph(), 0), "cudaGraphInstantiate");
        return std::make_unique<GraphRecording>(instance, stream);
    } catch (const Error& error) {
        if (error.code() != Exit::device) throw;
        why = error.what();
        return nullptr;
    }
}

}  // namespace rn50::cuda
