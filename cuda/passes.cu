// The passes over memory around the products of convolutions, each alone, for `rn50 bench kernels`.
#include "cuda_backend.h"
#include "tiles.h"

namespace rn50::cuda {

namespace {

int64_t rows_of(const Tensor& tensor) {
    return tensor.count() / tensor.shape[3];
}

/// As leave_gradient says: what serves twice is read once.
int64_t leave_bytes(const Tensor& g, const DiffSrc& target) {
    const bool clips = target.at.relu;
    int64_t bytes = g.bytes() + target.diff.bytes() * (target.write == Write::add ? 2 : 1);
    if (clips) bytes += target.at.raw.bytes();
    for (const NormSums& norm : target.norms)
        if (norm && !(clips && norm.raw.data == target.at.raw.data)) bytes += norm.raw.bytes();
    return bytes;
}

}  // namespace

std::vector<Pass> CudaBackend::passes(const PassTensors& t) {
    std::vector<Pass> all;
    const auto add = [&](const char* name, int64_t bytes, int64_t workspace, std::function<void(void*)> run) {
        all.push_back({name, bytes, [workspace, run = std::move(run)](Context& ctx) {
                           const Scratch scratch(ctx.arena, DType::u8, {workspace});
                           if (!ctx.dry) run(scratch.tensor().data);
                       }});
    };
    const Tensor& raw = t.src.raw;
    if (raw && t.dst && raw.bytes() == t.dst.bytes())
        add("copy", 2 * raw.bytes(), 0, [this, t](void*) {
            check(cudaMemcpyAsync(t.dst.data, t.src.raw.data, static_cast<size_t>(t.dst.bytes()),
                                  cudaMemcpyDeviceToDevice, stream_),
                  "copy within the GPU");
        });
    if (raw && t.dst)
        add("apply", raw.bytes() + t.dst.bytes(), 0,
            [this, t](void*) { apply_pending(stream_, t.src, t.dst.data, t.dst.dtype, t.dst.shape[3]); });
    if (raw && t.stats)
        add("statistics", raw.bytes(), stats_workspace_bytes(rows_of(raw), raw.shape[3]), [this, t](void* workspace) {
            const Tensor& data = t.src.raw;
            gather_stats(stream_, data.data, data.dtype, rows_of(data), data.shape[3], workspace, t.stats);
        });
    if (t.diff_dst.dz && t.d_raw)
        add("norm gradient", 2 * t.diff_dst.dz.bytes() + t.d_raw.bytes(), 0,
            [this, t](void*) { norm_gradient(stream_, t.diff_dst, t.d_raw.data, t.d_raw.shape[3]); });
    if (t.g && t.diff_src.diff)
        add("leave gradient", leave_bytes(t.g, t.diff_src), leave_workspace_bytes(rows_of(t.g), t.g.shape[3]),
            [this, t](void* workspace) {
                leave_gradient(stream_, PlainGradient{t.g.data, t.g.shape[3]}, t.diff_src, workspace);
            });
    return all;
}

}  // namespace rn50::cuda
