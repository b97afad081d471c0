// cuDNN's graph API, as much of it as a convolution needs: descriptors that free themselves, the graph of one
// convolution, the engines that can compute it, and their execution plans. No attribute is named outside
// conv_graph.cpp.
#pragma once

#include <cudnn_backend.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "products.h"

namespace rn50::cuda {

/// A handle on the current device, bound to a stream.
class CudnnHandle {
  public:
    /// Throws Error(Exit::device).
    explicit CudnnHandle(cudaStream_t stream);
    ~CudnnHandle();
    CudnnHandle(const CudnnHandle&) = delete;
    CudnnHandle& operator=(const CudnnHandle&) = delete;
    cudnnHandle_t raw() const { return handle_; }

  private:
    cudnnHandle_t handle_ = nullptr;
};

/// One descriptor of the graph API: made, given attributes, finalized, then only read.
class Descriptor {
  public:
    explicit Descriptor(cudnnBackendDescriptorType_t type);
    cudnnBackendDescriptor_t raw() const { return raw_.get(); }

    /// Sets an attribute; its type tag follows from T. Throws Error(Exit::device), as all of these do.
    template <class T>
    void set(cudnnBackendAttributeName_t name, const std::vector<T>& values);
    template <class T>
    void set(cudnnBackendAttributeName_t name, T value) {
        set(name, std::vector<T>{value});
    }
    void set_descriptors(cudnnBackendAttributeName_t name, const std::vector<const Descriptor*>& values);
    void set_pointers(cudnnBackendAttributeName_t name, const std::vector<const void*>& values);
    void finalize();
    /// For descriptors which the library may rightly refuse: an engine or a plan that it cannot make.
    bool try_finalize();

    /// All values of an attribute, at most `capacity`.
    template <class T>
    std::vector<T> get(cudnnBackendAttributeName_t name, int64_t capacity) const;
    /// An attribute whose values are descriptors, copied into descriptors of `type`.
    std::vector<Descriptor> get_descriptors(cudnnBackendAttributeName_t name, cudnnBackendDescriptorType_t type,
                                            int64_t capacity) const;
    int64_t count_of(cudnnBackendAttributeName_t name) const;

  private:
    struct Destroy {
        void operator()(void* raw) const;
    };
    std::unique_ptr<void, Destroy> raw_;
};

/// Which of its engines cuDNN is to take, and how it is to be set: enough to make the same plan again.
struct EngineChoice {
    int64_t engine = -1;                             ///< global index
    std::vector<std::pair<int64_t, int64_t>> knobs;  ///< type, value
    bool operator==(const EngineChoice& other) const { return engine == other.engine && knobs == other.knobs; }
};

/// An engine with its knobs set, and what cuDNN notes about it.
struct EngineConfig {
    Descriptor config;
    EngineChoice choice;
    std::vector<cudnnBackendNumericalNote_t> numerical_notes;
    std::vector<cudnnBackendBehaviorNote_t> behavior_notes;
    std::vector<Descriptor> parts;  ///< what the configuration refers to, where it was put together here

    bool uses_tensor_cores() const;
};

/// One phase of one convolution, as a graph of one operation. Sums in f32.
class ConvGraph {
  public:
    /// diff_weights: the dtype of dw in backward_weights. Throws Error(Exit::device) when cuDNN refuses the graph.
    ConvGraph(const CudnnHandle& handle, const ConvShape& shape, ConvProducts::Phase phase, DType diff_weights);
    /// What cuDNN's heuristics propose, best first; empty when this mode has nothing to say.
    std::vector<EngineConfig> propose(cudnnBackendHeurMode_t mode) const;
    /// A choice made earlier; empty when this cuDNN cannot make it.
    std::vector<EngineConfig> restore(const EngineChoice& choice) const;
    /// Of w, or of dw in backward_weights.
    DType weights_dtype() const { return weights_dtype_; }

  private:
    DType weights_dtype_;
    // An operation refers to its tensors, the graph to its operation.
    std::vector<Descriptor> parts_;
    Descriptor graph_;
};

/// A convolution, ready to run.
class ConvPlan {
  public:
    /// Null when cuDNN cannot make a plan of this engine after all.
    static std::unique_ptr<ConvPlan> make(const CudnnHandle& handle, std::shared_ptr<const ConvGraph> graph,
                                          EngineConfig config);
    int64_t workspace_bytes() const { return workspace_bytes_; }
    const EngineChoice& choice() const { return config_.choice; }
    bool uses_tensor_cores() const { return config_.uses_tensor_cores(); }
    /// Of one run, as it was measured; 0: never.
    float milliseconds() const { return milliseconds_; }
    void set_milliseconds(float milliseconds) { milliseconds_ = milliseconds; }

    /// Runs on the handle's stream. image is x or dx, output is y or dy, whatever the phase.
    cudnnStatus_t try_run(const CudnnHandle& handle, const void* image, const void* weights, const void* output,
                          void* workspace);

  private:
    ConvPlan(std::shared_ptr<const ConvGraph> graph, EngineConfig config, Descriptor plan);

    std::shared_ptr<const ConvGraph> graph_;
    EngineConfig config_;
    Descriptor plan_;
    int64_t workspace_bytes_ = 0;
    float milliseconds_ = 0;
    // A training step calls each plan with the same pointers again and again.
    std::vector<const void*> pointers_;
    void* workspace_ = nullptr;
    std::unique_ptr<Descriptor> variant_pack_;
};

}  // namespace rn50::cuda
