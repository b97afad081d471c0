// What the make-believe cuDNN knows of a descriptor, and of the convolution that an operation graph describes.
#pragma once

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fake.h"

namespace rn50::fake {

using Bytes = std::vector<unsigned char>;

struct Value {
    cudnnBackendAttributeType_t type;
    int64_t count;
    Bytes bytes;
    template <class T>
    T at(int64_t i) const {
        T value;
        std::memcpy(&value, bytes.data() + static_cast<size_t>(i) * sizeof(T), sizeof(T));
        return value;
    }
};

struct Object {
    int type;
    bool finalized = false;
    std::map<int, Value> values;
    std::shared_ptr<const Engine> engine;  // of an engine and what is made of it

    const Value& value(int name) const { return values.at(name); }
    Object* child(int name, int64_t i = 0) const { return value(name).at<Object*>(i); }
};

/// The one operation of a graph.
struct Operation {
    int type = 0;
    const Object *convolution = nullptr, *image = nullptr, *weights = nullptr, *output = nullptr;
};
Operation operation_of(const Object& graph);

/// Of a tensor descriptor.
cudnnDataType_t data_type(const Object& tensor);
/// Whether weights are of another type than pictures.
bool wide(const Operation& op);

/// What is wrong with a tensor that is about to be finalized; "" when nothing is.
std::string fault_of_tensor(const Object& tensor);
/// Likewise with the operation of a graph.
std::string fault_of_operation(const Operation& op);
/// Likewise with the memory that it is to run on.
std::string fault_of_memory(const Operation& op, const void* image, const void* weights, const void* output);

void compute(const Operation& op, void* image_memory, void* weights_memory, void* output_memory);

}  // namespace rn50::fake
