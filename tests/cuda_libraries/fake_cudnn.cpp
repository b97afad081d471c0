#include <algorithm>

#include "fake_convolution.h"

namespace rn50::fake {

World world;

namespace {

struct Rule {
    cudnnBackendAttributeType_t type;
    int64_t least, most;
    bool required;
};

using Rules = std::map<int, Rule>;
constexpr auto i64 = CUDNN_TYPE_INT64;
constexpr auto descriptor = CUDNN_TYPE_BACKEND_DESCRIPTOR;

Rules operation_rules(int alpha, int beta, int convolution, int a, int b, int c) {
    return {{alpha, {CUDNN_TYPE_FLOAT, 1, 1, true}}, {beta, {CUDNN_TYPE_FLOAT, 1, 1, true}},
            {convolution, {descriptor, 1, 1, true}}, {a, {descriptor, 1, 1, true}},
            {b, {descriptor, 1, 1, true}},           {c, {descriptor, 1, 1, true}}};
}

/// What the documentation of each descriptor says about the attributes that are set.
const std::map<int, Rules>& rulebook() {
    static const std::map<int, Rules> book{
        {CUDNN_BACKEND_TENSOR_DESCRIPTOR,
         {{CUDNN_ATTR_TENSOR_DATA_TYPE, {CUDNN_TYPE_DATA_TYPE, 1, 1, true}},
          {CUDNN_ATTR_TENSOR_DIMENSIONS, {i64, 3, 8, true}},
          {CUDNN_ATTR_TENSOR_STRIDES, {i64, 3, 8, true}},
          {CUDNN_ATTR_TENSOR_UNIQUE_ID, {i64, 1, 1, true}},
          {CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, {i64, 1, 1, true}}}},
        {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR,
         {{CUDNN_ATTR_CONVOLUTION_COMP_TYPE, {CUDNN_TYPE_DATA_TYPE, 1, 1, true}},
          {CUDNN_ATTR_CONVOLUTION_CONV_MODE, {CUDNN_TYPE_CONVOLUTION_MODE, 1, 1, true}},
          {CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, {i64, 1, 1, true}},
          {CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, {i64, 2, 2, true}},
          {CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, {i64, 2, 2, true}},
          {CUDNN_ATTR_CONVOLUTION_DILATIONS, {i64, 2, 2, true}},
          {CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, {i64, 2, 2, true}}}},
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
         operation_rules(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y)},
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
         operation_rules(
             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY)},
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
         operation_rules(
             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY)},
        {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR,
         {{CUDNN_ATTR_OPERATIONGRAPH_HANDLE, {CUDNN_TYPE_HANDLE, 1, 1, true}},
          {CUDNN_ATTR_OPERATIONGRAPH_OPS, {descriptor, 1, 64, true}}}},
        {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR,
         {{CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, {descriptor, 1, 1, true}},
          {CUDNN_ATTR_ENGINEHEUR_MODE, {CUDNN_TYPE_HEUR_MODE, 1, 1, true}}}},
        {CUDNN_BACKEND_ENGINE_DESCRIPTOR,
         {{CUDNN_ATTR_ENGINE_OPERATION_GRAPH, {descriptor, 1, 1, true}},
          {CUDNN_ATTR_ENGINE_GLOBAL_INDEX, {i64, 1, 1, true}}}},
        {CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR,
         {{CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, {CUDNN_TYPE_KNOB_TYPE, 1, 1, true}},
          {CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, {i64, 1, 1, true}}}},
        {CUDNN_BACKEND_ENGINECFG_DESCRIPTOR,
         {{CUDNN_ATTR_ENGINECFG_ENGINE, {descriptor, 1, 1, true}},
          {CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, {descriptor, 1, CUDNN_KNOB_TYPE_COUNTS, false}}}},
        {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR,
         {{CUDNN_ATTR_EXECUTION_PLAN_HANDLE, {CUDNN_TYPE_HANDLE, 1, 1, true}},
          {CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, {descriptor, 1, 1, true}}}},
        {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR,
         {{CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, {i64, 1, 64, true}},
          {CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, {CUDNN_TYPE_VOID_PTR, 1, 64, true}},
          {CUDNN_ATTR_VARIANT_PACK_WORKSPACE, {CUDNN_TYPE_VOID_PTR, 1, 1, true}}}},
    };
    return book;
}

