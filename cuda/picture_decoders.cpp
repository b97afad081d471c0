#include "picture_decoders.h"

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/math.h"
#include "base/resample.h"
#include "check.h"
#include "ledger.h"
#include "nvjpeg_api.h"
#include "resize.h"

namespace rn50::cuda {

namespace {

using namespace nvjpeg;

/// False: the library is too old, and `missing` says which function it has not.
bool find_all(const std::function<void*(const char*)>& find, Api& api, std::string& missing) {
    const auto look = [&](const char* name, auto& function) {
        const std::string full = cat("nvjpeg", name);
        void* const found = find(full.c_str());
        if (found == nullptr) missing = full;
        std::memcpy(&function, &found, sizeof found);
    };
#define RN50_LOOK(name) look(#name, api.name)
    RN50_LOOK(GetProperty);
    RN50_LOOK(CreateEx);
    RN50_LOOK(Destroy);
    RN50_LOOK(JpegStreamCreate);
    RN50_LOOK(JpegStreamDestroy);
    RN50_LOOK(JpegStreamParse);
    RN50_LOOK(JpegStreamGetComponentsNum);
    RN50_LOOK(DecodeParamsCreate);
    RN50_LOOK(DecodeParamsDestroy);
    RN50_LOOK(DecodeParamsSetOutputFormat);
    RN50_LOOK(DecodeParamsSetROI);
    RN50_LOOK(JpegStateCreate);
    RN50_LOOK(JpegStateDestroy);
    RN50_LOOK(DecodeBatchedInitialize);
    RN50_LOOK(DecodeBatchedSupportedEx);
    RN50_LOOK(DecodeBatchedEx);
    RN50_LOOK(DecoderCreate);
    RN50_LOOK(DecoderDestroy);
    RN50_LOOK(DecoderStateCreate);
    RN50_LOOK(DecoderJpegSupported);
    RN50_LOOK(BufferPinnedCreate);
    RN50_LOOK(BufferPinnedDestroy);
    RN50_LOOK(BufferDeviceCreate);
    RN50_LOOK(BufferDeviceDestroy);
    RN50_LOOK(StateAttachPinnedBuffer);
    RN50_LOOK(StateAttachDeviceBuffer);
    RN50_LOOK(DecodeJpegHost);
    RN50_LOOK(DecodeJpegTransferToDevice);
    RN50_LOOK(DecodeJpegDevice);
#undef RN50_LOOK
    return missing.empty();
}

class DecodingBlock final : public Memory {
  public:
    void* allocate(int64_t bytes) override {
        void* data = nullptr;
        if (ledger().take(Taken::decoding, &data, bytes) == cudaSuccess) return data;
        cudaGetLastError();  // else the next launch would return it once more
        throw Error(Exit::device, cat("no room for ", bytes >> 20, " MiB of GPU memory to decode pictures in"),
                    "use --decode region, or a smaller --batch-size");
    }
    void release(void* data, int64_t) override { ledger().give_back(data); }
    void fill(void* data, int value, int64_t bytes) override {
        check(cudaMemset(data, value, static_cast<size_t>(bytes)), "cudaMemset");
    }
};

/// The device memory of all decoders, nvJPEG's own included: from CUDA, as it comes, until there is a reserve; then out
/// of that alone. nvJPEG's callbacks carry nothing but sizes and addresses, so there is one for the process.
class DecodingMemory {
  public:
    /// False: there is no room.
    bool take(void** data, int64_t bytes) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!reserve_) {
            if (ledger().take(Taken::decoding, data, bytes) != cudaSuccess) {
                cudaGetLastError();
                return false;
            }
            peak_ = std::max(peak_, ledger().bytes(Taken::decoding));
            return true;
        }
        try {
            *data = reserve_->alloc(Use::input, DType::u8, {bytes}).data;
        } catch (const Error&) {
            return false;
        }
        peak_ = std::max(peak_, reserve_->in_use());
        reserved_.insert(*data);
        return true;
    }
    void give_back(void* data) {
        if (data == nullptr) return;
        const std::lock_guard<std::mutex> lock(mutex_);
        if (reserved_.erase(data) == 0) return ledger().give_back(data);
        // As cudaFree would: another stream may be given the memory while this one's work is still under way.
        cudaDeviceSynchronize();
        Tensor tensor{data, DType::u8, {1}};
        reserve_->release(tensor);
    }
    void reserve(int64_t bytes) {
        const std::lock_guard<std::mutex> lock(mutex_);
        RN50_REQUIRE(reserved_.empty(), "decoders hold memory of an earlier reserve");
        reserve_.reset();
        reserve_ = std::make_unique<Arena>(block_, bytes);
    }
    /// Whether there is a reserve.
    bool limited() const {
        const std::lock_guard<std::mutex> lock(mutex_);
        return reserve_ != nullptr;
    }
    /// After the last of its users.
    void end() {
        const std::lock_guard<std::mutex> lock(mutex_);
        reserved_.clear();
        reserve_.reset();
        peak_ = 0;
    }
    int64_t peak() const {
        const std::lock_guard<std::mutex> lock(mutex_);
        return peak_;
    }

