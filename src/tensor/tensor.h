// A tensor is a view: data pointer, dtype, shape. It owns nothing; an Arena does (arena.h).
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

#include "base/error.h"

namespace rn50 {

enum class DType : uint8_t { f32, f16, bf16, u8, i32, i64 };

/// Bytes of one element.
int64_t size_of(DType dtype);
/// "f32", "bf16", ...
const char* name_of(DType dtype);

/// Up to four dimensions, outermost first; pictures are {N, H, W, C}. 64-bit: 1024 px at batch 256 passes 2^31 elements.
class Shape {
  public:
    static constexpr int max_rank = 4;
    Shape() = default;
    Shape(std::initializer_list<int64_t> dims);

    int rank() const { return rank_; }
    int64_t operator[](int axis) const { return dims_[axis]; }
    /// Product of the dimensions; 1 for rank 0.
    int64_t count() const;
    bool operator==(const Shape& other) const;
    bool operator!=(const Shape& other) const { return !(*this == other); }
    /// "8x56x56x64"
    std::string str() const;

  private:
    int64_t dims_[max_rank] = {1, 1, 1, 1};
    int rank_ = 0;
};

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() { return DType::f32; }
template <>
constexpr DType dtype_of<uint8_t>() { return DType::u8; }
template <>
constexpr DType dtype_of<int32_t>() { return DType::i32; }
template <>
constexpr DType dtype_of<int64_t>() { return DType::i64; }

/// A dense view in row-major order. A default-made Tensor is absent: `if (tensor)` asks.
struct Tensor {
    void* data = nullptr;
    DType dtype = DType::f32;
    Shape shape;

    explicit operator bool() const { return data != nullptr; }
    int64_t count() const { return shape.count(); }
    int64_t bytes() const { return count() * size_of(dtype); }

    /// Typed access; throws when T is not the tensor's dtype (16-bit floats are read as uint16_t through `data`).
    template <class T>
    T* as() const {
        RN50_REQUIRE(dtype == dtype_of<T>(), "tensor of ", name_of(dtype), " read as ", name_of(dtype_of<T>()));
        return static_cast<T*>(data);
    }
    /// Entries [begin, begin + n) of the outermost dimension.
    Tensor slice(int64_t begin, int64_t n) const;
    /// The same memory under another shape of as many elements.
    Tensor reshaped(const Shape& to) const;
};

}  // namespace rn50
