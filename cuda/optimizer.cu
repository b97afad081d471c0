// The optimizer step: two launches look at all gradients, one updates all parameters.
#include "optimizer.h"

#include "backend/step_state.h"
#include "cuda_backend.h"
#include "pack.cuh"
#include "tiling.cuh"

namespace rn50::cuda {

namespace {

/// The sum of `value` over the block's 256 threads, in a fixed order; valid in thread 0. All threads must call.
__device__ double block_sum(double value, double* shared) {
    for (int by = 16; by > 0; by /= 2)
        value += __shfl_xor_sync(0xFFFFFFFFu, value, by);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
    double total = 0;
    if (threadIdx.x == 0)
        for (int warp = 0; warp < block_threads / 32; ++warp)
            total += shared[warp];
    return total;
}

/// sums {blocks} = sum of squares of each block's part. In f64: the squares of gradients times a large loss scale pass
/// f32's range though the gradients do not. Reads 4 bytes a parameter.
__global__ void __launch_bounds__(block_threads, 4)
    sum_squares_kernel(const float* __restrict__ gradients, int64_t count, double* __restrict__ sums) {
    RN50_SHARED(double, shared, block_threads / 32);
    const int64_t packs = count / 4, first = int64_t{blockIdx.x} * block_threads + threadIdx.x;
    double sum = 0;
    const auto add = [&](float g) { sum += static_cast<double>(g) * static_cast<double>(g); };
    for_rows(
        Steps{first, packs, int64_t{gridDim.x} * block_threads},
        [&](int64_t pack) { return load_pack<4>(gradients + pack * 4); },
        [&](int64_t, const Pack<float, 4>& read) {
#pragma unroll
            for (int k = 0; k < 4; ++k)
                add(read.v[k]);
        });
    if (packs * 4 + first < count) add(gradients[packs * 4 + first]);
    const double total = block_sum(sum, shared);
    if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

/// One block: the whole sum, and what it means for the step.
__global__ void __launch_bounds__(block_threads)
    advance_kernel(const double* __restrict__ sums, int count, const float* divisor, float clip_norm,
                   ScalePolicy policy, StepState* state) {
    RN50_SHARED(double, shared, block_threads / 32);
    double sum = 0;
    for (int i = static_cast<int>(threadIdx.x); i < count; i += block_threads)
        sum += sums[i];
    const double total = block_sum(sum, shared);
    if (threadIdx.x != 0) return;
    const double factor = divisor != nullptr ? 1.0 / static_cast<double>(*divisor) : 1.0;
    advance(*state, total, factor, clip_norm, policy);
}

struct Adam {
    float beta1, beta2, eps, weight_decay;
};

template <int n>
__device__ void adamw_pack(const Adam& adam, const StepState& s, float decay, float correction1, float correction2,
                           float* p, const float* g, float* m, float* v) {
    float w[n], d[n], first[n], second[n];
    load(p, w);
    load(g, d);
    load(m, first);
    load(v, second);
#pragma unroll
    for (int i = 0; i < n; ++i) {
        const float gradient = d[i] * s.multiplier;
        first[i] += (gradient - first[i]) * (1.0f - adam.beta1);
        second[i] = second[i] * adam.beta2 + gradient * gradient * (1.0f - adam.beta2);
        const float denominator = sqrtf(second[i]) / correction2 + adam.eps;
        w[i] = w[i] * (1.0f - decay) - first[i] / denominator * (s.lr / correction1);
    }
    store(m, first);
    store(v, second);
    store(p, w);
}

/// Reads 16 and writes 12 bytes a parameter.
__global__ void __launch_bounds__(block_threads)
    adamw_kernel(Adam adam, const Piece* __restrict__ pieces, float* p, const float* g, float* m, float* v,
                 const StepState* state) {
    RN50_SHARED(float, corrections, 2);
    const StepState s = *state;
    if (s.skip) return;
    if (threadIdx.x == 0) {  // by one thread: f64 powers are slow
        const double t = static_cast<double>(s.t);
        corrections[0] = static_cast<float>(1.0 - pow(static_cast<double>(adam.beta1), t));
        corrections[1] = static_cast<float>(sqrt(1.0 - pow(static_cast<double>(adam.beta2), t)));
    }
    __syncthreads();
    const float correction1 = corrections[0], correction2 = corrections[1];
    const Piece piece = pieces[blockIdx.x];
    const float decay = piece.decay ? s.lr * adam.weight_decay : 0.0f;
    const bool whole = piece.begin % 4 == 0;
    const int packed = whole ? piece.count / 4 * 4 : 0;
    for (int i = static_cast<int>(threadIdx.x) * 4; i < packed; i += block_threads * 4) {
        const int64_t at = piece.begin + i;
        adamw_pack<4>(adam, s, decay, correction1, correction2, p + at, g + at, m + at, v + at);
    }
    for (int i = packed + static_cast<int>(threadIdx.x); i < piece.count; i += block_threads) {
        const int64_t at = piece.begin + i;
        adamw_pack<1>(adam, s, decay, correction1, correction2, p + at, g + at, m + at, v + at);
    }
}

struct Sgd {
    float weight_decay, momentum;
    bool nesterov;
};

template <int n>
__device__ void sgd_pack(const Sgd& sgd, const StepState& s, float decay, float* p, const float* g, float* buffer) {
    float w[n], d[n], b[n] = {};
    load(p, w);
    load(g, d);
    if (s.t > 1) load(buffer, b);
#pragma unroll
    for (int i = 0; i < n; ++i) {
        const float gradient = d[i] * s.multiplier + w[i] * decay;
        b[i] = s.t > 1 ? b[i] * sgd.momentum + gradient : gradient;
        w[i] -= (sgd.nesterov ? gradient + b[i] * sgd.momentum : b[i]) * s.lr;
    }
    store(buffer, b);
    store(p, w);
}

/// Reads 12 and writes 8 bytes a parameter.
__global__ void __launch_bounds__(block_threads) sgd_kernel(Sgd sgd, const Piece* __restrict__ pieces, float* p,
                                                            const float* g, float* buffer, const StepState* state) {
    const StepState s = *state;
    if (s.skip) return;
    const Piece piece = pieces[blockIdx.x];
    const float decay = piece.decay ? sgd.weight_decay : 0.0f;
    const int packed = piece.begin % 4 == 0 ? piece.count / 4 * 4 : 0;
    for (int i = static_cast<int>(threadIdx.x) * 4; i < packed; i += block_threads * 4)
        sgd_pack<4>(sgd, s, decay, p + piece.begin + i, g + piece.begin + i, buffer + piece.begin + i);
    for (int i = packed + static_cast<int>(threadIdx.x); i < piece.count; i += block_threads)
        sgd_pack<1>(sgd, s, decay, p + piece.begin + i, g + piece.begin + i, buffer + piece.begin + i);
}

}  // namespace

int64_t CudaBackend::optimizer_table_bytes(const OptimizerDesc& desc) const {
    int64_t pieces = 0;
    for (const ParameterRange& range : desc.ranges)
        pieces += ceil_div(range.end - range.begin, piece_elements);
    return pieces * int64_t{sizeof(Piece)};
}

void CudaBackend::do_prepare_optimizer(const OptimizerDesc& desc, const Tensor& table) {
    std::vector<Piece> pieces;
    for (const ParameterRange& range : desc.ranges)
        for (int64_t begin = range.begin; begin < range.end; begin += piece_elements)
            pieces.push_back({begin, static_cast<int32_t>(std::min(piece_elements, range.end - begin)), range.decay});
    do_copy_in(pieces.data(), table);
    do_synchronize();
}

int64_t CudaBackend::gradients_workspace_bytes() const {
    return gradient_sums * int64_t{sizeof(double)};
}

void CudaBackend::do_check_gradients(const Tensor& gradients, float clip_norm, const ScalePolicy& policy,
                                     const Tensor& divisor, const Tensor& state, const Tensor& workspace) {
    auto* const sums = static_cast<double*>(workspace.data);
    const int64_t count = gradients.count();
    const int blocks = static_cast<int>(std::min<int64_t>(ceil_div(count, block_threads * 4), gradient_sums));
    launch<sum_squares_kernel>(dim3(static_cast<unsigned>(blocks)), dim3(block_threads), stream_, gradients.as<float>(),
                               count, sums);
    launch<advance_kernel>(dim3(1), dim3(block_threads), stream_, sums, blocks,
                           divisor ? divisor.as<float>() : nullptr, clip_norm, policy,
                           static_cast<StepState*>(state.data));
}

void CudaBackend::do_optimize(const OptimizerDesc& desc, const Tensor& parameters, const Tensor& gradients,
                              const Tensor& moment1, const Tensor& moment2, const Tensor& state, const Tensor& table) {
    if (table.bytes() == 0) return;
    const auto* const pieces = static_cast<const Piece*>(table.data);
    const dim3 grid(static_cast<unsigned>(table.bytes() / int64_t{sizeof(Piece)})), block(block_threads);
    const auto* const step = static_cast<const StepState*>(state.data);
    if (desc.kind == OptimizerDesc::Kind::adamw)
        launch<adamw_kernel>(grid, block, stream_, Adam{desc.beta1, desc.beta2, desc.eps, desc.weight_decay},
                             pieces, parameters.as<float>(), gradients.as<float>(), moment1.as<float>(),
                             moment2.as<float>(), step);
    else
        launch<sgd_kernel>(grid, block, stream_, Sgd{desc.weight_decay, desc.momentum, desc.nesterov}, pieces,
                           parameters.as<float>(), gradients.as<float>(), moment1.as<float>(), step);
}

}  // namespace rn50::cuda
