// JPEGs decoded by nvJPEG: the hardware engine where the GPU has one, else its cores.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "backend/picture_decoder.h"

namespace rn50::cuda {

/// Decoders on GPU `device` by the nvJPEG of this machine. Null: there is none, for the reason left in `why`.
std::unique_ptr<PictureDecoders> make_picture_decoders(int device, std::string& why);

/// The same with a library whose functions `find` gives by name; null where it has none.
std::unique_ptr<PictureDecoders> make_picture_decoders(int device, const std::function<void*(const char*)>& find,
                                                       std::string& why);

/// "12.2.5", or "" where there is none. Needs no GPU.
std::string nvjpeg_version();

}  // namespace rn50::cuda