cudnnStatus_t fault(const std::string& text) {
    world.faults.push_back(text);
    return CUDNN_STATUS_BAD_PARAM;
}

std::string named(const Object& object, int attribute) {
    return "descriptor " + std::to_string(object.type) + ", attribute " + std::to_string(attribute) + ": ";
}

size_t bytes_of(cudnnBackendAttributeType_t type) {
    switch (type) {
        case CUDNN_TYPE_INT64:
        case CUDNN_TYPE_HANDLE:
        case CUDNN_TYPE_VOID_PTR:
        case CUDNN_TYPE_BACKEND_DESCRIPTOR:
            return 8;
        default:
            return 4;
    }
}

bool serves(const Engine& engine, const Operation& op) {
    const Value& dimensions = op.image->value(CUDNN_ATTR_TENSOR_DIMENSIONS);
    const auto channels = dimensions.at<int64_t>(1);
    return (wide(op) ? engine.wide_gradients : !engine.wide_only) &&
           dimensions.at<int64_t>(0) >= engine.smallest_batch && channels >= engine.least_channels &&
           channels <= engine.most_channels;
}

// --- what finalize and the answers need --------------------------------------------------------------------------
void give(Object& object, int name, cudnnBackendAttributeType_t type, const void* data, int64_t count) {
    const auto* bytes = static_cast<const unsigned char*>(data);
    object.values[name] = {type, count, Bytes(bytes, bytes + static_cast<size_t>(count) * bytes_of(type))};
}

// Answers hold descriptors of their own, which live as long as the process: the real library keeps them by reference.
Object* keep(std::unique_ptr<Object> object) {
    static std::vector<std::unique_ptr<Object>> kept;
    kept.push_back(std::move(object));
    return kept.back().get();
}

void make_engine(Object& into, const Engine& engine, Object* graph) {
    into.engine = std::make_shared<Engine>(engine);
    into.finalized = true;
    give(into, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, i64, &engine.index, 1);
    give(into, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, descriptor, &graph, 1);
    give(into, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, engine.numerical.data(),
         static_cast<int64_t>(engine.numerical.size()));
    give(into, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE, engine.behavior.data(),
         static_cast<int64_t>(engine.behavior.size()));
}

Object* make_config(const Engine& engine, Object* graph) {
    auto made = std::make_unique<Object>();
    made->type = CUDNN_BACKEND_ENGINE_DESCRIPTOR;
    make_engine(*made, engine, graph);
    Object* raw_engine = keep(std::move(made));
    std::vector<Object*> knobs;
    for (const auto& [type, value] : engine.knobs) {
        auto knob = std::make_unique<Object>();
        knob->type = CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR;
        knob->finalized = true;
        const auto knob_type = static_cast<cudnnBackendKnobType_t>(type);
        give(*knob, CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, &knob_type, 1);
        give(*knob, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, i64, &value, 1);
        knobs.push_back(keep(std::move(knob)));
    }
    auto config = std::make_unique<Object>();
    config->type = CUDNN_BACKEND_ENGINECFG_DESCRIPTOR;
    config->finalized = true;
    config->engine = raw_engine->engine;
    give(*config, CUDNN_ATTR_ENGINECFG_ENGINE, descriptor, &raw_engine, 1);
    give(*config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, descriptor, knobs.data(), static_cast<int64_t>(knobs.size()));
    return keep(std::move(config));
}

