#include "cli/picture_options.h"

#include "base/log.h"

namespace rn50 {

PictureOptions evaluation_pictures(const Options& options) {
    PictureOptions pictures;
    pictures.image_size = options.image_size;
    pictures.channels = static_cast<int>(options.channels);
    pictures.bits = static_cast<int>(options.bits);
    pictures.resize = resize_from(options.resize);
    pictures.augment = Augment::none;
    return pictures;
}

PictureOptions training_pictures(const Options& options) {
    PictureOptions pictures = evaluation_pictures(options);
    pictures.augment = augment_from(options.augment);
    pictures.decode = options.decode == "whole" ? Decode::whole
                      : options.decode == "gpu" ? Decode::device
                                                : Decode::region;
    pictures.crop_scale_min = options.crop_scale[0];
    pictures.crop_scale_max = options.crop_scale[1];
    pictures.flip_horizontal = options.flip == "horizontal" || options.flip == "both";
    pictures.flip_vertical = options.flip == "vertical" || options.flip == "both";
    const auto jitter = static_cast<float>(options.jitter);
    pictures.jitter_brightness = pictures.jitter_contrast = pictures.jitter_saturation = jitter;
    pictures.rotate90 = options.rotate90;
    pictures.randaugment_ops = static_cast<int>(options.randaugment[0]);
    pictures.randaugment_magnitude = static_cast<int>(options.randaugment[1]);
    pictures.blur = options.blur;
    pictures.noise = options.noise;
    pictures.erasing = options.erasing;
    pictures.erasing_noise = options.erasing_fill == "noise";
    if (pictures.channels == 1 && (pictures.jitter_saturation > 0 || pictures.augment == Augment::randaugment ||
                                   pictures.augment == Augment::trivial))
        log::warn_once("no colour", "--channels 1: what changes the saturation of colours has nothing to do");
    return pictures;
}

DataOptions data_options(const Options& options) {
    return {options.val_split, static_cast<uint64_t>(options.seed), options.label_offset};
}

MixOptions mixing(const Options& options) {
    return {options.mixup, options.cutmix};
}

}  // namespace rn50
