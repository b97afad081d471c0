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
    /// What they are to reserve() of the device's memory: what they took in a try, and a quarter more for larger crops.
    /// 0: there were too few pictures to try.
    int64_t device_bytes = 0;
    bool device_is_left = false;                ///< it could decode, does not, and was not found slower
};

/// The device's side of the choice.
struct DeviceDecoding {
    std::unique_ptr<PictureDecoders> decoders;
    std::string why_not;  ///< where there are none
    /// That the net takes of this rank, without waiting for them; asked only where the device decodes. Null: not known.
    std::function<double()> net_images_per_s = nullptr;
};

/// Images/s that the net comes to where the device decodes for it too: `beside` the net, on an engine of its own, or in
/// turns with it. `net`: what it takes alone; 0: not known, and left out.
double net_with_device(double decoded_by_device, double net, bool beside);
/// Whether that is a tenth more than with the CPU's decoding beside the net.
bool device_pays(double decoded_by_device, double decoded_by_cpu, double net, bool beside);

/// Resolves --decode `asked` for the pictures of `source`, loaded as `loading` says. auto stays with the CPU where it
/// makes 1.2 times as many of some hundred pictures a second as the net takes. Else it takes the device's decoders
/// where the net comes to at least a tenth more pictures with them than with the CPU's and the same workers, although
/// what a device without an engine for it decodes keeps it from the net; where the net is not known, where they decode
/// a tenth more. Either is said in a line. Where nothing is cropped (`why_idle`; "": something is), region. Throws
/// Error(Exit::device) for gpu where the device decodes nothing.
Decoding choose_decoding(const std::string& asked, const std::string& why_idle, DeviceDecoding device,
                         const Source& source, const LoaderOptions& loading, Memory& host_memory);

/// The same for a training, whose `options` say --decode as resolved from then on, so that run.toml repeats it: other
/// ways give other pixels. All ranks of `comm` (null: there is one) take the same. `loading`: of the training, whose
/// net takes `net_images_per_s`.
Decoding resolve_decoding(Options& options, Backend& backend, Communicator* comm, const Source& source,
                          const LoaderOptions& loading, const std::function<double()>& net_images_per_s);

/// Says once, and how many, when crops were left to the CPU.
void tell_declined(const Loader& loader);

}  // namespace rn50