cudnnStatus_t finalize_heuristics(Object& object) {
    const auto mode = object.value(CUDNN_ATTR_ENGINEHEUR_MODE).at<cudnnBackendHeurMode_t>(0);
    Object* graph = object.child(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
    const Operation op = operation_of(*graph);
    ++world.heuristics;
    if (wide(op)) ++world.wide_questions;
    std::vector<Object*> results;
    for (const Engine& engine : world.engines)
        if (engine.fallback == (mode == CUDNN_HEUR_MODE_FALLBACK) && serves(engine, op))
            results.push_back(make_config(engine, graph));
    give(object, CUDNN_ATTR_ENGINEHEUR_RESULTS, descriptor, results.data(), static_cast<int64_t>(results.size()));
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t finalize_engine(Object& object) {
    const int64_t index = object.value(CUDNN_ATTR_ENGINE_GLOBAL_INDEX).at<int64_t>(0);
    Object* graph = object.child(CUDNN_ATTR_ENGINE_OPERATION_GRAPH);
    for (const Engine& engine : world.engines)
        if (engine.index == index && serves(engine, operation_of(*graph))) {
            make_engine(object, engine, graph);
            return CUDNN_STATUS_SUCCESS;
        }
    return CUDNN_STATUS_NOT_SUPPORTED;
}

cudnnStatus_t finalize_config(Object& object) {
    object.engine = object.child(CUDNN_ATTR_ENGINECFG_ENGINE)->engine;
    if (object.values.count(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES) == 0)
        give(object, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, descriptor, nullptr, 0);
    const Value& knobs = object.value(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES);
    for (int64_t i = 0; i < knobs.count; ++i) {
        const Object& knob = *knobs.at<Object*>(i);
        const auto type =
            static_cast<int64_t>(knob.value(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE).at<cudnnBackendKnobType_t>(0));
        const auto& has = object.engine->knobs;
        if (std::none_of(has.begin(), has.end(), [&](const auto& own) { return own.first == type; }))
            return CUDNN_STATUS_NOT_SUPPORTED;
    }
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t finalize_plan(Object& object) {
    object.engine = object.child(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)->engine;
    if (object.engine->refused) return CUDNN_STATUS_NOT_SUPPORTED;
    give(object, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, i64, &object.engine->workspace, 1);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t finalize(Object& object) {
    if (object.finalized) return fault("finalized twice: " + std::to_string(object.type));
    const auto rules = rulebook().find(object.type);
    if (rules == rulebook().end()) return fault("no such descriptor: " + std::to_string(object.type));
    for (const auto& [name, rule] : rules->second)
        if (rule.required && object.values.count(name) == 0)
            return fault(named(object, name) + "required, but not set before finalize");
    for (const auto& [name, value] : object.values)
        if (value.type == descriptor)
            for (int64_t i = 0; i < value.count; ++i)
                if (!value.at<Object*>(i)->finalized)
                    return fault(named(object, name) + "refers to a descriptor that is not finalized");
    cudnnStatus_t status = CUDNN_STATUS_SUCCESS;
    std::string wrong;
    switch (object.type) {
        case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
            wrong = fault_of_operation(operation_of(object));
            if (!world.takes_wide_graphs && wide(operation_of(object))) status = CUDNN_STATUS_NOT_SUPPORTED;
            break;
        case CUDNN_BACKEND_TENSOR_DESCRIPTOR:
            wrong = fault_of_tensor(object);
            break;
        case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR:
            status = finalize_heuristics(object);
            break;
        case CUDNN_BACKEND_ENGINE_DESCRIPTOR:
            status = finalize_engine(object);
            break;
        case CUDNN_BACKEND_ENGINECFG_DESCRIPTOR:
            status = finalize_config(object);
            break;
        case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR:
            status = finalize_plan(object);
            break;
        default:
            break;
    }
    if (!wrong.empty()) return fault(wrong);
    object.finalized = status == CUDNN_STATUS_SUCCESS;
    return status;
}

/// A handle is on the device that was current when it was made.
struct Handle {
    int device = 0;
    cudaStream_t stream = nullptr;
};

cudnnStatus_t execute(Handle* handle, const Object& plan, const Object& pack) {
    if (!plan.finalized || !pack.finalized) return fault("executed with a descriptor that is not finalized");
    const Value& ids = pack.value(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    const Value& pointers = pack.value(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    if (ids.count != pointers.count) return fault("as many pointers as unique ids are needed");
    const Object& config = *plan.child(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
    const Object& graph = *config.child(CUDNN_ATTR_ENGINECFG_ENGINE)->child(CUDNN_ATTR_ENGINE_OPERATION_GRAPH);
    if (plan.value(CUDNN_ATTR_EXECUTION_PLAN_HANDLE).at<Handle*>(0) != handle ||
        graph.value(CUDNN_ATTR_OPERATIONGRAPH_HANDLE).at<Handle*>(0) != handle)
        return fault("executed with another handle");
    int device = 0;
    cudaGetDevice(&device);
    if (device != handle->device) return fault("executed on another device than the handle's");
    const Operation op = operation_of(graph);
    const auto memory_of = [&](const Object* tensor) -> void* {
        for (int64_t i = 0; i < ids.count; ++i)
            if (ids.at<int64_t>(i) == tensor->value(CUDNN_ATTR_TENSOR_UNIQUE_ID).at<int64_t>(0))
                return pointers.at<void*>(i);
        fault("a tensor without memory");
        return nullptr;
    };
    if (plan.engine->workspace > 0 && pack.value(CUDNN_ATTR_VARIANT_PACK_WORKSPACE).at<void*>(0) == nullptr)
        return fault("no workspace where the plan needs one");
    void *const image = memory_of(op.image), *const weights = memory_of(op.weights),
                *const output = memory_of(op.output);
    if (const std::string wrong = fault_of_memory(op, image, weights, output); !wrong.empty()) return fault(wrong);
    push(handle->stream, [=] { compute(op, image, weights, output); });
    ++world.runs;
    world.last_engine = plan.engine->index;
    world.clock += plan.engine->milliseconds;
    return CUDNN_STATUS_SUCCESS;
}

Object& object_of(cudnnBackendDescriptor_t raw) {
    return *static_cast<Object*>(raw);
}

}  // namespace

}  // namespace rn50::fake

using namespace rn50::fake;

extern "C" {

size_t cudnnGetVersion() {
    return world.cudnn;
}
const char* cudnnGetErrorString(cudnnStatus_t) {
    return "CUDNN_STATUS_MADE_UP";
}
#if CUDNN_MAJOR >= 9
void cudnnGetLastErrorString(char* message, size_t size) {
    if (size > 0) message[0] = '\0';
}
#endif
cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
    auto* made = new Handle;
    cudaGetDevice(&made->device);
    *handle = reinterpret_cast<cudnnHandle_t>(made);
    world.live_handles.insert(made);
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
    world.live_handles.erase(handle);
    delete reinterpret_cast<Handle*>(handle);
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
    reinterpret_cast<Handle*>(handle)->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t* made) {
    auto* object = new Object;
    object->type = type;
    *made = object;
    ++world.live_descriptors;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t raw) {
    delete static_cast<Object*>(raw);
    --world.live_descriptors;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t raw, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count, const void* values) {
    Object& object = object_of(raw);
    const auto rules = rulebook().find(object.type);
    if (rules == rulebook().end()) return fault("no such descriptor: " + std::to_string(object.type));
    const auto rule = rules->second.find(name);
    if (rule == rules->second.end()) return fault(named(object, name) + "no attribute of this descriptor");
    if (object.finalized) return fault(named(object, name) + "set after finalize");
    if (rule->second.type != type) return fault(named(object, name) + "of another type");
    if (count < rule->second.least || count > rule->second.most) return fault(named(object, name) + "of another count");
    if (values == nullptr) return fault(named(object, name) + "set to nothing");
    give(object, name, type, values, count);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t raw) {
    return finalize(object_of(raw));
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t raw, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t requested, int64_t* count,
                                       void* values) {
    const Object& object = object_of(raw);
    if (!object.finalized) return fault(named(object, name) + "read before finalize");
    const auto found = object.values.find(name);
    if (found == object.values.end()) return fault(named(object, name) + "not there to be read");
    const Value& value = found->second;
    if (value.type != type) return fault(named(object, name) + "read as another type");
    if (count != nullptr) *count = value.count;
    const int64_t given = std::min(requested, value.count);
    if (type == descriptor) {
        // The caller brings descriptors of the right type, which become copies.
        for (int64_t i = 0; i < given; ++i) {
            Object* into = static_cast<Object**>(values)[i];
            const Object& from = *value.at<Object*>(i);
            if (into == nullptr || into->type != from.type || into->finalized)
                return fault(named(object, name) + "read into a descriptor that does not fit");
            *into = from;
        }
    } else if (given > 0) {
        std::memcpy(values, value.bytes.data(), static_cast<size_t>(given) * bytes_of(type));
    }
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack) {
    return execute(reinterpret_cast<Handle*>(handle), object_of(plan), object_of(pack));
}
}
