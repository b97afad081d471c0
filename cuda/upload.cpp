#include "upload.h"

namespace rn50::cuda {

namespace {

/// `copied_` is where the copy stream has left the host's memory, `released_` where `compute` is done with what the
/// copies before these have brought.
class StreamUpload final : public Upload {
  public:
    explicit StreamUpload(cudaStream_t compute) : compute_(compute) {
        try {
            check(cudaStreamCreateWithFlags(&copies_, cudaStreamNonBlocking), "cudaStreamCreate");
            for (cudaEvent_t* const event : {&copied_, &released_})
                check(cudaEventCreateWithFlags(event, cudaEventDisableTiming | cudaEventBlockingSync),
                      "cudaEventCreate");
        } catch (...) {
            destroy();
            throw;
        }
    }
    ~StreamUpload() override { destroy(); }
    StreamUpload(const StreamUpload&) = delete;
    StreamUpload& operator=(const StreamUpload&) = delete;

    void begin(const void* host, const Tensor& dst) override {
        if (used_) check(cudaStreamWaitEvent(copies_, released_, 0), "cudaStreamWaitEvent");
        used_ = false;  // the stream keeps its order: once is enough for all copies of a batch
        check(cudaMemcpyAsync(dst.data, host, static_cast<size_t>(dst.bytes()), cudaMemcpyHostToDevice, copies_),
              "copy to the GPU");
        check(cudaEventRecord(copied_, copies_), "cudaEventRecord");
    }
    void use() override { check(cudaStreamWaitEvent(compute_, copied_, 0), "cudaStreamWaitEvent"); }
    void release() override {
        check(cudaEventRecord(released_, compute_), "cudaEventRecord");
        used_ = true;
    }
    void wait() override { check(cudaEventSynchronize(copied_), "copy to the GPU"); }

  private:
    /// The host's memory may go as soon as this has: so what is under way is waited for.
    void destroy() {
        if (copies_ != nullptr) cudaStreamSynchronize(copies_);
        for (const cudaEvent_t event : {copied_, released_})
            if (event != nullptr) cudaEventDestroy(event);
        if (copies_ != nullptr) cudaStreamDestroy(copies_);
    }

    cudaStream_t compute_, copies_ = nullptr;
    cudaEvent_t copied_ = nullptr, released_ = nullptr;
    bool used_ = false;
};

/// Who waits, waits for `copied_`, behind the copies, and not for what the stream was given after it.
class StreamDownload final : public Download {
  public:
    explicit StreamDownload(cudaStream_t compute) : compute_(compute) {
        check(cudaEventCreateWithFlags(&copied_, cudaEventDisableTiming | cudaEventBlockingSync), "cudaEventCreate");
    }
    /// The host's memory may go as soon as this has: so what is under way is waited for.
    ~StreamDownload() override {
        cudaEventSynchronize(copied_);
        cudaEventDestroy(copied_);
    }
    StreamDownload(const StreamDownload&) = delete;
    StreamDownload& operator=(const StreamDownload&) = delete;

    void begin(const Tensor& src, void* host) override {
        check(cudaMemcpyAsync(host, src.data, static_cast<size_t>(src.bytes()), cudaMemcpyDeviceToHost, compute_),
              "copy from the GPU");
        check(cudaEventRecord(copied_, compute_), "cudaEventRecord");
    }
    void wait() override { check(cudaEventSynchronize(copied_), "wait for the GPU"); }

  private:
    cudaStream_t compute_;
    cudaEvent_t copied_ = nullptr;
};

}  // namespace

std::unique_ptr<Upload> make_upload(cudaStream_t compute) {
    return std::make_unique<StreamUpload>(compute);
}

std::unique_ptr<Download> make_download(cudaStream_t compute) {
    return std::make_unique<StreamDownload>(compute);
}

}  // namespace rn50::cuda
