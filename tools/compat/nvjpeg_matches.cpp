// cuda/nvjpeg_api.h beside nvJPEG's own header: the same numbers, and functions of the same arguments. Compiled only.
#include <nvjpeg.h>

#include "nvjpeg_api.h"

namespace ours = rn50::cuda::nvjpeg;

namespace {

template <class Mine, class Theirs>
struct Fits {
    static constexpr bool value = false;
};
/// Handles and enumerations have other names there, so it is the sizes that are compared.
template <class R, class... A, class S, class... B>
struct Fits<R (*)(A...), S (*)(B...)> {
    static constexpr bool all() {
        if constexpr (sizeof...(A) == sizeof...(B))
            return sizeof(R) == sizeof(S) && ((sizeof(A) == sizeof(B)) && ...);
        else
            return false;
    }
    static constexpr bool value = all();
};

#define RN50_LOOK(name)                                                            \
    static_assert(Fits<decltype(ours::Api::name), decltype(&nvjpeg##name)>::value, \
                  "nvjpeg" #name " takes other arguments")
#include "nvjpeg_functions.h"
#undef RN50_LOOK

static_assert(ours::backend_default == NVJPEG_BACKEND_DEFAULT &&
              ours::backend_gpu_hybrid == NVJPEG_BACKEND_GPU_HYBRID &&
              ours::backend_hardware == NVJPEG_BACKEND_HARDWARE && ours::output_rgbi == NVJPEG_OUTPUT_RGBI);
static_assert(ours::flag_strict == (NVJPEG_FLAGS_BITSTREAM_STRICT) &&
              ours::flag_interpolate == (NVJPEG_FLAGS_UPSAMPLING_WITH_INTERPOLATION));
static_assert(ours::major_version == MAJOR_VERSION && ours::minor_version == MINOR_VERSION &&
              ours::patch_level == PATCH_LEVEL && NVJPEG_STATUS_SUCCESS == 0);
static_assert(sizeof(ours::DeviceAllocator) == sizeof(nvjpegDevAllocator_t) &&
              Fits<decltype(ours::DeviceAllocator::take), tDevMalloc>::value &&
              Fits<decltype(ours::DeviceAllocator::give_back), tDevFree>::value);
static_assert(ours::max_components == NVJPEG_MAX_COMPONENT && sizeof(ours::Image) == sizeof(nvjpegImage_t));

}  // namespace
