// Who decodes the training pictures: --decode auto and gpu come down to what there is, by measurement.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "backend/backend.h"
#include "cli/options.h"
#include "comm/comm.h"
#include "pipeline/loader.h"

namespace rn50 {

struct Decoding {
    std::string way;                            ///< region|whole|gpu
    std::unique_ptr<PictureDecoders> decoders;  ///< where the way is gpu
    int64_t device_bytes = 0;                   ///< what they take of the device's memory
};

/// The device's side of the choice.
struct DeviceDecoding {
    std::unique_ptr<PictureDecoders> decoders;
    std::string why_not;                   ///< where there are none
    std::function<int64_t()> free_memory;  ///< bytes of the device, now
};

/// Resolves --decode `asked` for the pictures of `source`, loaded as `loading` says. auto takes the device's decoders
/// where they make at least a tenth more of some hundred pictures a second than the CPU's with the same workers, which
/// is said in a line; else, and where nothing is cropped (`why_idle`; "": something is), region. Throws
/// Error(Exit::device) for gpu where the device decodes nothing.
Decoding choose_decoding(const std::string& asked, const std::string& why_idle, DeviceDecoding device,
                         const Source& source, const LoaderOptions& loading, Memory& host_memory);

/// The same for a training, whose `options` say --decode as resolved from then on, so that run.toml repeats it: other
/// ways give other pixels. All ranks of `comm` (null: there is one) take the same. `loading`: of the training.
Decoding resolve_decoding(Options& options, Backend& backend, Communicator* comm, const Source& source,
                          const LoaderOptions& loading);

/// Says once, and how many, when crops were left to the CPU.
void tell_declined(const Loader& loader);

}  // namespace rn50
