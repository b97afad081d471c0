// Stand-ins for CUDA's runtime, cuDNN's graph API and cuBLASLt, in host memory: what the library layer of cuda/ calls,
// and no more. They hold every call to the libraries' documentation (right type and count of each attribute, all that
// is required set before finalize, nothing set after, nothing read before), note each breach, and compute plainly.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "conv_products.h"

namespace rn50::fake {

/// An engine of the make-believe cuDNN.
struct Engine {
    int64_t index = 0;
    std::vector<cudnnBackendNumericalNote_t> numerical;
    std::vector<cudnnBackendBehaviorNote_t> behavior;
    std::vector<std::pair<int64_t, int64_t>> knobs;  ///< as the heuristics set them
    float milliseconds = 1;                          ///< of one run
    int64_t workspace = 0;
    bool fallback = false;        ///< proposed by the fallback mode only
    bool wide_gradients = false;  ///< gives f32 weight gradients of 16-bit factors
    bool wide_only = false;       ///< and no others
    bool refused = false;         ///< proposed, but no plan can be made of it
    int64_t least_channels = 0, most_channels = int64_t{1} << 40;  ///< of the image
    int64_t smallest_batch = 0;   ///< refuses smaller ones
};

struct World {
    std::vector<Engine> engines;  ///< in the order of the heuristics
    std::string gpu = "Make-Believe 1";
    size_t cudnn = 90100;
    int driver = 12020;  ///< 0: none
    int64_t free_memory = int64_t{1} << 40;
    bool takes_wide_graphs = true;  ///< false: the graph of f32 weight gradients of 16-bit factors is refused

    // What happened.
    std::vector<std::string> faults;  ///< breaches of the documentation
    int runs = 0, heuristics = 0, wide_questions = 0;
    int64_t last_engine = -1;
    int64_t allocated = 0, most_allocated = 0;  ///< bytes of the device, now and at most
    int allocations = 0;
    double clock = 0;  ///< milliseconds of device time
    int live_descriptors = 0;
    bool watch_image = false;
    std::vector<double> seen;  ///< with watch_image: the image of the last convolution, in place of computing it
    std::map<std::string, cudaError_t> failing;  ///< calls of the runtime that do not succeed, by name
    int live_streams = 0, live_events = 0, live_pinned = 0;
    std::set<void*> live_handles;  ///< of cuDNN and cuBLASLt

    // cuBLASLt's.
    int gemm_heuristics = 0;
    uint32_t reduction_mask = 0, alignments[4] = {};
    uint64_t gemm_workspace = 0;
    int gemm_compute = 0;
    float gemm_milliseconds = 0.5f;                     ///< of one product
    bool gemm_answers = true;                           ///< false: the heuristics know no algorithm
    cublasStatus_t gemm_state = CUBLAS_STATUS_SUCCESS;  ///< of the one that they name
};
extern World world;

/// Gives `stream` something to do, after all that it was given before; null does it at once.
void push(cudaStream_t stream, std::function<void()> work);
/// The first breach of the documentation counts; from any thread.
void note_fault(const std::string& what);
/// Waits for all streams of the current device, as giving memory back does.
void drain();
/// What a call returns that takes or gives back memory: an error, and a breach, while this thread captures a graph.
cudaError_t refuse_in_capture(const char* name);
/// What the call of this name returns: world.failing.
cudaError_t told(const char* name);

}  // namespace rn50::fake
