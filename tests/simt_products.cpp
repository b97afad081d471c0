// The emulator's stand-ins: for cuDNN and cuBLASLt naive products in f64 over host memory, rounded to the stored dtype;
// for the copies beside them late ones.
#define RN50_SIMT
#include <cmath>
#include <functional>
#include <vector>

#include "picture_decoders.h"
#include "products.h"
#include "upload.h"

namespace rn50::cuda {

namespace {

double element(const void* data, DType dtype, int64_t i) {
    switch (dtype) {
        case DType::f32:
            return static_cast<double>(static_cast<const float*>(data)[i]);
        case DType::f16:
            return static_cast<double>(__half2float(static_cast<const __half*>(data)[i]));
        default:
            return static_cast<double>(__bfloat162float(static_cast<const __nv_bfloat16*>(data)[i]));
    }
}

void set(void* data, DType dtype, int64_t i, double value) {
    const auto v = static_cast<float>(value);
    switch (dtype) {
        case DType::f32:
            static_cast<float*>(data)[i] = v;
            break;
        case DType::f16:
            static_cast<__half*>(data)[i] = __float2half_rn(v);
            break;
        default:
            static_cast<__nv_bfloat16*>(data)[i] = __float2bfloat16_rn(v);
    }
}

/// What a factor is after the library has read it: tf32 keeps 10 bits of the fraction.
std::vector<double> factors(const void* data, DType dtype, bool tf32, int64_t count) {
    std::vector<double> values(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
        double v = element(data, dtype, i);
        if (tf32 && v != 0 && std::isfinite(v)) {
            int exponent = 0;
            const double fraction = std::frexp(v, &exponent);
            v = std::ldexp(std::nearbyint(std::ldexp(fraction, 11)), exponent - 11);
        }
        values[static_cast<size_t>(i)] = v;
    }
    return values;
}

void later(cudaStream_t stream, std::function<void()> work) {
    check(simt::answer(streams::push(stream,
                                     [work = std::move(work)] {
                                         const simt::DeviceAccess access;
                                         work();
                                     })),
          "a product");
}

class NaiveConv final : public ConvProducts {
  public:
    NaiveConv(ConvShape shape, cudaStream_t stream) : s_(std::move(shape)), stream_(stream) {}
    int64_t in_channels() const override { return s_.in_channels; }
    int64_t workspace_bytes(Phase phase) const override { return phase == Phase::forward ? 512 : 0; }
    // As the libraries: of 16-bit factors plain products give f32 gradients, all others 16-bit ones.
    DType diff_weights_dtype() const override {
        return s_.kernel == 1 && s_.stride == 1 && s_.pad == 0 ? DType::f32 : s_.dtype;
    }

    // Refuses some, as a library may: then the whole batch is computed.
    bool takes(int64_t batch) override { return batch == s_.batch || batch % 2 == 0; }

    void forward(int64_t batch, const void* x, const void* w, void* y, void* workspace) override {
        RN50_REQUIRE(takes(batch), s_.name, " refuses a batch of ", batch);
        later(stream_, [=] {
            std::memset(workspace, 0xFF, 512);
            const std::vector<double> xs = read(x, x_count(batch)), ws = read(w, w_count());
            std::vector<double> sums(static_cast<size_t>(y_count(batch)));
            each(batch, [&](int64_t xi, int64_t wi, int64_t yi) { sums[at(yi)] += xs[at(xi)] * ws[at(wi)]; });
            write(y, s_.dtype, sums);
        });
    }
    void backward_data(const void* dy, const void* w, void* dx, void*) override {
        later(stream_, [=] {
            const std::vector<double> dys = read(dy, y_count(s_.batch)), ws = read(w, w_count());
            std::vector<double> sums(static_cast<size_t>(x_count(s_.batch)));
            each(s_.batch, [&](int64_t xi, int64_t wi, int64_t yi) { sums[at(xi)] += dys[at(yi)] * ws[at(wi)]; });
            write(dx, s_.dtype, sums);
        });
    }
    void backward_weights(const void* x, const void* dy, void* dw, void*) override {
        later(stream_, [=] {
            const std::vector<double> xs = read(x, x_count(s_.batch)), dys = read(dy, y_count(s_.batch));
            std::vector<double> sums(static_cast<size_t>(w_count()));
            each(s_.batch, [&](int64_t xi, int64_t wi, int64_t yi) { sums[at(wi)] += xs[at(xi)] * dys[at(yi)]; });
            write(dw, diff_weights_dtype(), sums);
        });
    }

  private:
    static size_t at(int64_t i) { return static_cast<size_t>(i); }
    std::vector<double> read(const void* data, int64_t count) const { return factors(data, s_.dtype, s_.tf32, count); }
    static void write(void* data, DType dtype, const std::vector<double>& values) {
        for (size_t i = 0; i < values.size(); ++i)
            set(data, dtype, static_cast<int64_t>(i), values[i]);
    }
    int64_t x_count(int64_t batch) const { return batch * s_.height * s_.width * s_.in_channels; }
    int64_t y_count(int64_t batch) const { return batch * s_.out_height() * s_.out_width() * s_.out_channels; }
    int64_t w_count() const { return s_.out_channels * s_.kernel * s_.kernel * s_.in_channels; }