  private:
    mutable std::mutex mutex_;
    DecodingBlock block_;
    std::unique_ptr<Arena> reserve_;
    std::set<void*> reserved_;  ///< what was given of it
    int64_t peak_ = 0;
};

DecodingMemory& decoding_memory() {
    static DecodingMemory& the_memory = *new DecodingMemory;
    return the_memory;
}

DeviceAllocator counted{
    [](void** data, size_t bytes) { return decoding_memory().take(data, static_cast<int64_t>(bytes)) ? 0 : 1; },
    [](void* data) {
        decoding_memory().give_back(data);
        return 0;
    }};

/// Memory that grows with what is asked of it.
class Room {
  public:
    explicit Room(bool pinned) : pinned_(pinned) {}
    ~Room() { release(); }
    Room(const Room&) = delete;
    Room& operator=(const Room&) = delete;

    /// False: there is not so much memory.
    bool reserve(int64_t bytes) {
        if (bytes <= bytes_) return true;
        release();
        const int64_t more = bytes + bytes / 4;
        if (pinned_ ? cudaMallocHost(&data_, static_cast<size_t>(more)) != cudaSuccess
                    : !decoding_memory().take(&data_, more)) {
            cudaGetLastError();  // else the next launch would return it once more
            data_ = nullptr;
            return false;
        }
        bytes_ = more;
        return true;
    }
    uint8_t* data() const { return static_cast<uint8_t*>(data_); }

  private:
    void release() {
        if (pinned_)
            cudaFreeHost(data_);
        else
            decoding_memory().give_back(data_);
        data_ = nullptr;
        bytes_ = 0;
    }
    bool pinned_;
    void* data_ = nullptr;
    int64_t bytes_ = 0;
};

/// The library, and which of its ways is taken.
struct Library {
    Api api{};
    Handle handle = nullptr;
    bool hardware = false;
    int device = 0;

    Library() = default;
    ~Library() {
        if (handle != nullptr && device_lives()) api.Destroy(handle);
    }
    Library(const Library&) = delete;
    Library& operator=(const Library&) = delete;

    /// False: it takes neither way on this GPU. Strictly, where the library can be strict: a broken picture must not
    /// pass for a whole one; and chroma interpolated as libjpeg does. RN50_NVJPEG=gpu leaves the hardware engine alone,
    /// which other programs may want, and shows what a GPU without one does.
    bool open() {
        const char* const asked = std::getenv("RN50_NVJPEG");
        const bool leave_hardware = asked != nullptr && std::strcmp(asked, "gpu") == 0;
        for (const int backend : {backend_hardware, backend_default}) {
            if (backend == backend_hardware && leave_hardware) continue;
            for (const unsigned flags : {flag_strict | flag_interpolate, flag_strict, 0u}) {
                hardware = backend == backend_hardware;
                if (api.CreateEx(backend, &counted, nullptr, flags, &handle) == 0) return true;
                handle = nullptr;
            }
        }
        return false;
    }
};

std::string version_by(Status (*get_property)(int, int*)) {
    int parts[3] = {};
    for (const int part : {major_version, minor_version, patch_level})
        get_property(part, &parts[part]);
    return cat(parts[0], ".", parts[1], ".", parts[2]);
}

