#include "conv_graph.h"

#include <algorithm>

#include "base/error.h"

namespace rn50::cuda {

namespace {

// The type tag that goes with a C type.
template <class T>
constexpr cudnnBackendAttributeType_t tag();
template <>
constexpr cudnnBackendAttributeType_t tag<int64_t>() {
    return CUDNN_TYPE_INT64;
}
template <>
constexpr cudnnBackendAttributeType_t tag<float>() {
    return CUDNN_TYPE_FLOAT;
}
template <>
constexpr cudnnBackendAttributeType_t tag<cudnnHandle_t>() {
    return CUDNN_TYPE_HANDLE;
}
template <>
constexpr cudnnBackendAttributeType_t tag<cudnnDataType_t>() {
    return CUDNN_TYPE_DATA_TYPE;
}
template <>
constexpr cudnnBackendAttributeType_t tag<cudnnConvolutionMode_t>() {
    return CUDNN_TYPE_CONVOLUTION_MODE;
}
template <>
constexpr cudnnBackendAttributeType_t tag<cudnnBackendHeurMode_t>() {
    return CUDNN_TYPE_HEUR_MODE;
}
template <>
constexpr cudnnBackendAttributeType_t tag<cudnnBackendKnobType_t>() {
    return CUDNN_TYPE_KNOB_TYPE;
}
template <>
constexpr cudnnBackendAttributeType_t tag<cudnnBackendNumericalNote_t>() {
    return CUDNN_TYPE_NUMERICAL_NOTE;
}
template <>
constexpr cudnnBackendAttributeType_t tag<cudnnBackendBehaviorNote_t>() {
    return CUDNN_TYPE_BEHAVIOR_NOTE;
}

// A newer cuDNN may know more notes and knobs than the headers of this build.
constexpr int64_t most_notes = 64, most_knobs = 128;

enum Uid : int64_t { image_uid = 1, weights_uid = 2, output_uid = 3 };

cudnnDataType_t data_type(DType dtype) {
    switch (dtype) {
        case DType::f32:
            return CUDNN_DATA_FLOAT;
        case DType::f16:
            return CUDNN_DATA_HALF;
        case DType::bf16:
            return CUDNN_DATA_BFLOAT16;
        default:
            RN50_REQUIRE(false, "cuDNN convolutions of ", name_of(dtype));
            return CUDNN_DATA_FLOAT;
    }
}

std::string at(cudnnBackendAttributeName_t name) {
    return cat("cuDNN attribute ", static_cast<int>(name));
}

/// cuDNN names dimensions N, C, H, W whatever their order in memory; the strides say NHWC. Pointers are promised to be
/// aligned to 16 bytes.
Descriptor tensor(Uid uid, DType dtype, int64_t n, int64_t c, int64_t h, int64_t w) {
    Descriptor made(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    made.set(CUDNN_ATTR_TENSOR_DATA_TYPE, data_type(dtype));
    made.set(CUDNN_ATTR_TENSOR_DIMENSIONS, std::vector<int64_t>{n, c, h, w});
    made.set(CUDNN_ATTR_TENSOR_STRIDES, std::vector<int64_t>{h * w * c, 1, w * c, c});
    made.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, static_cast<int64_t>(uid));
    made.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, int64_t{16});
    made.finalize();
    return made;
}

Descriptor convolution(const ConvShape& shape) {
    Descriptor made(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    const std::vector<int64_t> pads{shape.pad, shape.pad}, ones{1, 1};
    made.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT);
    made.set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_CROSS_CORRELATION);
    made.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, int64_t{2});
    made.set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, pads);
    made.set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, pads);
    made.set(CUDNN_ATTR_CONVOLUTION_DILATIONS, ones);
    made.set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, std::vector<int64_t>{shape.stride, shape.stride});
    made.finalize();
    return made;
}

/// The three kinds of operation have the same six attributes under different names.
struct OperationNames {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t alpha, beta, convolution, image, weights, output;
};

OperationNames names_of(ConvProducts::Phase phase) {
    switch (phase) {
        case ConvProducts::Phase::forward:
            return {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y};
        case ConvProducts::Phase::backward_data:
            return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY};
        case ConvProducts::Phase::backward_weights:
            break;
    }
    return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY};
}

