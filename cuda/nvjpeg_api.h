// What is used of nvJPEG's interface, which stands in the library's documentation and has not changed from CUDA 11.1 to
// 13. Declared here because the library is looked for at run time: rn50 is built without it and its header.
// tools/check_compat.sh holds this against the headers.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace rn50::cuda::nvjpeg {

using Status = int;  ///< 0: success
using Handle = struct HandleTag*;
using Stream = struct StreamTag*;    ///< a parsed JPEG
using Params = struct ParamsTag*;    ///< what is wanted of it
using Decoder = struct DecoderTag*;  ///< a way to decode
using State = struct StateTag*;      ///< one decode under way
using Buffer = struct BufferTag*;

constexpr int major_version = 0, minor_version = 1, patch_level = 2;  ///< of GetProperty (libraryPropertyType)
constexpr int backend_default = 0, backend_gpu_hybrid = 2, backend_hardware = 3;
constexpr int output_rgbi = 5;  ///< interleaved RGB in plane 0
constexpr unsigned flag_strict = 1u << 2, flag_interpolate = 1u << 5;
constexpr int max_components = 4;

/// How the library takes and gives back device memory. 0: success.
struct DeviceAllocator {
    int (*take)(void** data, size_t bytes);
    int (*give_back)(void* data);
};

struct Image {
    unsigned char* channel[max_components];
    size_t pitch[max_components];
};

/// The library's functions, by their names without "nvjpeg".
struct Api {
    Status (*GetProperty)(int type, int* value);
    Status (*CreateEx)(int backend, DeviceAllocator*, void* pinned_allocator, unsigned flags, Handle*);
    Status (*Destroy)(Handle);
    Status (*JpegStreamCreate)(Handle, Stream*);
    Status (*JpegStreamDestroy)(Stream);
    Status (*JpegStreamParse)(Handle, const unsigned char* data, size_t length, int save_metadata, int save_stream,
                              Stream);
    Status (*JpegStreamGetComponentsNum)(Stream, unsigned* count);
    Status (*DecodeParamsCreate)(Handle, Params*);
    Status (*DecodeParamsDestroy)(Params);
    Status (*DecodeParamsSetOutputFormat)(Params, int format);
    Status (*DecodeParamsSetROI)(Params, int x, int y, int width, int height);
    // The hardware engine, which takes batches.
    Status (*JpegStateCreate)(Handle, State*);
    Status (*JpegStateDestroy)(State);
    Status (*DecodeBatchedInitialize)(Handle, State, int batch, int cpu_threads, int format);
    Status (*DecodeBatchedSupportedEx)(Handle, Stream, Params, int* unsupported);
    Status (*DecodeBatchedEx)(Handle, State, const unsigned char* const* data, const size_t* lengths, Image*, Params*,
                              cudaStream_t);
    // The GPU's own cores, in three phases.
    Status (*DecoderCreate)(Handle, int backend, Decoder*);
    Status (*DecoderDestroy)(Decoder);
    Status (*DecoderStateCreate)(Handle, Decoder, State*);
    Status (*DecoderJpegSupported)(Decoder, Stream, Params, int* unsupported);
    Status (*BufferPinnedCreate)(Handle, void* allocator, Buffer*);
    Status (*BufferPinnedDestroy)(Buffer);
    Status (*BufferDeviceCreate)(Handle, DeviceAllocator*, Buffer*);
    Status (*BufferDeviceDestroy)(Buffer);
    Status (*StateAttachPinnedBuffer)(State, Buffer);
    Status (*StateAttachDeviceBuffer)(State, Buffer);
    Status (*DecodeJpegHost)(Handle, Decoder, State, Params, Stream);
    Status (*DecodeJpegTransferToDevice)(Handle, Decoder, State, Stream, cudaStream_t);
    Status (*DecodeJpegDevice)(Handle, Decoder, State, Image*, cudaStream_t);
};

}  // namespace rn50::cuda::nvjpeg
