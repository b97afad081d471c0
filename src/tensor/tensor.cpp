#include "tensor/tensor.h"

namespace rn50 {

int64_t size_of(DType dtype) {
    switch (dtype) {
        case DType::f32:
        case DType::i32: return 4;
        case DType::f16:
        case DType::bf16: return 2;
        case DType::u8: return 1;
        case DType::i64: return 8;
    }
    RN50_REQUIRE(false, "unknown dtype ", static_cast<int>(dtype));
}

const char* name_of(DType dtype) {
    switch (dtype) {
        case DType::f32: return "f32";
        case DType::f16: return "f16";
        case DType::bf16: return "bf16";
        case DType::u8: return "u8";
        case DType::i32: return "i32";
        case DType::i64: return "i64";
    }
    return "?";
}

Shape::Shape(std::initializer_list<int64_t> dims) : rank_(static_cast<int>(dims.size())) {
    RN50_REQUIRE(rank_ <= max_rank, "a shape of ", rank_, " dimensions");
    int axis = 0;
    for (const int64_t dim : dims) {
        RN50_REQUIRE(dim >= 0, "a dimension of ", dim);
        dims_[axis++] = dim;
    }
}

int64_t Shape::count() const {
    return dims_[0] * dims_[1] * dims_[2] * dims_[3];
}

bool Shape::operator==(const Shape& other) const {
    if (rank_ != other.rank_) return false;
    for (int axis = 0; axis < rank_; ++axis)
        if (dims_[axis] != other.dims_[axis]) return false;
    return true;
}

std::string Shape::str() const {
    std::string text;
    for (int axis = 0; axis < rank_; ++axis) text += (axis ? "x" : "") + std::to_string(dims_[axis]);
    return rank_ ? text : "scalar";
}

Tensor Tensor::slice(int64_t begin, int64_t n) const {
    RN50_REQUIRE(shape.rank() > 0 && begin >= 0 && n >= 0 && begin + n <= shape[0], "slice [", begin, ", ", begin + n,
                 ") of ", shape.str());
    const int64_t row = shape[0] ? count() / shape[0] : 0;
    Tensor part = *this;
    part.data = static_cast<char*>(data) + begin * row * size_of(dtype);
    switch (shape.rank()) {
        case 1: part.shape = {n}; break;
        case 2: part.shape = {n, shape[1]}; break;
        case 3: part.shape = {n, shape[1], shape[2]}; break;
        default: part.shape = {n, shape[1], shape[2], shape[3]}; break;
    }
    return part;
}

Tensor Tensor::reshaped(const Shape& to) const {
    RN50_REQUIRE(to.count() == count(), "reshape of ", shape.str(), " to ", to.str());
    Tensor same = *this;
    same.shape = to;
    return same;
}

}  // namespace rn50
