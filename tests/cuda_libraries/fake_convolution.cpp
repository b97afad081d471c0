#include "fake_convolution.h"

#include <algorithm>
#include <array>

namespace rn50::fake {

Operation operation_of(const Object& graph) {
    const Object& op = *graph.child(CUDNN_ATTR_OPERATIONGRAPH_OPS);
    switch (op.type) {
        case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
            return {op.type, op.child(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC),
                    op.child(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X),
                    op.child(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W),
                    op.child(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y)};
        case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
            return {op.type, op.child(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC),
                    op.child(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX),
                    op.child(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W),
                    op.child(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY)};
        default:
            return {op.type, op.child(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC),
                    op.child(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X),
                    op.child(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW),
                    op.child(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY)};
    }
}

cudnnDataType_t data_type(const Object& tensor) {
    return tensor.value(CUDNN_ATTR_TENSOR_DATA_TYPE).at<cudnnDataType_t>(0);
}

bool wide(const Operation& op) {
    return data_type(*op.weights) != data_type(*op.image);
}

namespace {

int64_t dim(const Object& tensor, int64_t i) {
    return tensor.value(CUDNN_ATTR_TENSOR_DIMENSIONS).at<int64_t>(i);
}

bool fits_together(const Operation& op) {
    const auto number = [&](int name, int64_t i) { return op.convolution->value(name).at<int64_t>(i); };
    bool good = dim(*op.image, 0) == dim(*op.output, 0) && dim(*op.image, 1) == dim(*op.weights, 1) &&
                dim(*op.output, 1) == dim(*op.weights, 0);
    for (int64_t axis = 0; axis < 2; ++axis) {
        const int64_t padded = dim(*op.image, 2 + axis) + number(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, axis) +
                               number(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, axis);
        const int64_t span = (dim(*op.weights, 2 + axis) - 1) * number(CUDNN_ATTR_CONVOLUTION_DILATIONS, axis) + 1;
        good = good &&
               dim(*op.output, 2 + axis) == (padded - span) / number(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, axis) + 1;
    }
    return good;
}

// --- plain arithmetic over the descriptors' own strides ----------------------------------------------------------
float from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

struct Access {
    Access(const Object& tensor, void* memory)
        : memory_(static_cast<unsigned char*>(memory)), type_(data_type(tensor)) {
        for (int64_t i = 0; i < 4; ++i) {
            dims[i] = tensor.value(CUDNN_ATTR_TENSOR_DIMENSIONS).at<int64_t>(i);
            strides_[i] = tensor.value(CUDNN_ATTR_TENSOR_STRIDES).at<int64_t>(i);
        }
    }
    double get(int64_t a, int64_t b, int64_t c, int64_t d) const {
        unsigned char* where = at(a, b, c, d);
        if (type_ == CUDNN_DATA_FLOAT) {
            float value;
            std::memcpy(&value, where, 4);
            return value;
        }
        uint16_t bits;
        std::memcpy(&bits, where, 2);
        return from_bits(uint32_t{bits} << 16);  // the tests compute in f32 and bf16
    }
    void put(int64_t a, int64_t b, int64_t c, int64_t d, double value) const {
        const auto single = static_cast<float>(value);
        if (type_ == CUDNN_DATA_FLOAT) {
            std::memcpy(at(a, b, c, d), &single, 4);
            return;
        }
        uint32_t bits;
        std::memcpy(&bits, &single, 4);
        const auto rounded = static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
        std::memcpy(at(a, b, c, d), &rounded, 2);
    }
    int64_t dims[4];

