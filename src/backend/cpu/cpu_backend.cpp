#include "backend/cpu/cpu_backend.h"

#include <omp.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "backend/cpu/conv.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/linear.h"
#include "base/machine.h"
#include "base/math.h"
#include "base/pixel_ops.h"

namespace rn50::cpu {

namespace {

/// Host memory: large blocks straight from the system, on huge pages where it has them; small ones from the heap, where
/// memory checkers see their ends.
class Heap final : public Memory {
  public:
    void* allocate(int64_t bytes) override {
        const size_t size = static_cast<size_t>(align_up(bytes, Arena::alignment));
        void* data = nullptr;
        if (bytes >= large) {
            data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (data == MAP_FAILED) data = nullptr;
            if (data) madvise(data, size, MADV_HUGEPAGE);
        } else if (posix_memalign(&data, Arena::alignment, size) != 0) {
            data = nullptr;
        }
        if (!data)
            throw Error(Exit::device, cat("no room for ", bytes >> 20, " MiB of memory"),
                        "use a smaller --batch-size or --image-size, or --memory lean");
        return data;
    }
    void release(void* data, int64_t bytes) override {
        if (bytes >= large)
            munmap(data, static_cast<size_t>(align_up(bytes, Arena::alignment)));
        else
            std::free(data);
    }
    void fill(void* data, int value, int64_t bytes) override { std::memset(data, value, static_cast<size_t>(bytes)); }

  private:
    static constexpr int64_t large = 64 << 20;
};

class PlainUpload final : public Upload {
  public:
    void begin(const void* host, const Tensor& dst) override {
        std::memcpy(dst.data, host, static_cast<size_t>(dst.bytes()));
    }
    void use() override {}
    void release() override {}
    void wait() override {}
};

class PlainDownload final : public Download {
  public:
    void begin(const Tensor& src, void* host) override {
        std::memcpy(host, src.data, static_cast<size_t>(src.bytes()));
    }
    void wait() override {}
};

std::string processor_name() {
    std::ifstream in("/proc/cpuinfo");
    for (std::string line; std::getline(in, line);)
        if (line.compare(0, 10, "model name") == 0) return line.substr(line.find(':') + 2);
    return "unknown processor";
}

}  // namespace

bool has_bf16() {
    return dnnl::get_effective_cpu_isa() >= dnnl::cpu_isa::avx512_core_bf16;
}

CpuBackend::CpuBackend(int threads) : threads_(threads) {
    omp_set_dynamic(0);
    omp_set_num_threads(threads);
}

DeviceInfo CpuBackend::info() const {
    DeviceInfo info;
    info.kind = "cpu";
    info.name = processor_name();
    const dnnl_version_t* version = dnnl_version();
    info.library = cat("oneDNN ", version->major, ".", version->minor, ".", version->patch);
    info.threads = threads_;
    const rn50::HostMemory host = memory_of_process();
    info.total_memory = host.total;
    info.free_memory = host.usable();
    info.bf16 = has_bf16();
    return info;
}

Memory& CpuBackend::memory() {
    static Heap the_memory;
    return the_memory;
}

Memory& CpuBackend::host_memory() {
    return memory();
}

std::unique_ptr<Conv> CpuBackend::conv(const ConvDesc& desc) {
    if (desc.dtype == DType::f16)
        throw Error(Exit::device, "fp16 is not trained on a CPU", "use --precision fp32, or bf16 where the CPU has it");
    if (desc.dtype == DType::bf16 && !has_bf16())
        throw Error(Exit::device, "this CPU has no bf16 arithmetic (AVX512_BF16 or AMX)", "use --precision fp32");
    return std::make_unique<CpuConv>(desc);
}

std::unique_ptr<Linear> CpuBackend::linear(const LinearDesc& desc) {
    return std::make_unique<CpuLinear>(desc);
}

std::vector<Pass> CpuBackend::passes(const PassTensors& tensors) {
    const Tensor from = tensors.src.raw, to = tensors.dst;
    if (!from || !to || from.bytes() != to.bytes()) return {};
    return {{"copy", 2 * from.bytes(), [from, to](Context& ctx) {
                 constexpr int64_t piece = 128 << 10;
                 const int64_t bytes = ctx.dry ? 0 : from.bytes();
#pragma omp parallel for schedule(static)
                 for (int64_t at = 0; at < bytes; at += piece)
                     std::memcpy(static_cast<char*>(to.data) + at, static_cast<const char*>(from.data) + at,
                                 static_cast<size_t>(std::min(piece, bytes - at)));
             }}};
}

std::unique_ptr<Upload> CpuBackend::upload() {
    return std::make_unique<PlainUpload>();
}

std::unique_ptr<Download> CpuBackend::download() {
    return std::make_unique<PlainDownload>();
}

int64_t CpuBackend::augment_workspace_bytes(int64_t) const {
    return 0;
}

void CpuBackend::do_augment(const Tensor& src, const Tensor& changes, const Tensor& dst, const Tensor&) {
    const int64_t size = src.shape[1], bytes = src.bytes() / src.shape[0];
    const auto channels = static_cast<int>(src.shape[3]);
#pragma omp parallel
    {
        std::vector<uint8_t> scratch;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < src.shape[0]; ++i) {
            const pixel::Changes& change = static_cast<const pixel::Changes*>(changes.data)[i];
            uint8_t* const picture = dst.as<uint8_t>() + i * bytes;
            std::memcpy(picture, src.as<uint8_t>() + i * bytes, static_cast<size_t>(bytes));
            pixel::turn(change, picture, size, channels, scratch);
            pixel::jitter(change, picture, size, channels);
            pixel::erase(change, picture, size, channels);
        }
    }
}

void CpuBackend::do_zero(const Tensor& dst) {
    std::memset(dst.data, 0, static_cast<size_t>(dst.bytes()));
}

void CpuBackend::do_copy_in(const void* host, const Tensor& dst) {
    std::memcpy(dst.data, host, static_cast<size_t>(dst.bytes()));
}

void CpuBackend::do_copy_out(const Tensor& src, void* host) {
    std::memcpy(host, src.data, static_cast<size_t>(src.bytes()));
}

}  // namespace rn50::cpu
