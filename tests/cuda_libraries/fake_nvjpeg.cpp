#include "fake_nvjpeg.h"

#include <cstring>
#include <map>

#include "fake.h"
#include "nvjpeg_api.h"
#include "resize.h"

namespace rn50::fake {

NvjpegWorld nvjpeg_world;

namespace {

using namespace cuda::nvjpeg;

constexpr Status success = 0, invalid = 2, bad_jpeg = 3, not_supported = 4, allocator_failure = 5, mismatch = 7;

struct Object {
    std::string kind;
    int backend = -1;
    bool batched = false, pinned = false, device = false;  ///< of a state
    int phase = 0;                                         ///< of a state: phases done of this picture
    int format = -1, x = 0, y = 0, width = -1, height = -1;
    const FakeJpeg* jpeg = nullptr;
    DeviceAllocator* allocator = nullptr;  ///< of a handle, a state and a device buffer
    void* memory = nullptr;                ///< of a state or a device buffer: of the device
    size_t bytes = 0;
    Object* buffer = nullptr;  ///< of a state: the device buffer

    /// The library's own memory, which grows with the boxes: the new block is taken before the old one goes.
    Status grow(size_t needed) {
        if (needed <= bytes) return success;
        void* larger = nullptr;
        if (allocator->take(&larger, needed) != 0) return allocator_failure;
        release();
        memory = larger;
        bytes = needed;
        nvjpeg_world.own_bytes += bytes;
        return success;
    }
    void release() {
        if (bytes == 0) return;
        nvjpeg_world.own_bytes -= bytes;
        allocator->give_back(memory);
        memory = nullptr;
        bytes = 0;
    }
};

size_t bytes_of(const Object& box) {
    return static_cast<size_t>(box.width) * static_cast<size_t>(box.height) * 6;
}

template <class Tag>
Object* of(Tag* opaque) {
    return reinterpret_cast<Object*>(opaque);
}

void fault(const std::string& what) {
    nvjpeg_world.faults.push_back(what);
}

template <class Tag>
Status make(const char* kind, Tag** made, int backend = -1) {
    auto* object = new Object;
    object->kind = kind;
    object->backend = backend;
    nvjpeg_world.live.insert(object);
    *made = reinterpret_cast<Tag*>(object);
    return success;
}

Status destroy(void* opaque, const char* kind) {
    auto* object = static_cast<Object*>(opaque);
    if (nvjpeg_world.live.erase(object) == 0) {
        fault(std::string("destroys what is not a ") + kind);
        return invalid;
    }
    if (object->kind != kind) fault("destroys a " + object->kind + " as a " + kind);
    object->release();
    delete object;
    return success;
}
template <const char* const& kind, class Tag>
Status destroy_as(Tag* opaque) {
    return destroy(opaque, kind);
}
const char *const of_handle = "handle", *const of_stream = "stream", *const of_params = "params",
                  *const of_state = "state", *const of_decoder = "decoder", *const of_pinned = "pinned buffer",
                  *const of_device = "device buffer";

/// When the stream comes to it.
Status paint(const FakeJpeg& jpeg, const Object& params, const Image& image, cudaStream_t stream) {
    if (jpeg.broken) return bad_jpeg;
    if (params.format != output_rgbi) fault("no output format");
    if (params.x < 0 || params.y < 0 || params.x + params.width > jpeg.width || params.y + params.height > jpeg.height)
        fault("the region leaves the picture");
    if (image.pitch[0] < static_cast<size_t>(params.width * 3)) fault("the pitch is too small");
    push(stream, [=, gray = jpeg.components == 1] {
        for (int y = 0; y < params.height; ++y)
            for (int x = 0; x < params.width; ++x)
                for (int c = 0; c < 3; ++c)
                    image.channel[0][static_cast<size_t>(y) * image.pitch[0] + static_cast<size_t>(x * 3 + c)] =
                        pixel_of(params.x + x, params.y + y, gray ? 0 : c);
    });
    ++nvjpeg_world.decodes;
    return success;
}

// --- the functions -----------------------------------------------------------------------------------------------
Status get_property(int type, int* value) {
    *value = type == major_version ? 12 : type == minor_version ? 2 : 5;
    return success;
}
Status create(int backend, DeviceAllocator* allocator, void*, unsigned flags, Handle* handle) {
    if (!nvjpeg_world.starts || (backend == backend_hardware && !nvjpeg_world.has_hardware)) return mismatch;
    if (!nvjpeg_world.knows_flags && flags != 0) return invalid;
    nvjpeg_world.flags = flags;
    const Status made = make(of_handle, handle, backend);
    of(*handle)->allocator = allocator;
    return made;
}
Status stream_create(Handle, Stream* stream) {
    return make(of_stream, stream);
}
Status stream_parse(Handle, const unsigned char* data, size_t length, int, int, Stream stream) {
    of(stream)->jpeg = nullptr;
    const auto* jpeg = reinterpret_cast<const FakeJpeg*>(data);
    if (length < sizeof(FakeJpeg) || jpeg->magic != 4711) return bad_jpeg;
    of(stream)->jpeg = jpeg;
    return success;
}
Status stream_components(Stream stream, unsigned* count) {
    *count = static_cast<unsigned>(of(stream)->jpeg->components);
    return success;
}
Status params_create(Handle, Params* params) {
    return make(of_params, params);
}
Status params_format(Params params, int format) {
    of(params)->format = format;
    return success;
}
Status params_region(Params params, int x, int y, int width, int height) {
    Object& object = *of(params);
    object.x = x;
    object.y = y;
    object.width = width;
    object.height = height;
    return success;
}
Status state_create(Handle handle, State* state) {
    const Status made = make(of_state, state, of(handle)->backend);
    of(*state)->allocator = of(handle)->allocator;
    return made;
}
Status batched_initialize(Handle, State state, int batch, int, int format) {
    if (batch != 1 || format != output_rgbi) fault("another batch");
    of(state)->batched = true;
    return success;
}
Status batched_supported(Handle, Stream stream, Params, int* unsupported) {
    *unsupported = of(stream)->jpeg->progressive ? 1 : 0;
    return success;
}
Status batched_decode(Handle, State state, const unsigned char* const* data, const size_t*, Image* image,
                      Params* params, cudaStream_t stream) {
    if (!of(state)->batched || of(state)->backend != backend_hardware) fault("a batch that was not initialised");
    const auto& jpeg = *reinterpret_cast<const FakeJpeg*>(data[0]);
    if (of(state)->grow(bytes_of(*of(*params))) != success) return allocator_failure;
    return paint(jpeg, *of(*params), *image, stream);
}
Status decoder_create(Handle, int backend, Decoder* decoder) {
    if (backend == backend_gpu_hybrid && !nvjpeg_world.gpu_huffman) return not_supported;
    nvjpeg_world.decoder_backend = backend;
    return make(of_decoder, decoder, backend);
}
Status decoder_state_create(Handle, Decoder decoder, State* state) {
    return make(of_state, state, of(decoder)->backend);
}
Status decoder_supported(Decoder, Stream, Params, int* unsupported) {
    *unsupported = 0;
    return success;
}
Status pinned_create(Handle, void*, Buffer* buffer) {
    return make(of_pinned, buffer);
}
Status device_create(Handle, DeviceAllocator* allocator, Buffer* buffer) {
    const Status made = make(of_device, buffer);
    of(*buffer)->allocator = allocator;
    return made;
}
Status attach_pinned(State state, Buffer buffer) {
    of(state)->pinned = of(buffer)->kind == of_pinned;
    return success;
}
Status attach_device(State state, Buffer buffer) {
    of(state)->device = of(buffer)->kind == of_device;
    of(state)->buffer = of(buffer);
    return success;
}
Status phase_host(Handle, Decoder, State state, Params params, Stream stream) {
    Object& object = *of(state);
    if (!object.pinned) fault("no pinned buffer");
    const Object& wanted = *of(params);
    object.jpeg = of(stream)->jpeg;
    object.format = wanted.format;
    object.x = wanted.x;
    object.y = wanted.y;
    object.width = wanted.width;
    object.height = wanted.height;
    object.phase = 1;
    return success;
}
Status phase_transfer(Handle, Decoder, State state, Stream, cudaStream_t) {
    Object& object = *of(state);
    if (object.phase != 1 || !object.device) fault("transfer before the host's phase, or without a device buffer");
    object.phase = 2;
    return object.buffer->grow(bytes_of(object));
}
Status phase_device(Handle, Decoder, State state, Image* image, cudaStream_t stream) {
    Object& object = *of(state);
    if (object.phase != 2) fault("the device's phase before the transfer");
    object.phase = 0;
    return paint(*object.jpeg, object, *image, stream);
}

template <class Function>
void* address(Function* function) {
    void* result;
    std::memcpy(&result, &function, sizeof result);
    return result;
}

}  // namespace

void* find_nvjpeg(const char* name) {
    static const std::map<std::string, void*> functions{
        {"nvjpegGetProperty", address(get_property)},
        {"nvjpegCreateEx", address(create)},
        {"nvjpegDestroy", address(destroy_as<of_handle, HandleTag>)},
        {"nvjpegJpegStreamCreate", address(stream_create)},
        {"nvjpegJpegStreamDestroy", address(destroy_as<of_stream, StreamTag>)},
        {"nvjpegJpegStreamParse", address(stream_parse)},
        {"nvjpegJpegStreamGetComponentsNum", address(stream_components)},
        {"nvjpegDecodeParamsCreate", address(params_create)},
        {"nvjpegDecodeParamsDestroy", address(destroy_as<of_params, ParamsTag>)},
        {"nvjpegDecodeParamsSetOutputFormat", address(params_format)},
        {"nvjpegDecodeParamsSetROI", address(params_region)},
        {"nvjpegJpegStateCreate", address(state_create)},
        {"nvjpegJpegStateDestroy", address(destroy_as<of_state, StateTag>)},
        {"nvjpegDecodeBatchedInitialize", address(batched_initialize)},
        {"nvjpegDecodeBatchedSupportedEx", address(batched_supported)},
        {"nvjpegDecodeBatchedEx", address(batched_decode)},
        {"nvjpegDecoderCreate", address(decoder_create)},
        {"nvjpegDecoderDestroy", address(destroy_as<of_decoder, DecoderTag>)},
        {"nvjpegDecoderStateCreate", address(decoder_state_create)},
        {"nvjpegDecoderJpegSupported", address(decoder_supported)},
        {"nvjpegBufferPinnedCreate", address(pinned_create)},
        {"nvjpegBufferPinnedDestroy", address(destroy_as<of_pinned, BufferTag>)},
        {"nvjpegBufferDeviceCreate", address(device_create)},
        {"nvjpegBufferDeviceDestroy", address(destroy_as<of_device, BufferTag>)},
        {"nvjpegStateAttachPinnedBuffer", address(attach_pinned)},
        {"nvjpegStateAttachDeviceBuffer", address(attach_device)},
        {"nvjpegDecodeJpegHost", address(phase_host)},
        {"nvjpegDecodeJpegTransferToDevice", address(phase_transfer)},
        {"nvjpegDecodeJpegDevice", address(phase_device)},
    };
    const auto found = functions.find(name);
    return found == functions.end() || name == nvjpeg_world.absent ? nullptr : found->second;
}

}  // namespace rn50::fake