/// The request with the largest box of all decoders, its JPEG kept. A decoder begins with it, for memory that grows in
/// steps, of many decoders in turn, leaves holes in the reserve that nothing fits in.
class LargestRequest {
  public:
    /// Nothing is kept once memory is limited: then each grows as it must.
    void meet(const PictureRequest& request) {
        const int64_t area = request.box_height * request.box_width;
        if (area <= area_ || decoding_memory().limited()) return;
        const std::lock_guard<std::mutex> lock(mutex_);
        if (area <= area_) return;
        jpeg_.assign(request.jpeg, request.jpeg + request.bytes);
        request_ = request;
        area_ = area;
    }
    int64_t area() const { return area_; }
    /// `jpeg` holds what the request points to.
    PictureRequest copy(std::vector<uint8_t>& jpeg) const {
        const std::lock_guard<std::mutex> lock(mutex_);
        jpeg = jpeg_;
        PictureRequest request = request_;
        request.jpeg = jpeg.data();
        return request;
    }

  private:
    mutable std::mutex mutex_;
    std::vector<uint8_t> jpeg_;
    PictureRequest request_{};
    std::atomic<int64_t> area_{0};
};

class NvjpegDecoder final : public PictureDecoder {
  public:
    NvjpegDecoder(const Library& library, LargestRequest& largest)
        : library_(library), api_(library.api), largest_(largest) {
        check(cudaSetDevice(library_.device), "cudaSetDevice");
        check(cudaStreamCreateWithFlags(&cuda_stream_, cudaStreamNonBlocking), "cudaStreamCreate");
        // Who waits sleeps: other workers need the core.
        check(cudaEventCreateWithFlags(&done_, cudaEventBlockingSync | cudaEventDisableTiming), "cudaEventCreate");
        if (!make_objects()) {
            release();
            throw Error(Exit::device, "nvJPEG does not start", "use --decode region");
        }
    }
    ~NvjpegDecoder() override { release(); }
    NvjpegDecoder(const NvjpegDecoder&) = delete;
    NvjpegDecoder& operator=(const NvjpegDecoder&) = delete;

    bool decode(const PictureRequest& request, uint8_t* dst) override {
        if (cudaSetDevice(library_.device) != cudaSuccess) return false;
        grow();
        const bool good = parse(request) && reserve(request) && decode_box(request) && resample(request, dst);
        if (!good) {
            end_failed();
            return false;
        }
        grown_to_ = std::max(grown_to_, request.box_height * request.box_width);
        largest_.meet(request);
        return true;
    }

  private:
    /// To what the largest request takes.
    void grow() {
        const int64_t area = largest_.area();
        if (area <= grown_to_) return;
        grown_to_ = area;
        std::vector<uint8_t> jpeg;
        const PictureRequest request = largest_.copy(jpeg);
        if (parse(request) && reserve(request) && decode_box(request))
            cudaStreamSynchronize(cuda_stream_);
        else
            end_failed();
    }

    void end_failed() {
        cudaStreamSynchronize(cuda_stream_);  // nothing of it may run on into the next picture's memory
        cudaGetLastError();                   // and its error is nobody else's
    }

    bool make_objects() {
        const Handle handle = library_.handle;
        if (api_.JpegStreamCreate(handle, &jpeg_) != 0 || api_.DecodeParamsCreate(handle, &params_) != 0 ||
            api_.DecodeParamsSetOutputFormat(params_, output_rgbi) != 0)
            return false;
        if (library_.hardware)
            return api_.JpegStateCreate(handle, &state_) == 0 &&
                   api_.DecodeBatchedInitialize(handle, state_, 1, 1, output_rgbi) == 0;
        if (api_.DecoderCreate(handle, backend_gpu_hybrid, &decoder_) != 0 &&
            api_.DecoderCreate(handle, backend_default, &decoder_) != 0)
            return false;
        return api_.DecoderStateCreate(handle, decoder_, &state_) == 0 &&
               api_.BufferPinnedCreate(handle, nullptr, &pinned_) == 0 &&
               api_.BufferDeviceCreate(handle, &counted, &device_) == 0 &&
               api_.StateAttachPinnedBuffer(state_, pinned_) == 0 && api_.StateAttachDeviceBuffer(state_, device_) == 0;
    }