  private:
    unsigned char* at(int64_t a, int64_t b, int64_t c, int64_t d) const {
        return memory_ + (a * strides_[0] + b * strides_[1] + c * strides_[2] + d * strides_[3]) *
                             (type_ == CUDNN_DATA_FLOAT ? 4 : 2);
    }
    unsigned char* memory_;
    cudnnDataType_t type_;
    int64_t strides_[4];
};

std::vector<double> all_of(const Access& t) {
    std::vector<double> values;
    for (int64_t a = 0; a < t.dims[0]; ++a)
        for (int64_t b = 0; b < t.dims[1]; ++b)
            for (int64_t c = 0; c < t.dims[2]; ++c)
                for (int64_t d = 0; d < t.dims[3]; ++d)
                    values.push_back(t.get(a, b, c, d));
    return values;
}

void zero(const Access& t) {
    for (int64_t a = 0; a < t.dims[0]; ++a)
        for (int64_t b = 0; b < t.dims[1]; ++b)
            for (int64_t c = 0; c < t.dims[2]; ++c)
                for (int64_t d = 0; d < t.dims[3]; ++d)
                    t.put(a, b, c, d, 0);
}

/// Calls visit(n, k, oh, ow, c, r, s, ih, iw) for each product of the convolution.
template <class Visit>
void each_product(const Operation& op, const Access& image, const Access& weights, const Access& output, Visit visit) {
    const int64_t pad = op.convolution->value(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS).at<int64_t>(0);
    const int64_t stride = op.convolution->value(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES).at<int64_t>(0);
    for (int64_t n = 0; n < output.dims[0]; ++n)
        for (int64_t k = 0; k < output.dims[1]; ++k)
            for (int64_t oh = 0; oh < output.dims[2]; ++oh)
                for (int64_t ow = 0; ow < output.dims[3]; ++ow)
                    for (int64_t c = 0; c < image.dims[1]; ++c)
                        for (int64_t r = 0; r < weights.dims[2]; ++r)
                            for (int64_t s = 0; s < weights.dims[3]; ++s) {
                                const int64_t ih = oh * stride - pad + r, iw = ow * stride - pad + s;
                                if (ih >= 0 && ih < image.dims[2] && iw >= 0 && iw < image.dims[3])
                                    visit(n, k, oh, ow, c, r, s, ih, iw);
                            }
}

}  // namespace

std::string fault_of_tensor(const Object& tensor) {
    const Value &dims = tensor.value(CUDNN_ATTR_TENSOR_DIMENSIONS), &strides = tensor.value(CUDNN_ATTR_TENSOR_STRIDES);
    if (dims.count != strides.count) return "a tensor with more or fewer strides than dimensions";
    // By stride, each dimension must lie outside of those before it.
    std::vector<std::pair<int64_t, int64_t>> order;
    for (int64_t i = 0; i < dims.count; ++i) {
        if (dims.at<int64_t>(i) < 1 || strides.at<int64_t>(i) < 1) return "a dimension or stride below 1";
        order.emplace_back(strides.at<int64_t>(i), dims.at<int64_t>(i));
    }
    std::sort(order.begin(), order.end());
    int64_t inside = 1;
    for (const auto& [stride, size] : order) {
        if (size > 1 && stride < inside) return "a tensor whose elements overlap";
        inside = std::max(inside, stride * size);
    }
    const auto alignment = tensor.value(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT).at<int64_t>(0);
    const int64_t element = data_type(tensor) == CUDNN_DATA_FLOAT ? 4 : 2;
    if (alignment < element || (alignment & (alignment - 1)) != 0) return "an alignment that is no power of two";
    return "";
}

std::string fault_of_operation(const Operation& op) {
    if (!fits_together(op)) return "the dimensions of a convolution do not fit together";
    if (data_type(*op.image) != data_type(*op.output)) return "x and y of different types";
    const bool of_weights = op.type == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR;
    if (wide(op) && !(of_weights && data_type(*op.weights) == CUDNN_DATA_FLOAT)) return "weights of another type";
    if (op.convolution->value(CUDNN_ATTR_CONVOLUTION_COMP_TYPE).at<cudnnDataType_t>(0) != CUDNN_DATA_FLOAT)
        return "sums in another type than f32";
    if (op.convolution->value(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS).at<int64_t>(0) != 2) return "not of two dimensions";
    return "";
}

std::string fault_of_memory(const Operation& op, const void* image, const void* weights, const void* output) {
    const std::pair<const Object*, const void*> all[] = {{op.image, image}, {op.weights, weights}, {op.output, output}};
    for (const auto& [tensor, memory] : all) {
        const auto alignment = static_cast<uintptr_t>(tensor->value(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT).at<int64_t>(0));
        if (memory == nullptr || reinterpret_cast<uintptr_t>(memory) % alignment != 0)
            return "memory that is not aligned as was promised";
    }
    if (image == output || image == weights || weights == output) return "two tensors in one place";
    return "";
}

void compute(const Operation& op, void* image_memory, void* weights_memory, void* output_memory) {
    const Access image(*op.image, image_memory), weights(*op.weights, weights_memory),
        output(*op.output, output_memory);
    if (world.watch_image) {
        world.seen = all_of(image);
        return;
    }
    // Sums in double, so that a 16-bit result is rounded once.
    std::map<std::array<int64_t, 4>, double> sums;
    each_product(op, image, weights, output,
                 [&](auto n, auto k, auto oh, auto ow, auto c, auto r, auto s, auto ih, auto iw) {
                     if (op.type == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR)
                         sums[{n, k, oh, ow}] += image.get(n, c, ih, iw) * weights.get(k, c, r, s);
                     else if (op.type == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR)
                         sums[{n, c, ih, iw}] += output.get(n, k, oh, ow) * weights.get(k, c, r, s);
                     else
                         sums[{k, c, r, s}] += output.get(n, k, oh, ow) * image.get(n, c, ih, iw);
                 });
    const Access& result = op.type == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR         ? output
                           : op.type == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR ? image
                                                                                                     : weights;
    zero(result);
    for (const auto& [i, sum] : sums)
        result.put(i[0], i[1], i[2], i[3], sum);
}

}  // namespace rn50::fake
