#include "cli/self_test_side.h"

#include <cstring>

#include "backend/step_state.h"
#include "base/half.h"
#include "base/random.h"

namespace rn50::doctor {

namespace {

constexpr int64_t side_bytes = int64_t{32} << 20;

uint16_t narrow(float value, DType dtype) {
    return dtype == DType::bf16 ? f32_to_bf16(value) : f32_to_f16(value);
}

float widen(uint16_t bits, DType dtype) {
    return dtype == DType::bf16 ? bf16_to_f32(bits) : f16_to_f32(bits);
}

std::vector<float> grid(const Shape& shape, uint64_t seed, float scale) {
    std::vector<float> values(static_cast<size_t>(shape.count()));
    Random random(seed, 0, 0, Purpose::demo);
    for (float& value : values)
        value = (static_cast<float>(random.below(257)) - 128) / 128 * scale;
    return values;
}

}  // namespace

Side::Side(Backend& on, Precision in)
    : backend(on),
      act(activation_dtype(in)),
      tf32(in == Precision::tf32),
      arena_(on.memory(), side_bytes),
      ctx{arena_} {}

Tensor Side::input(const Shape& shape, uint64_t seed) {
    return put(grid(shape, seed, 1), act, shape);
}

Tensor Side::weights(const Shape& shape, uint64_t seed, float scale) {
    return put(grid(shape, seed, scale), DType::f32, shape);
}

Tensor Side::input_f32(const Shape& shape, uint64_t seed, double low, double high) {
    std::vector<float> values(static_cast<size_t>(shape.count()));
    Random random(seed, 0, 0, Purpose::demo);
    for (float& value : values)
        value = static_cast<float>(random.uniform(low, high));
    return put(values, DType::f32, shape);
}

Tensor Side::picture(const Shape& shape, uint64_t seed) {
    std::vector<uint8_t> bytes(static_cast<size_t>(shape.count()));
    Random random(seed, 0, 0, Purpose::demo);
    for (uint8_t& byte : bytes)
        byte = static_cast<uint8_t>(random.below(256));
    return put_bytes(bytes.data(), DType::u8, shape);
}

Tensor Side::labels(const std::vector<int32_t>& values) {
    return put_bytes(values.data(), DType::i32, {static_cast<int64_t>(values.size())});
}

Tensor Side::put(const StepState& state) {
    return put_bytes(&state, DType::u8, {static_cast<int64_t>(sizeof(StepState))});
}

Tensor Side::put(const std::vector<pixel::Changes>& changes) {
    return put_bytes(changes.data(), DType::u8, {static_cast<int64_t>(changes.size() * sizeof(pixel::Changes))});
}

Tensor Side::output(DType dtype, const Shape& shape) {
    const Tensor tensor = arena_.alloc(Use::activations, dtype, shape);
    backend.memory().fill(tensor.data, 0xFF, tensor.bytes());
    return tensor;
}

Norm Side::norm(int64_t channels, uint64_t seed) {
    const Shape shape{channels};
    return {input_f32(shape, seed, -2, 2), input_f32(shape, seed + 1, -0.5, 1), input_f32(shape, seed + 2, -1, 1),
            input_f32(shape, seed + 3, 0.5, 2), false};
}

Norm Side::output_norm(int64_t channels) {
    const Shape shape{channels};
    return {output(DType::f32, shape), output(DType::f32, shape), output(DType::f32, shape), output(DType::f32, shape),
            false};
}

void Side::give(const Tensor& tensor) {
    std::vector<char> bytes(static_cast<size_t>(tensor.bytes()));
    backend.copy_out(ctx, tensor, bytes.data());
    std::vector<double>& values = outputs.emplace_back();
    for (int64_t i = 0; i < tensor.count(); ++i) {
        const char* const element = bytes.data() + i * size_of(tensor.dtype);
        float value = 0;
        uint16_t half = 0;
        if (tensor.dtype == DType::f32) {
            std::memcpy(&value, element, sizeof value);
        } else if (tensor.dtype == DType::u8) {
            value = static_cast<uint8_t>(*element);
        } else {
            std::memcpy(&half, element, sizeof half);
            value = widen(half, tensor.dtype);
        }
        values.push_back(static_cast<double>(value));
    }
}

void Side::give(const Norm& norm) {
    for (const Tensor* part : {&norm.scale, &norm.shift, &norm.mean, &norm.inv_std})
        give(*part);
}

void Side::give_state(const Tensor& tensor) {
    StepState state;
    backend.copy_out(ctx, tensor, &state);
    for (const double value :
         {static_cast<double>(state.loss_scale), static_cast<double>(state.grad_norm),
          static_cast<double>(state.multiplier), static_cast<double>(state.skip), static_cast<double>(state.good_steps),
          static_cast<double>(state.skipped_in_row), static_cast<double>(state.skipped), static_cast<double>(state.t)})
        outputs.push_back({value});
}

Tensor Side::put(const std::vector<float>& values, DType dtype, const Shape& shape) {
    if (dtype == DType::f32) return put_bytes(values.data(), dtype, shape);
    std::vector<uint16_t> halves;
    for (const float value : values)
        halves.push_back(narrow(value, dtype));
    return put_bytes(halves.data(), dtype, shape);
}

Tensor Side::put_bytes(const void* host, DType dtype, const Shape& shape) {
    const Tensor tensor = arena_.alloc(Use::input, dtype, shape);
    backend.copy_in(ctx, host, tensor);
    backend.synchronize(ctx);
    return tensor;
}

}  // namespace rn50::doctor
