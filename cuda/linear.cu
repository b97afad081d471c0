#include "linear.h"

#include "affine.cuh"
#include "backend/carver.h"
#include "layout.h"
#include "tiling.cuh"

namespace rn50::cuda {

namespace {

/// dst {N, K} = bias {K} in each row. Writes 4 bytes an element.
__global__ void __launch_bounds__(block_threads)
    fill_rows_kernel(const float* __restrict__ bias, float* __restrict__ dst, int64_t count, int64_t channels) {
    const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i < count) dst[i] = bias[i % channels];
}

constexpr int column_rows = 8;

/// dst {K} = or += the sum over N of src {N, K}; a block takes 32 columns. Reads 4 bytes an element.
__global__ void __launch_bounds__(32 * column_rows)
    sum_columns_kernel(const float* __restrict__ src, float* __restrict__ dst, int64_t rows, int64_t columns,
                       bool add) {
    RN50_SHARED(float, sums, 32 * column_rows);
    const int64_t column = int64_t{blockIdx.x} * 32 + threadIdx.x;
    float sum = 0;
    if (column < columns)
        for (int64_t row = threadIdx.y; row < rows; row += column_rows)
            sum += src[row * columns + column];
    sums[threadIdx.y * 32 + threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || column >= columns) return;
    float total = add ? dst[column] : 0.0f;
    for (int y = 0; y < column_rows; ++y)
        total += sums[y * 32 + static_cast<int>(threadIdx.x)];
    dst[column] = total;
}

}  // namespace

struct CudaLinear::Work {
    void *weights, *diff_dst, *library;
    Work(const CudaLinear& linear, Carver& carver) {
        const LinearDesc& d = linear.desc();
        const int64_t size = d.dtype == DType::f32 ? 0 : size_of(d.dtype);
        weights = carver.take(d.out_features * d.in_features * size);
        diff_dst = carver.take(d.batch * d.out_features * size);
        library = carver.take(linear.library_workspace_bytes());
    }
};

int64_t CudaLinear::workspace_bytes() const {
    Carver carver;
    Work(*this, carver);
    return carver.used();
}

int64_t CudaLinear::library_workspace_bytes() const {
    return align_up(products_.gemm_workspace_bytes(), Arena::alignment);
}

const void* CudaLinear::rounded(const Tensor& tensor, void* scratch) {
    if (desc().dtype == DType::f32) return tensor.data;
    const Matrix from{tensor.data, DType::f32, 1, tensor.count()};
    copy_matrix(stream_, from, {scratch, desc().dtype, 1, tensor.count()});
    return scratch;
}

GemmShape CudaLinear::product(int64_t m, int64_t n, int64_t k) const {
    GemmShape shape;
    shape.m = m;
    shape.n = n;
    shape.k = k;
    shape.ab = desc().dtype;
    shape.tf32 = desc().tf32;
    return shape;
}

void CudaLinear::do_forward(const Tensor& src, const Tensor& weights, const Tensor& bias, const Tensor& dst,
                            const Tensor& workspace) {
    Carver carver(workspace.data);
    const Work work(*this, carver);
    launch<fill_rows_kernel>(grid_of(dst.count()), dim3(block_threads), stream_, bias.as<float>(), dst.as<float>(),
                             dst.count(), desc().out_features);
    GemmShape shape = product(src.shape[0], desc().out_features, desc().in_features);
    shape.transpose_b = true;
    products_.gemm(shape, src.data, rounded(weights, work.weights), 1.0f, dst.data, work.library);
}

void CudaLinear::do_backward(const Tensor& src, const Tensor& weights, const Tensor& diff_dst, const Tensor& diff_src,
                             const Tensor& diff_weights, const Tensor& diff_bias, Write write_weights,
                             const Tensor& workspace) {
    Carver carver(workspace.data);
    const Work work(*this, carver);
    const int64_t n = src.shape[0], in = desc().in_features, out = desc().out_features;
    const bool add = write_weights == Write::add;
    const void* const d = rounded(diff_dst, work.diff_dst);

    GemmShape for_weights = product(out, in, n);
    for_weights.transpose_a = true;
    products_.gemm(for_weights, d, src.data, add ? 1.0f : 0.0f, diff_weights.data, work.library);

    launch<sum_columns_kernel>(dim3(static_cast<unsigned>(ceil_div(out, 32))), dim3(32, column_rows), stream_,
                               diff_dst.as<float>(), diff_bias.as<float>(), n, out, add);

    GemmShape for_src = product(n, in, out);
    for_src.c = desc().dtype;
    products_.gemm(for_src, d, rounded(weights, work.weights), 0.0f, diff_src.data, work.library);
}

}  // namespace rn50::cuda
