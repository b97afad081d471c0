// What the op tests share: every backend present (the CUDA backend on the emulator always) in every precision it has,
// uploads that round as the precision stores, and the distance that tolerances are about.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "naive.h"

namespace rn50::test {

using naive::Array;

/// One backend in one precision, with memory of its own.
struct Rig {
    Backend& backend;
    Precision precision;
    DType act;
    double tolerance;  ///< one op against double: relative 2-norm
    std::string name;  ///< "cpu fp32", "emulated cuda fp16, threads backward"
    Arena arena;
    Context ctx;

    Rig(Backend& on, Precision in);
    /// Prepared in the rig's precision.
    std::unique_ptr<Conv> conv(ConvDesc desc);
    std::unique_ptr<Linear> linear(LinearDesc desc);
    /// Uploads; the values must already be what the dtype can hold (see rounded()).
    Tensor put(const Array& values, DType dtype);
    /// An absent array gives an absent tensor.
    Tensor put_f32(const Array& values) { return values.empty() ? Tensor{} : put(values, DType::f32); }
    Tensor put_act(const Array& values) { return values.empty() ? Tensor{} : put(values, act); }
    Tensor put(const std::vector<int32_t>& labels);
    Tensor put(const StepState& state);
    DropoutKey key(uint64_t seed, int64_t step, int64_t first_sample);
    /// A tensor full of NaN (0xFF bytes for integers).
    Tensor rubbish(DType dtype, const Shape& shape);
    Array get(const Tensor& tensor);
    StepState get_state(const Tensor& state);
    /// The raw bytes, for comparisons bit by bit.
    std::string bytes(const Tensor& tensor);

    Norm put(const naive::Norm& norm);
    /// The raw tensor in `dtype`, act unless told.
    Activation put(const naive::Pending& pending);
    Activation put(const naive::Pending& pending, DType dtype);
    NormGradient put(const naive::NormGradient& gradient);
    /// A Norm of {channels} tensors full of NaN, for outputs.
    Norm rubbish_norm(int64_t channels);
};

/// How a GPU's convolutions are chosen: `first` is what the library's heuristics propose, `timed` is as in a run
/// (RN50_AUTOTUNE). The ops have thousands of odd shapes, whose timing would take many minutes and show nothing.
enum class Plans { first, timed };

/// Calls `body` with each backend of this build that works on this machine, in each precision with hardware behind it;
/// with the emulated backend once for each order of a block's threads.
void for_each_rig(const std::function<void(Rig&)>& body, Plans plans = Plans::first);
/// The same with fp32 alone: for ops on f32 buffers, which are the same in every precision.
void for_each_fp32_rig(const std::function<void(Rig&)>& body);

/// For whole nets: as for_each_rig with timed plans, but with the emulated backend only where RN50_EMULATE_NETS is set,
/// in one order of threads; it takes minutes.
void for_each_net_rig(const std::function<void(Rig&)>& body);

/// Calls `body` with one backend in one precision. A fault can end a GPU's context, which then answers every call with
/// the error of that one: the device is lost, and each later call of run_rig with it throws an Error that names the
/// case and the rig where that happened.
void run_rig(Backend& backend, Precision precision, const std::function<void(Rig&)>& body);

/// The values as `dtype` stores them (round to nearest even).
Array rounded(Array values, DType dtype);

/// Reproducible inputs. Each call with another `seed` gives other numbers.
Array uniform(const Shape& shape, uint64_t seed, double low = -1, double high = 1);
/// The same, rounded to `dtype`.
Array uniform(const Shape& shape, DType dtype, uint64_t seed, double low = -1, double high = 1);
Array bytes_0_255(const Shape& shape, uint64_t seed);
/// Positive and negative scales, one of them 0, positive and negative shifts, rounded to f32.
naive::Norm some_norm(int64_t channels, uint64_t seed);
naive::NormGradient some_norm_gradient(int64_t channels, uint64_t seed);

/// ‖a - b‖ / ‖b‖, or ‖a‖ where b is 0; NaN when anything is NaN, so that every comparison with it fails.
double distance(const Array& a, const Array& b);

}  // namespace rn50::test

/// `got` is within `tolerance` of `expected` in the relative 2-norm; says the distance otherwise.
#define CHECK_NEAR(got, expected, tolerance)                                \
    do {                                                                    \
        const double distance_ = ::rn50::test::distance((got), (expected)); \
        INFO("distance of " #got " from " #expected);                       \
        CHECK(distance_ <= (tolerance));                                    \
    } while (0)
