#include "op_support.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>

#include "base/random.h"
#include "cli/self_test.h"
#include "environment.h"
#include "simt_backend.h"

namespace rn50::test {

namespace {

constexpr int64_t rig_bytes = int64_t{64} << 20;

double tolerance_of(Precision precision) {
    switch (precision) {
        case Precision::fp32:
            return 1e-5;
        case Precision::tf32:
            return 1e-3;
        case Precision::fp16:
            return 2e-3;
        case Precision::bf16:
            return 1e-2;
    }
    return 0;
}

uint32_t bits_of(float v) {
    uint32_t bits;
    std::memcpy(&bits, &v, sizeof bits);
    return bits;
}

float float_of(uint32_t bits) {
    float v;
    std::memcpy(&v, &bits, sizeof v);
    return v;
}

uint16_t to_bf16(float v) {
    const uint32_t bits = bits_of(v);
    if (std::isnan(v)) return static_cast<uint16_t>(bits >> 16 | 0x40);
    return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

float from_bf16(uint16_t bits) {
    return float_of(static_cast<uint32_t>(bits) << 16);
}

float from_f16(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float sign = bits & 0x8000 ? -1.0f : 1.0f;
    if (exponent == 31) return fraction ? std::numeric_limits<float>::quiet_NaN() : sign * INFINITY;
    if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
    return sign * std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
}

uint16_t to_f16(float v) {
    const auto sign = static_cast<uint16_t>(bits_of(v) >> 16 & 0x8000);
    const float size = std::fabs(v);
    if (std::isnan(v)) return sign | 0x7E00;
    if (size >= 65520) return sign | 0x7C00;
    if (size == 0) return sign;
    int exponent = 0;
    std::frexp(size, &exponent);
    exponent = std::max(exponent, -13);  // below 2^-14 the spacing stays 2^-24
    const auto steps = static_cast<int>(std::nearbyint(std::ldexp(size, 11 - exponent)));
    // Adding lets a fraction that rounds up to 2048 carry into the exponent.
    return static_cast<uint16_t>(sign | ((exponent + 13) * 1024 + steps));
}

std::vector<Precision> precisions_of(const Backend& backend) {
    const DeviceInfo info = backend.info();
    std::vector<Precision> all{Precision::fp32};
    if (info.tf32) all.push_back(Precision::tf32);
    if (info.fp16) all.push_back(Precision::fp16);
    if (info.bf16) all.push_back(Precision::bf16);
    return all;
}

/// RN50_TEST_ON=cuda: that backend alone, without the emulator; null: all.
const char* only_kind() {
    return std::getenv("RN50_TEST_ON");
}

std::unique_ptr<Backend> make(const std::string& kind, Plans plans) {
    if (plans == Plans::timed) return make_backend(kind);
    const ScopedVariable first("RN50_AUTOTUNE", "0");
    return make_backend(kind);
}

/// Backends are made once: finding a device takes time. They are never destroyed: the end of a process takes CUDA's
/// driver down before objects that were there before it, and cuDNN's handle is not to be destroyed after that.
std::vector<Backend*> backends(Plans plans) {
    static auto& made = *new std::map<std::pair<std::string, Plans>, std::unique_ptr<Backend>>;
    std::vector<Backend*> present;
    for (const std::string& kind : backends_built_in()) {
        if (only_kind() != nullptr && kind != only_kind()) continue;
        const auto key = std::make_pair(kind, plans);
        if (!made.count(key)) {
            try {
                made[key] = make(kind, plans);
            } catch (const Error& error) {
                // The library may be built in where its device is not; the CPU has no such excuse.
                REQUIRE_MESSAGE(kind != "cpu", error.what());
                MESSAGE(kind << " is not tested: " << std::string(error.what()));
                made[key] = nullptr;
            }
        }
        if (made[key]) present.push_back(made[key].get());
    }
    REQUIRE(!present.empty());
    return present;
}

std::string current_case() {
    const doctest::TestCaseData* const running = doctest::getContextOptions()->currentTest;
    return running != nullptr ? running->m_name : "?";
}

Backend& emulated() {
    static const std::unique_ptr<Backend> backend = make_emulated_backend();
    return *backend;
}

void run_emulated(Precision precision, EmulatorOrder order, const std::function<void(Rig&)>& body) {
    Rig rig(emulated(), precision);
    rig.name = cat("emulated ", rig.name, ", threads ", name_of(order));
    INFO(rig.name);
    set_emulator_order(order);
    body(rig);
}

void run_emulated(Precision precision, const std::function<void(Rig&)>& body) {
    if (only_kind() != nullptr) return;
    for (const EmulatorOrder order : {EmulatorOrder::forward, EmulatorOrder::backward, EmulatorOrder::shuffled})
        run_emulated(precision, order, body);
}

}  // namespace

void run_rig(Backend& backend, Precision precision, const std::function<void(Rig&)>& body) {
    static std::map<const Backend*, std::string> lost;
    if (lost.count(&backend)) throw Error(Exit::device, cat("not run: the device was lost in ", lost[&backend]));
    Rig rig(backend, precision);
    INFO(rig.name);
    try {
        body(rig);
    } catch (...) {
        if (!doctor::answers(backend)) lost[&backend] = cat("\"", current_case(), "\" at ", rig.name);
        throw;
    }
}

Rig::Rig(Backend& on, Precision in)
    : backend(on),
      precision(in),
      act(activation_dtype(in)),
      tolerance(tolerance_of(in)),
      name(cat(on.info().kind, " ", name_of(in))),
      arena(on.memory(), rig_bytes),
      ctx{arena} {}

std::unique_ptr<Conv> Rig::conv(ConvDesc desc) {
    desc.tf32 = precision == Precision::tf32;
    return backend.conv(desc);
}

std::unique_ptr<Linear> Rig::linear(LinearDesc desc) {
    desc.tf32 = precision == Precision::tf32;
    return backend.linear(desc);
}

Tensor Rig::put(const Array& values, DType dtype) {
    const Tensor tensor = arena.alloc(Use::input, dtype, values.shape);
    std::string host(static_cast<size_t>(tensor.bytes()), '\0');
    for (int64_t i = 0; i < values.count(); ++i) {
        const auto v = static_cast<float>(values[i]);
        const uint16_t half = dtype == DType::f16 ? to_f16(v) : to_bf16(v);
        const auto byte = static_cast<uint8_t>(dtype == DType::u8 ? values[i] : 0);
        const void* element = dtype == DType::f32  ? static_cast<const void*>(&v)
                              : dtype == DType::u8 ? static_cast<const void*>(&byte)
                                                   : static_cast<const void*>(&half);
        std::memcpy(&host[static_cast<size_t>(i * size_of(dtype))], element, static_cast<size_t>(size_of(dtype)));
    }
    backend.copy_in(ctx, host.data(), tensor);
    backend.synchronize(ctx);
    return tensor;
}

Tensor Rig::put(const std::vector<int32_t>& labels) {
    const Tensor tensor = arena.alloc(Use::input, DType::i32, {static_cast<int64_t>(labels.size())});
    backend.copy_in(ctx, labels.data(), tensor);
    backend.synchronize(ctx);
    return tensor;
}

Tensor Rig::put(const StepState& state) {
    const Tensor tensor = arena.alloc(Use::optimizer, DType::u8, {static_cast<int64_t>(sizeof(StepState))});
    backend.copy_in(ctx, &state, tensor);
    backend.synchronize(ctx);
    return tensor;
}

DropoutKey Rig::key(uint64_t seed, int64_t step, int64_t first_sample) {
    return {seed, put(std::vector<int32_t>{static_cast<int32_t>(step)}), first_sample};
}

Tensor Rig::rubbish(DType dtype, const Shape& shape) {
    const Tensor tensor = arena.alloc(Use::activations, dtype, shape);
    backend.memory().fill(tensor.data, 0xFF, tensor.bytes());
    return tensor;
}

std::string Rig::bytes(const Tensor& tensor) {
    std::string host(static_cast<size_t>(tensor.bytes()), '\0');
    backend.copy_out(ctx, tensor, host.data());
    return host;
}

Array Rig::get(const Tensor& tensor) {
    const std::string host = bytes(tensor);
    Array values(tensor.shape);
    for (int64_t i = 0; i < values.count(); ++i) {
        const char* element = &host[static_cast<size_t>(i * size_of(tensor.dtype))];
        float v = 0;
        uint16_t half = 0;
        if (tensor.dtype == DType::f32)
            std::memcpy(&v, element, sizeof v);
        else
            std::memcpy(&half, element, sizeof half);
        if (tensor.dtype == DType::f16) v = from_f16(half);
        if (tensor.dtype == DType::bf16) v = from_bf16(half);
        values[i] = static_cast<double>(v);
    }
    return values;
}

StepState Rig::get_state(const Tensor& state) {
    StepState host;
    backend.copy_out(ctx, state, &host);
    return host;
}

Norm Rig::put(const naive::Norm& norm) {
    if (norm.scale.empty()) return {};
    return {put_f32(norm.scale), put_f32(norm.shift), put_f32(norm.mean), put_f32(norm.inv_std), norm.frozen};
}

Activation Rig::put(const naive::Pending& pending) {
    return put(pending, act);
}

Activation Rig::put(const naive::Pending& pending, DType dtype) {
    if (pending.raw.empty()) return {};
    return {put(pending.raw, dtype), put(pending.norm), pending.relu};
}

NormGradient Rig::put(const naive::NormGradient& gradient) {
    return {put_f32(gradient.factor), put_f32(gradient.mean_dz), put_f32(gradient.slope), put_f32(gradient.mean)};
}

Norm Rig::rubbish_norm(int64_t channels) {
    return {rubbish(DType::f32, {channels}), rubbish(DType::f32, {channels}), rubbish(DType::f32, {channels}),
            rubbish(DType::f32, {channels}), false};
}

void for_each_rig(const std::function<void(Rig&)>& body, Plans plans) {
    for (Backend* backend : backends(plans))
        for (const Precision precision : precisions_of(*backend))
            run_rig(*backend, precision, body);
    for (const Precision precision : precisions_of(emulated()))
        run_emulated(precision, body);
}

void for_each_net_rig(const std::function<void(Rig&)>& body) {
    for (Backend* backend : backends(Plans::timed))
        for (const Precision precision : precisions_of(*backend))
            run_rig(*backend, precision, body);
    if (std::getenv("RN50_EMULATE_NETS") == nullptr) return;
    for (const Precision precision : precisions_of(emulated()))
        run_emulated(precision, EmulatorOrder::shuffled, body);
}

void for_each_fp32_rig(const std::function<void(Rig&)>& body) {
    for (Backend* backend : backends(Plans::first))
        run_rig(*backend, Precision::fp32, body);
    run_emulated(Precision::fp32, body);
}

Array rounded(Array values, DType dtype) {
    for (double& value : values.values) {
        const auto v = static_cast<float>(value);
        value = static_cast<double>(dtype == DType::f16    ? from_f16(to_f16(v))
                                    : dtype == DType::bf16 ? from_bf16(to_bf16(v))
                                                           : v);
    }
    return values;
}

Array uniform(const Shape& shape, uint64_t seed, double low, double high) {
    Array values(shape);
    Random random(seed, 0, 0, Purpose::demo);
    for (double& v : values.values)
        v = static_cast<double>(static_cast<float>(random.uniform(low, high)));
    return values;
}

Array uniform(const Shape& shape, DType dtype, uint64_t seed, double low, double high) {
    return rounded(uniform(shape, seed, low, high), dtype);
}

Array bytes_0_255(const Shape& shape, uint64_t seed) {
    Array values(shape);
    Random random(seed, 0, 0, Purpose::demo);
    for (double& v : values.values)
        v = static_cast<double>(random.below(256));
    return values;
}

naive::Norm some_norm(int64_t channels, uint64_t seed) {
    const Shape shape{channels};
    naive::Norm norm{uniform(shape, seed + 1, -2, 2), uniform(shape, seed + 2, -0.5, 1), uniform(shape, seed + 3),
                     uniform(shape, seed + 4, 0.5, 2), false};
    if (channels > 2) norm.scale[channels / 2] = 0;  // gamma = 0: the channel is its shift everywhere
    return norm;
}

naive::NormGradient some_norm_gradient(int64_t channels, uint64_t seed) {
    const Shape shape{channels};
    return {uniform(shape, seed + 1, -2, 2), uniform(shape, seed + 2, -0.3, 0.3), uniform(shape, seed + 3, -0.3, 0.3),
            uniform(shape, seed + 4)};
}

double distance(const Array& a, const Array& b) {
    REQUIRE(a.shape == b.shape);
    double difference = 0, size = 0;
    for (int64_t i = 0; i < a.count(); ++i) {
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        size += b[i] * b[i];
    }
    return std::sqrt(size > 0 ? difference / size : difference);
}

}  // namespace rn50::test