    void release() {
        cudaSetDevice(library_.device);
        cudaStreamSynchronize(cuda_stream_);
        if (!device_lives()) return;
        if (state_ != nullptr) api_.JpegStateDestroy(state_);
        if (decoder_ != nullptr) api_.DecoderDestroy(decoder_);
        if (device_ != nullptr) api_.BufferDeviceDestroy(device_);
        if (pinned_ != nullptr) api_.BufferPinnedDestroy(pinned_);
        if (params_ != nullptr) api_.DecodeParamsDestroy(params_);
        if (jpeg_ != nullptr) api_.JpegStreamDestroy(jpeg_);
        cudaEventDestroy(done_);
        cudaStreamDestroy(cuda_stream_);
    }

    /// Whether the library takes this picture.
    bool parse(const PictureRequest& request) {
        unsigned components = 0;
        int unsupported = 1;
        if (api_.JpegStreamParse(library_.handle, request.jpeg, request.bytes, 0, 0, jpeg_) != 0 ||
            api_.JpegStreamGetComponentsNum(jpeg_, &components) != 0 || (components != 1 && components != 3) ||
            api_.DecodeParamsSetROI(params_, static_cast<int>(request.x), static_cast<int>(request.y),
                                    static_cast<int>(request.box_width), static_cast<int>(request.box_height)) != 0)
            return false;
        const Status asked = library_.hardware
                                 ? api_.DecodeBatchedSupportedEx(library_.handle, jpeg_, params_, &unsupported)
                                 : api_.DecoderJpegSupported(decoder_, jpeg_, params_, &unsupported);
        return asked == 0 && unsupported == 0;
    }

    bool reserve(const PictureRequest& request) {
        across_.make(request.box_width, 0, static_cast<double>(request.box_width), request.width);
        down_.make(request.box_height, 0, static_cast<double>(request.box_height), request.height);
        return box_.reserve(request.box_height * request.box_width * 3) &&
               rows_.reserve(request.box_height * request.width * 3) &&
               result_.reserve(request.height * request.width * 3) &&
               result_on_host_.reserve(request.height * request.width * 3);
    }

    bool decode_box(const PictureRequest& request) {
        Image image{};
        image.channel[0] = box_.data();
        image.pitch[0] = static_cast<size_t>(request.box_width * 3);
        const Handle handle = library_.handle;
        if (library_.hardware)
            return api_.DecodeBatchedEx(handle, state_, &request.jpeg, &request.bytes, &image, &params_,
                                        cuda_stream_) == 0;
        return api_.DecodeJpegHost(handle, decoder_, state_, params_, jpeg_) == 0 &&
               api_.DecodeJpegTransferToDevice(handle, decoder_, state_, jpeg_, cuda_stream_) == 0 &&
               api_.DecodeJpegDevice(handle, decoder_, state_, &image, cuda_stream_) == 0;
    }

    bool resample(const PictureRequest& request, uint8_t* dst) {
        // Both filters go in one copy.
        int64_t at = 0;
        const auto place = [&](const auto& values) {
            const int64_t begin = at;
            at += align_up(static_cast<int64_t>(values.size() * sizeof values[0]), 16);
            return begin;
        };
        const int64_t places[] = {place(across_.first), place(across_.count), place(across_.weights),
                                  place(down_.first),   place(down_.count),   place(down_.weights)};
        if (!filters_.reserve(at) || !filters_on_host_.reserve(at)) return false;
        const auto put = [&](int64_t begin, const auto& values) {
            std::memcpy(filters_on_host_.data() + begin, values.data(), values.size() * sizeof values[0]);
        };
        put(places[0], across_.first);
        put(places[1], across_.count);
        put(places[2], across_.weights);
        put(places[3], down_.first);
        put(places[4], down_.count);
        put(places[5], down_.weights);
        const auto filter = [&](const ResampleFilter& host, const int64_t* begin) {
            const uint8_t* const data = filters_.data();
            return DeviceFilter{
                reinterpret_cast<const int32_t*>(data + begin[0]), reinterpret_cast<const int32_t*>(data + begin[1]),
                reinterpret_cast<const int16_t*>(data + begin[2]), static_cast<int>(host.taps), host.shift};
        };
        if (cudaMemcpyAsync(filters_.data(), filters_on_host_.data(), static_cast<size_t>(at), cudaMemcpyHostToDevice,
                            cuda_stream_) != cudaSuccess)
            return false;
        resize_picture(cuda_stream_, box_.data(), request.box_height, request.box_width, filter(across_, places),
                       filter(down_, places + 3), rows_.data(), result_.data(), request.height, request.width);
        const auto bytes = static_cast<size_t>(request.height * request.width * 3);
        if (cudaMemcpyAsync(result_on_host_.data(), result_.data(), bytes, cudaMemcpyDeviceToHost, cuda_stream_) !=
                cudaSuccess ||
            cudaEventRecord(done_, cuda_stream_) != cudaSuccess || cudaEventSynchronize(done_) != cudaSuccess)
            return false;
        std::memcpy(dst, result_on_host_.data(), bytes);
        return true;
    }

