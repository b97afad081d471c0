#include "cuda_backend.h"
#include "layout.h"

#include <cstring>

#include "augment.h"
#include "conv.h"
#include "ledger.h"
#include "linear.h"
#include "picture_decoders.h"
#include "recording.h"
#include "upload.h"

namespace rn50::cuda {

namespace {

/// Of an allocation that did not succeed. Only one status means that there is no room: a lost GPU gives nothing either.
void require_memory(cudaError_t status, const char* call, const std::string& lacking, const std::string& remedy) {
    if (status != cudaErrorMemoryAllocation) return check(status, call);
    cudaGetLastError();  // else the next launch would return it once more
    throw Error(Exit::device, lacking, remedy);
}

/// The plan was held against the free memory before anything was taken.
std::string room_on_gpu(int64_t bytes) {
    size_t free = 0, total = 0;
    const std::string lacking = cat("no room for ", bytes >> 20, " MiB of GPU memory");
    if (cudaMemGetInfo(&free, &total) != cudaSuccess) {
        cudaGetLastError();
        return lacking;
    }
    return cat(lacking, ": ", free >> 20, " of ", total >> 20, " MiB are free");
}

class DeviceMemory final : public Memory {
  public:
    void* allocate(int64_t bytes) override {
        void* data = nullptr;
        const cudaError_t status = ledger().take(Taken::tensors, &data, bytes);
        if (status != cudaSuccess)
            require_memory(status, "cudaMalloc", room_on_gpu(bytes),
                           "another program has probably taken memory of this GPU since the plan was made: nvidia-smi "
                           "shows which; end it, or use a smaller --batch-size or --image-size, or --memory lean");
        return data;
    }
    void release(void* data, int64_t) override { ledger().give_back(data); }
    /// Waits for the device before and after: what is queued may still use the memory, and what comes must see the
    /// value.
    void fill(void* data, int value, int64_t bytes) override {
        check(cudaDeviceSynchronize(), "wait for the GPU");
        check(cudaMemset(data, value, static_cast<size_t>(bytes)), "cudaMemset");
        check(cudaDeviceSynchronize(), "wait for the GPU");
    }
};

/// Pinned: the device reads it while the host goes on.
class PinnedMemory final : public Memory {
  public:
    void* allocate(int64_t bytes) override {
        void* data = nullptr;
        const cudaError_t status = cudaMallocHost(&data, static_cast<size_t>(bytes));
        if (status != cudaSuccess)
            require_memory(status, "cudaMallocHost", cat("no room for ", bytes >> 20, " MiB of pinned host memory"),
                           "free memory of the machine (`free -m`), or use fewer --workers or a smaller --batch-size");
        return data;
    }
    void release(void* data, int64_t) override { cudaFreeHost(data); }
    void fill(void* data, int value, int64_t bytes) override { std::memset(data, value, static_cast<size_t>(bytes)); }
};

int64_t free_memory() {
    size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return static_cast<int64_t>(free);
}

DeviceInfo describe(int device) {
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
    DeviceInfo info;
    info.kind = "cuda";
    info.name = properties.name;
    info.fp16 = properties.major >= 7;
    info.bf16 = info.tf32 = properties.major >= 8;
    return info;
}

}  // namespace

CudaBackend::CudaBackend(int device, DriverMeter meter, int64_t free_before)
    : device_(device), meter_(std::move(meter)), free_before_(free_before) {
    check(cudaSetDevice(device), "cudaSetDevice");
    if (!meter_) free_before_ = free_memory();
    // Who waits for the GPU sleeps, for some microseconds longer, and leaves the core to those who load pictures. Old
    // drivers take no such wish once the device is in use: then waiting takes a core, and nothing else is different.
    if (cudaSetDeviceFlags(cudaDeviceScheduleBlockingSync) != cudaSuccess) cudaGetLastError();
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    products_ = make_products(stream_);
    info_ = describe(device);
    info_.library = products_->name();
}

CudaBackend::~CudaBackend() {
    products_.reset();
    cudaStreamDestroy(stream_);
}

DeviceInfo CudaBackend::info() const {
    size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    DeviceInfo now = info_;
    now.total_memory = static_cast<int64_t>(total);
    now.free_memory = static_cast<int64_t>(free);
    return now;
}

MemoryTaken CudaBackend::memory_taken() const {
    const int64_t gone = free_before_ - (meter_ ? meter_() : free_memory());
    return {
        ledger().beside_tensors(),
        {meter_ ? "CUDA context and libraries" : "CUDA's libraries", std::max<int64_t>(0, gone - ledger().total())}};
}

Memory& CudaBackend::memory() {
    static DeviceMemory the_memory;
    return the_memory;
}

Memory& CudaBackend::host_memory() {
    static PinnedMemory the_memory;
    return the_memory;
}

std::unique_ptr<Conv> CudaBackend::conv(const ConvDesc& desc) {
    if ((desc.dtype == DType::f16 && !info_.fp16) || (desc.dtype == DType::bf16 && !info_.bf16) ||
        (desc.tf32 && !info_.tf32))
        throw Error(Exit::device, cat(info_.name, " has no arithmetic in ", desc.tf32 ? "tf32" : name_of(desc.dtype)),
                    info_.fp16 ? "use --precision fp16 or fp32" : "use --precision fp32");
    return std::make_unique<CudaConv>(desc, *products_, stream_);
}

std::unique_ptr<Linear> CudaBackend::linear(const LinearDesc& desc) {
    return std::make_unique<CudaLinear>(desc, *products_, stream_);
}

std::unique_ptr<PictureDecoders> CudaBackend::picture_decoders(std::string& why) {
    return make_picture_decoders(device_, why);
}

std::unique_ptr<Upload> CudaBackend::upload() {
    return make_upload(stream_);
}

std::unique_ptr<Download> CudaBackend::download() {
    return make_download(stream_);
}

std::unique_ptr<Recording> CudaBackend::record(const std::function<void()>& work, std::string& why) {
    return record_graph(stream_, work, why);
}

int64_t CudaBackend::augment_workspace_bytes(int64_t pictures) const {
    return pictures * int64_t{sizeof(int64_t)};
}

void CudaBackend::do_augment(const Tensor& src, const Tensor& changes, const Tensor& dst, const Tensor& workspace) {
    augment_pictures(stream_, src.as<uint8_t>(), static_cast<const pixel::Changes*>(changes.data),
                     static_cast<int64_t*>(workspace.data), dst.as<uint8_t>(), src.shape[0], src.shape[1],
                     static_cast<int>(src.shape[3]));
}

void CudaBackend::do_zero(const Tensor& dst) {
    check(cudaMemsetAsync(dst.data, 0, static_cast<size_t>(dst.bytes()), stream_), "cudaMemset");
}

void CudaBackend::do_convert(const Tensor& src, const Tensor& dst) {
    copy_matrix(stream_, {src.data, src.dtype, 1, src.count()}, {dst.data, dst.dtype, 1, dst.count()});
}

void CudaBackend::do_copy_in(const void* host, const Tensor& dst) {
    check(cudaMemcpyAsync(dst.data, host, static_cast<size_t>(dst.bytes()), cudaMemcpyHostToDevice, stream_),
          "copy to the GPU");
}

void CudaBackend::do_copy_out(const Tensor& src, void* host) {
    check(cudaMemcpyAsync(host, src.data, static_cast<size_t>(src.bytes()), cudaMemcpyDeviceToHost, stream_),
          "copy from the GPU");
    do_synchronize();
}

void CudaBackend::do_synchronize() {
    check(cudaStreamSynchronize(stream_), "wait for the GPU");
}

}  // namespace rn50::cuda
