// Sums by channel: over the rows of a block's threads, then over the tiles of a tensor (tiling.cuh).
#pragma once

#include "pack.cuh"
#include "tiling.cuh"

namespace rn50::cuda {

/// Floats between the sums of two of a thread's channels in shared memory, so that neighbouring channels of one row of
/// threads, which are n to a thread, lie in different banks.
template <int n>
constexpr int sum_stride = block_threads + 32 / n;
template <int n>
constexpr int sum_floats = 2 * n * sum_stride<n>;

/// Adds two values of each of a thread's n channels, values[i] and values[n + i], over the block's row threads and
/// hands each sum to write(kind, channel of the block, sum): neighbouring threads have neighbouring channels. All
/// threads of the block must call. sums: sum_floats<n> of shared memory.
template <int n, class Write>
__device__ void sum_over_rows(const float (&values)[2 * n], float* sums, const Write& write) {
    const int thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
    const int lanes = static_cast<int>(blockDim.x), channels = lanes * n;
#pragma unroll
    for (int i = 0; i < 2 * n; ++i)
        sums[i * sum_stride<n> + thread] = values[i];
    __syncthreads();
    for (int out = thread; out < 2 * channels; out += block_threads) {
        const int kind = out < channels ? 0 : 1, channel = out - kind * channels;
        const float* const from = sums + (kind * n + channel % n) * sum_stride<n> + channel / n;
        float sum = 0;
#pragma unroll 8
        for (int at = 0; at < block_threads; at += lanes)
            sum += from[at];
        write(kind, channel, sum);
    }
}

// Merging reads little and is all waiting: a thread has all of its tiles under way at once, and few channels to a block
// make many blocks. What it adds are sums of many rows already, some 500 of them in three short rounds, so f32 loses
// nothing that they still had; GeForce GPUs would do two f64 operations a clock on each multiprocessor.
constexpr int merge_lanes = 4, merge_rows = 64, merge_tiles = max_sum_tiles / merge_rows;
constexpr int merge_threads = merge_lanes * merge_rows, merge_floats = merge_threads / 32 * merge_lanes;

/// The sum over the block's rows of threads, for all of them, in a fixed order. All threads must call. sums:
/// merge_floats of shared memory of this call alone.
__device__ inline float merged(float value, float* sums) {
    const int thread = static_cast<int>(threadIdx.y * merge_lanes + threadIdx.x);
#pragma unroll
    for (int by = merge_lanes; by < 32; by *= 2)
        value += __shfl_xor_sync(0xFFFFFFFFu, value, by);
    if (thread % 32 < merge_lanes) sums[thread / 32 * merge_lanes + static_cast<int>(threadIdx.x)] = value;
    __syncthreads();
    float total = 0;
#pragma unroll
    for (int warp = 0; warp < merge_threads / 32; ++warp)
        total += sums[warp * merge_lanes + static_cast<int>(threadIdx.x)];
    return total;
}

inline dim3 merge_grid(int64_t channels, int norms = 1) {
    return dim3(static_cast<unsigned>(ceil_div(channels, merge_lanes)), static_cast<unsigned>(norms));
}
inline dim3 merge_block() {
    return dim3(merge_lanes, merge_rows);
}

}  // namespace rn50::cuda