    const Library& library_;
    const Api& api_;
    LargestRequest& largest_;
    int64_t grown_to_ = 0;  ///< the area of a box
    cudaStream_t cuda_stream_ = nullptr;
    cudaEvent_t done_ = nullptr;
    Stream jpeg_ = nullptr;
    Params params_ = nullptr;
    Decoder decoder_ = nullptr;  // as pinned_ and device_, not of the hardware
    State state_ = nullptr;
    Buffer pinned_ = nullptr, device_ = nullptr;
    ResampleFilter across_, down_;
    Room box_{false}, rows_{false}, result_{false}, filters_{false};
    Room result_on_host_{true}, filters_on_host_{true};
};

class NvjpegDecoders final : public PictureDecoders {
  public:
    explicit NvjpegDecoders(std::unique_ptr<Library> library) : library_(std::move(library)) {}
    ~NvjpegDecoders() override {
        library_.reset();
        decoding_memory().end();
    }
    NvjpegDecoders(const NvjpegDecoders&) = delete;
    NvjpegDecoders& operator=(const NvjpegDecoders&) = delete;
    std::string name() const override {
        return cat("nvJPEG ", version_by(library_->api.GetProperty), library_->hardware ? ", hardware" : ", GPU");
    }
    bool beside_other_work() const override { return library_->hardware; }
    std::unique_ptr<PictureDecoder> make() override { return std::make_unique<NvjpegDecoder>(*library_, largest_); }
    int64_t peak_bytes() const override { return decoding_memory().peak(); }
    void reserve(int64_t bytes) override { decoding_memory().reserve(bytes); }

  private:
    std::unique_ptr<Library> library_;
    LargestRequest largest_;
};

/// Of the toolkit which this module was made with.
std::string library_name() {
    return cat("libnvjpeg.so.", CUDART_VERSION / 1000);
}

/// Null: it is not there. It stays loaded.
void* open_library() {
    return dlopen(library_name().c_str(), RTLD_NOW | RTLD_LOCAL);
}

}  // namespace

std::unique_ptr<PictureDecoders> make_picture_decoders(int device, const std::function<void*(const char*)>& find,
                                                       std::string& why) {
    auto library = std::make_unique<Library>();
    std::string missing;
    library->device = device;
    if (!find_all(find, library->api, missing)) {
        why = cat("nvJPEG is too old: it has no ", missing);
        return nullptr;
    }
    check(cudaSetDevice(device), "cudaSetDevice");
    if (!library->open()) {
        why = "nvJPEG does not start on this GPU";
        return nullptr;
    }
    return std::make_unique<NvjpegDecoders>(std::move(library));
}

std::unique_ptr<PictureDecoders> make_picture_decoders(int device, std::string& why) {
    void* const library = open_library();
    if (library == nullptr) {
        why = cat("there is no ", library_name(), " (a part of NVIDIA's CUDA toolkit)");
        return nullptr;
    }
    return make_picture_decoders(
        device, [&](const char* symbol) { return dlsym(library, symbol); }, why);
}

std::string nvjpeg_version() {
    void* const library = open_library();
    if (library == nullptr) return "";
    Status (*get_property)(int, int*) = nullptr;
    void* const found = dlsym(library, "nvjpegGetProperty");
    std::memcpy(&get_property, &found, sizeof found);
    return get_property == nullptr ? "" : version_by(get_property);
}

}  // namespace rn50::cuda