namespace rn50::cuda {

namespace {

uint8_t rounded(int32_t sum, int shift) {
    sum = (sum + (1 << (shift - 1))) >> shift;
    return static_cast<uint8_t>(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

}  // namespace

/// In the kernels' place, which tests/test_resize_kernels.cpp tests.
void resize_picture(cudaStream_t stream, const uint8_t* src, int64_t src_h, int64_t src_w,
                    const DeviceFilter& horizontal, const DeviceFilter& vertical, uint8_t* rows, uint8_t* dst,
                    int64_t dst_h, int64_t dst_w) {
    fake::push(stream, [=] {
        for (int64_t y = 0; y < src_h; ++y)
            for (int64_t i = 0; i < dst_w * 3; ++i) {
                const int64_t x = i / 3;
                int32_t sum = 0;
                for (int64_t t = 0; t < horizontal.count[x]; ++t)
                    sum += src[(y * src_w + horizontal.first[x] + t) * 3 + i % 3] *
                           horizontal.weights[x * horizontal.taps + t];
                rows[y * dst_w * 3 + i] = rounded(sum, horizontal.shift);
            }
        for (int64_t y = 0; y < dst_h; ++y)
            for (int64_t i = 0; i < dst_w * 3; ++i) {
                int32_t sum = 0;
                for (int64_t t = 0; t < vertical.count[y]; ++t)
                    sum += rows[(vertical.first[y] + t) * dst_w * 3 + i] * vertical.weights[y * vertical.taps + t];
                dst[y * dst_w * 3 + i] = rounded(sum, vertical.shift);
            }
    });
}

}  // namespace rn50::cuda
