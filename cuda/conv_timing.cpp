#include "conv_timing.h"

#include <algorithm>

#include "base/error.h"
#include "base/random.h"
#include "ledger.h"

namespace rn50::cuda {

namespace {

class Event {
  public:
    Event() { check(cudaEventCreate(&event_), "cudaEventCreate"); }
    ~Event() { cudaEventDestroy(event_); }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    cudaEvent_t raw() const { return event_; }

  private:
    cudaEvent_t event_ = nullptr;
};

/// A block of numbers as tensors hold them: of both signs, 2^-5 to 2^-3, the bits of their fractions by chance.
std::vector<uint16_t> some_numbers(DType dtype) {
    std::vector<uint16_t> halves(size_t{1} << 19);
    for (size_t i = 0; i < halves.size(); i += 8) {
        const auto words = philox({static_cast<uint32_t>(i), 0, 0, 0}, {0, 0});
        for (size_t k = 0; k < 8; ++k) {
            const auto half = static_cast<uint16_t>(words[k / 2] >> 16 * (k % 2));
            if (dtype == DType::f16)
                halves[i + k] = static_cast<uint16_t>((half & 0x83FF) | 0x2800);
            else if (dtype == DType::bf16 || k % 2 == 1)  // of an f32 the upper half
                halves[i + k] = static_cast<uint16_t>((half & 0x80FF) | 0x3D00);
            else
                halves[i + k] = half;
        }
    }
    return halves;
}

}  // namespace

Scratch::Scratch(int64_t bytes) {
    if (bytes == 0) return;
    if (ledger().take(Taken::timing, &data_, bytes) == cudaSuccess) return;
    cudaGetLastError();  // too little memory is no error here
    data_ = nullptr;
    failed_ = true;
}

Scratch::~Scratch() {
    ledger().give_back(data_);
}

Problem::Problem(const ConvShape& s, DType weights, int64_t workspace)
    : image_bytes_(s.batch * s.height * s.width * s.in_channels * size_of(s.dtype)),
      weights_bytes_(s.out_channels * s.kernel * s.kernel * s.in_channels * size_of(weights)),
      output_bytes_(s.batch * s.out_height() * s.out_width() * s.out_channels * size_of(s.dtype)),
      image_(image_bytes_),
      weights_(weights_bytes_),
      output_(output_bytes_),
      workspace_(workspace),
      numbers_(some_numbers(s.dtype)) {}

void Problem::fill(cudaStream_t stream) const {
    fill(image_, image_bytes_, stream);
    fill(weights_, weights_bytes_, stream);
    fill(output_, output_bytes_, stream);
}

void Problem::fill(const Scratch& memory, int64_t bytes, cudaStream_t stream) const {
    auto* const begin = static_cast<char*>(memory.data());
    const auto copy = [&](int64_t at, const void* from, int64_t count, cudaMemcpyKind kind) {
        check(cudaMemcpyAsync(begin + at, from, static_cast<size_t>(count), kind, stream), "filling a tensor");
    };
    int64_t done = std::min(bytes, static_cast<int64_t>(numbers_.size() * sizeof numbers_[0]));
    copy(0, numbers_.data(), done, cudaMemcpyHostToDevice);
    for (; done < bytes; done *= 2)
        copy(done, begin, std::min(done, bytes - done), cudaMemcpyDeviceToDevice);
}

float time_of(const std::function<bool()>& run, cudaStream_t stream, float record) {
    constexpr int rounds = 5;
    constexpr float far_at_first = 3, far = 1.3f;
    // The first run also loads the kernel.
    if (!run()) return cannot_run;
    const Event begin, end;
    float least = cannot_run;
    for (int round = 0; round < rounds; ++round) {
        const int runs = round == 0 ? 1 : 3;
        check(cudaEventRecord(begin.raw(), stream), "cudaEventRecord");
        for (int i = 0; i < runs; ++i)
            if (!run()) return cannot_run;
        check(cudaEventRecord(end.raw(), stream), "cudaEventRecord");
        check(cudaEventSynchronize(end.raw()), "timing a convolution");
        float elapsed = 0;
        check(cudaEventElapsedTime(&elapsed, begin.raw(), end.raw()), "cudaEventElapsedTime");
        least = std::min(least, elapsed / static_cast<float>(runs));
        if (least > (round == 0 ? far_at_first : far) * record) break;
    }
    return least;
}

}  // namespace rn50::cuda