    /// body(index in x, in w, in y) for every product of two elements.
    template <class Body>
    void each(int64_t batch, const Body& body) const {
        const int64_t oh = s_.out_height(), ow = s_.out_width(), c_count = s_.in_channels;
        for (int64_t n = 0; n < batch; ++n)
            for (int64_t oy = 0; oy < oh; ++oy)
                for (int64_t ox = 0; ox < ow; ++ox)
                    for (int64_t ky = 0; ky < s_.kernel; ++ky)
                        for (int64_t kx = 0; kx < s_.kernel; ++kx) {
                            const int64_t y = oy * s_.stride - s_.pad + ky, x = ox * s_.stride - s_.pad + kx;
                            if (y < 0 || y >= s_.height || x < 0 || x >= s_.width) continue;
                            const int64_t from = ((n * s_.height + y) * s_.width + x) * c_count;
                            const int64_t to = ((n * oh + oy) * ow + ox) * s_.out_channels;
                            for (int64_t k = 0; k < s_.out_channels; ++k) {
                                const int64_t tap = ((k * s_.kernel + ky) * s_.kernel + kx) * c_count;
                                for (int64_t c = 0; c < c_count; ++c)
                                    body(from + c, tap + c, to + k);
                            }
                        }
    }

    ConvShape s_;
    cudaStream_t stream_;
};

class NaiveProducts final : public Products {
  public:
    explicit NaiveProducts(cudaStream_t stream) : stream_(stream) {}
    std::string name() const override { return "naive products"; }
    std::unique_ptr<ConvProducts> conv(const ConvShape& shape) override {
        const int64_t multiple = shape.dtype == DType::f32 ? 4 : 8;
        RN50_REQUIRE(shape.in_channels % multiple == 0 && shape.out_channels % multiple == 0, shape.name,
                     ": channels that are not padded");
        ConvShape taken = shape;
        // Of pictures some convolutions want four channels, as a library may.
        if (shape.dtype != DType::f32 && shape.filled_channels <= 4 && shape.in_channels == 8 && shape.width % 2 == 0)
            taken.in_channels = 4;
        return std::make_unique<NaiveConv>(taken, stream_);
    }
    int64_t gemm_workspace_bytes() const override { return 256; }
    void gemm(const GemmShape& shape, const void* a, const void* b, float beta, void* c, void* workspace) override {
        later(stream_, [=] { multiply(shape, a, b, beta, c, workspace); });
    }

  private:
    static void multiply(const GemmShape& s, const void* a, const void* b, float beta, void* c, void* workspace) {
        std::memset(workspace, 0xFF, 256);
        const std::vector<double> as = factors(a, s.ab, s.tf32, s.m * s.k), bs = factors(b, s.ab, s.tf32, s.k * s.n);
        for (int64_t i = 0; i < s.m; ++i)
            for (int64_t j = 0; j < s.n; ++j) {
                double sum = beta != 0 ? static_cast<double>(beta) * element(c, s.c, i * s.n + j) : 0;
                for (int64_t k = 0; k < s.k; ++k)
                    sum += as[static_cast<size_t>(s.transpose_a ? k * s.m + i : i * s.k + k)] *
                           bs[static_cast<size_t>(s.transpose_b ? j * s.k + k : k * s.n + j)];
                set(c, s.c, i * s.n + j, sum);
            }
    }

    cudaStream_t stream_;
};

}  // namespace

std::unique_ptr<Products> make_products(cudaStream_t stream) {
    return std::make_unique<NaiveProducts>(stream);
}

namespace {

/// Reads as late as it may, so that whoever does not wait for it sends something else; but no later than the work that
/// needs it is given to a stream: whoever loses that may lose the host's memory, too.
class LateUpload final : public Upload {
  public:
    explicit LateUpload(cudaStream_t stream) : stream_(stream) {}
    void begin(const void* host, const Tensor& dst) override { pending_.push_back({host, dst}); }
    void use() override {
        for (const auto& [host, dst] : pending_) {
            const auto* const bytes = static_cast<const char*>(host);
            later(stream_,
                  [dst = dst, sent = std::vector<char>(bytes, bytes + dst.bytes())] { copy(sent.data(), dst); });
        }
        pending_.clear();
    }
    void release() override {}
    void wait() override {
        check(cudaStreamSynchronize(stream_), "wait for an upload");
        for (const auto& [host, dst] : pending_)
            copy(host, dst);
        pending_.clear();
    }

  private:
    static void copy(const void* host, const Tensor& dst) {
        const simt::DeviceAccess access;
        simt::require_place("a copy to", dst.data, static_cast<size_t>(dst.bytes()), true);
        std::memcpy(dst.data, host, static_cast<size_t>(dst.bytes()));
    }

    cudaStream_t stream_;
    std::vector<std::pair<const void*, Tensor>> pending_;
};

/// Reads when it is to, and gives as late as it may: whoever does not wait finds something else.
class LateDownload final : public Download {
  public:
    explicit LateDownload(cudaStream_t stream) : stream_(stream) {}
    void begin(const Tensor& src, void* host) override {
        const auto read = std::make_shared<std::vector<char>>(static_cast<size_t>(src.bytes()));
        later(stream_, [read, data = src.data] { std::memcpy(read->data(), data, read->size()); });
        pending_.emplace_back(host, read);
    }
    void wait() override {
        check(cudaStreamSynchronize(stream_), "wait for a download");
        for (const auto& [host, read] : pending_)
            std::memcpy(host, read->data(), read->size());
        pending_.clear();
    }

  private:
    cudaStream_t stream_;
    std::vector<std::pair<void*, std::shared_ptr<std::vector<char>>>> pending_;
};

}  // namespace

std::unique_ptr<Upload> make_upload(cudaStream_t stream) {
    return std::make_unique<LateUpload>(stream);
}

std::unique_ptr<Download> make_download(cudaStream_t stream) {
    return std::make_unique<LateDownload>(stream);
}

/// Where the program has nvJPEG's own door, that one counts.
[[gnu::weak]] std::unique_ptr<PictureDecoders> make_picture_decoders(int, std::string& why) {
    why = "the emulator has no nvJPEG";
    return nullptr;
}

}  // namespace rn50::cuda