/// Reads choice and notes out of a finalized engine configuration.
EngineConfig described(Descriptor config) {
    const std::vector<Descriptor> engines =
        config.get_descriptors(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR, 1);
    RN50_REQUIRE(engines.size() == 1, "an engine configuration of cuDNN without an engine");
    const Descriptor& engine = engines[0];
    EngineChoice choice;
    choice.engine = engine.get<int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, 1).at(0);
    for (const Descriptor& knob :
         config.get_descriptors(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, most_knobs)) {
        const auto type = knob.get<cudnnBackendKnobType_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, 1).at(0);
        choice.knobs.emplace_back(type, knob.get<int64_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, 1).at(0));
    }
    auto numerical = engine.get<cudnnBackendNumericalNote_t>(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, most_notes);
    auto behavior = engine.get<cudnnBackendBehaviorNote_t>(CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, most_notes);
    return {std::move(config), std::move(choice), std::move(numerical), std::move(behavior), {}};
}

}  // namespace

CudnnHandle::CudnnHandle(cudaStream_t stream) {
    check(cudnnCreate(&handle_), "cudnnCreate");
    const cudnnStatus_t bound = cudnnSetStream(handle_, stream);
    if (bound == CUDNN_STATUS_SUCCESS) return;
    cudnnDestroy(handle_);
    check(bound, "cudnnSetStream");
}

CudnnHandle::~CudnnHandle() {
    if (device_lives()) cudnnDestroy(handle_);
}

Descriptor::Descriptor(cudnnBackendDescriptorType_t type) {
    cudnnBackendDescriptor_t raw = nullptr;
    check(cudnnBackendCreateDescriptor(type, &raw), cat("cuDNN descriptor ", static_cast<int>(type)));
    raw_.reset(raw);
}

void Descriptor::Destroy::operator()(void* raw) const {
    cudnnBackendDestroyDescriptor(raw);
}

template <class T>
void Descriptor::set(cudnnBackendAttributeName_t name, const std::vector<T>& values) {
    check(cudnnBackendSetAttribute(raw(), name, tag<T>(), static_cast<int64_t>(values.size()), values.data()),
          at(name));
}

void Descriptor::set_descriptors(cudnnBackendAttributeName_t name, const std::vector<const Descriptor*>& values) {
    std::vector<cudnnBackendDescriptor_t> raws;
    for (const Descriptor* value : values)
        raws.push_back(value->raw());
    check(cudnnBackendSetAttribute(raw(), name, CUDNN_TYPE_BACKEND_DESCRIPTOR, static_cast<int64_t>(raws.size()),
                                   raws.data()),
          at(name));
}

void Descriptor::set_pointers(cudnnBackendAttributeName_t name, const std::vector<const void*>& values) {
    check(
        cudnnBackendSetAttribute(raw(), name, CUDNN_TYPE_VOID_PTR, static_cast<int64_t>(values.size()), values.data()),
        at(name));
}

void Descriptor::finalize() {
    check(cudnnBackendFinalize(raw()), "cudnnBackendFinalize");
}

bool Descriptor::try_finalize() {
    return cudnnBackendFinalize(raw()) == CUDNN_STATUS_SUCCESS;
}

template <class T>
std::vector<T> Descriptor::get(cudnnBackendAttributeName_t name, int64_t capacity) const {
    std::vector<T> values(static_cast<size_t>(capacity));
    int64_t count = 0;
    check(cudnnBackendGetAttribute(raw(), name, tag<T>(), capacity, &count, values.data()), at(name));
    values.resize(static_cast<size_t>(std::min(count, capacity)));
    return values;
}

std::vector<Descriptor> Descriptor::get_descriptors(cudnnBackendAttributeName_t name, cudnnBackendDescriptorType_t type,
                                                    int64_t capacity) const {
    std::vector<Descriptor> values;
    std::vector<cudnnBackendDescriptor_t> raws;
    for (int64_t i = 0; i < capacity; ++i)
        raws.push_back(values.emplace_back(type).raw());
    int64_t count = 0;
    check(cudnnBackendGetAttribute(raw(), name, CUDNN_TYPE_BACKEND_DESCRIPTOR, capacity, &count, raws.data()),
          at(name));
    while (static_cast<int64_t>(values.size()) > count)
        values.pop_back();
    return values;
}

int64_t Descriptor::count_of(cudnnBackendAttributeName_t name) const {
    int64_t count = 0;
    check(cudnnBackendGetAttribute(raw(), name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &count, nullptr), at(name));
    return count;
}

bool EngineConfig::uses_tensor_cores() const {
    return std::count(numerical_notes.begin(), numerical_notes.end(), CUDNN_NUMERICAL_NOTE_TENSOR_CORE) > 0;
}

