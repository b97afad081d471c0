// Checkpoints: a net's weights as PyTorch reads them, with what one must know to use them, in one safetensors file.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "format/safetensors.h"
#include "model/net.h"
#include "pipeline/augment.h"

namespace rn50 {

/// What a checkpoint says beside its weights.
struct CheckpointInfo {
    std::string model;                 ///< "resnet50"
    std::vector<std::string> classes;  ///< names; a label is an index into them
    int64_t image_size = 224;
    Resize resize = Resize::squash;      ///< how a picture is made square
    int channels = 3;                    ///< 3: RGB, 1: grey
    int bits = 0;                        ///< that count of 16-bit pictures; 0: as the files say
    std::array<float, 3> mean{}, std{};  ///< of pixels / 255; the first `channels` of them count
    std::string precision;               ///< in which it was trained
};

/// Reads the metadata. Throws Error(Exit::data) when the file is no checkpoint of rn50: PyTorch's own weights lack the
/// names of the classes.
CheckpointInfo read_checkpoint_info(const SafetensorsReader& file);

/// Writes the net's parameters and running statistics, f32, under torchvision's names and in its layout.
/// `batches_tracked`: optimizer steps behind them. Throws Error(Exit::data).
void save_checkpoint(const std::string& path, Backend& backend, Context& ctx, const Net& net,
                     const CheckpointInfo& info, int64_t batches_tracked);

/// Fills the net's parameters and running statistics. Throws Error(Exit::data) naming the tensor and both shapes when
/// the file holds another net.
void load_checkpoint(const SafetensorsReader& file, Backend& backend, Context& ctx, const Net& net);

/// The same for a start from weights of others (--init): where the file's classifier is for other classes, the net's
/// own stays, and that is said. A net of one channel takes a first convolution for three, summed over them, which is
/// said too. `classes`: the net's.
void import_checkpoint(const SafetensorsReader& file, Backend& backend, Context& ctx, const Net& net,
                       const std::vector<std::string>& classes);

}  // namespace rn50