ConvGraph::ConvGraph(const CudnnHandle& handle, const ConvShape& shape, ConvProducts::Phase phase, DType diff_weights)
    : weights_dtype_(phase == ConvProducts::Phase::backward_weights ? diff_weights : shape.dtype),
      graph_(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR) {
    parts_.push_back(tensor(image_uid, shape.dtype, shape.batch, shape.in_channels, shape.height, shape.width));
    parts_.push_back(
        tensor(weights_uid, weights_dtype_, shape.out_channels, shape.in_channels, shape.kernel, shape.kernel));
    parts_.push_back(
        tensor(output_uid, shape.dtype, shape.batch, shape.out_channels, shape.out_height(), shape.out_width()));
    parts_.push_back(convolution(shape));

    const OperationNames names = names_of(phase);
    Descriptor operation(names.type);
    operation.set(names.alpha, 1.0f);
    operation.set(names.beta, 0.0f);
    operation.set_descriptors(names.image, {&parts_[0]});
    operation.set_descriptors(names.weights, {&parts_[1]});
    operation.set_descriptors(names.output, {&parts_[2]});
    operation.set_descriptors(names.convolution, {&parts_[3]});
    operation.finalize();
    parts_.push_back(std::move(operation));

    graph_.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, handle.raw());
    graph_.set_descriptors(CUDNN_ATTR_OPERATIONGRAPH_OPS, {&parts_.back()});
    graph_.finalize();
}

std::vector<EngineConfig> ConvGraph::propose(cudnnBackendHeurMode_t mode) const {
    Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    heuristics.set_descriptors(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, {&graph_});
    heuristics.set(CUDNN_ATTR_ENGINEHEUR_MODE, mode);
    if (!heuristics.try_finalize()) return {};
    const int64_t count = heuristics.count_of(CUDNN_ATTR_ENGINEHEUR_RESULTS);
    std::vector<EngineConfig> proposals;
    for (Descriptor& config :
         heuristics.get_descriptors(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, count))
        proposals.push_back(described(std::move(config)));
    return proposals;
}

std::vector<EngineConfig> ConvGraph::restore(const EngineChoice& choice) const {
    try {
        // The engine, then its knobs.
        std::vector<Descriptor> parts;
        parts.emplace_back(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
        parts[0].set_descriptors(CUDNN_ATTR_ENGINE_OPERATION_GRAPH, {&graph_});
        parts[0].set(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, choice.engine);
        parts[0].finalize();
        for (const auto& [type, value] : choice.knobs) {
            Descriptor& knob = parts.emplace_back(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
            knob.set(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, static_cast<cudnnBackendKnobType_t>(type));
            knob.set(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, value);
            knob.finalize();
        }
        std::vector<const Descriptor*> knobs;
        for (size_t i = 1; i < parts.size(); ++i)
            knobs.push_back(&parts[i]);
        Descriptor config(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
        config.set_descriptors(CUDNN_ATTR_ENGINECFG_ENGINE, {&parts[0]});
        if (!knobs.empty()) config.set_descriptors(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, knobs);
        config.finalize();
        std::vector<EngineConfig> restored;
        restored.push_back(described(std::move(config)));
        restored.back().parts = std::move(parts);
        return restored;
    } catch (const Error&) {
        return {};  // no engine of that number, or knobs that it no longer has
    }
}

ConvPlan::ConvPlan(std::shared_ptr<const ConvGraph> graph, EngineConfig config, Descriptor plan)
    : graph_(std::move(graph)), config_(std::move(config)), plan_(std::move(plan)) {
    workspace_bytes_ = plan_.get<int64_t>(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, 1).at(0);
}

std::unique_ptr<ConvPlan> ConvPlan::make(const CudnnHandle& handle, std::shared_ptr<const ConvGraph> graph,
                                         EngineConfig config) {
    Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, handle.raw());
    plan.set_descriptors(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, {&config.config});
    if (!plan.try_finalize()) return nullptr;
    return std::unique_ptr<ConvPlan>(new ConvPlan(std::move(graph), std::move(config), std::move(plan)));
}

cudnnStatus_t ConvPlan::try_run(const CudnnHandle& handle, const void* image, const void* weights, const void* output,
                                void* workspace) {
    const std::vector<const void*> pointers{image, weights, output};
    if (!variant_pack_ || pointers != pointers_ || workspace != workspace_) {
        auto pack = std::make_unique<Descriptor>(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
        pack->set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, std::vector<int64_t>{image_uid, weights_uid, output_uid});
        pack->set_pointers(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, pointers);
        pack->set_pointers(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, {workspace});
        pack->finalize();
        variant_pack_ = std::move(pack);
        pointers_ = pointers;
        workspace_ = workspace;
    }
    return cudnnBackendExecute(handle.raw(), plan_.raw(), variant_pack_->raw());
}

}  // namespace rn50::cuda
