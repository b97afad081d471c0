// What a run says when its net waits for pictures.
#pragma once

#include <cstdint>
#include <string>

#include "pipeline/loader.h"

namespace rn50 {

/// An epoch as far as loading goes: of the rank that waited longest, where there are several.
struct LoadingFacts {
    double images_per_s = 0;  ///< reached, by all ranks
    double data_wait = 0;     ///< fraction of the time that the net waited for pictures, below 1
    int ranks = 1, rank = 0;
    double images_per_worker_s = 0;    ///< while a worker was at work
    int workers = 0;                   ///< of the rank
    int cores = 0;                     ///< of its machine, those that may be used
    int ranks_here = 1;                ///< that share them, and the machine's memory
    bool net_uses_cores = false;       ///< the net computes on the processor too
    int64_t cache_bytes = 0;           ///< room for decoded pictures that there is already
    int64_t usable_memory = 0;         ///< bytes of the machine that are still free; 0: not known
    PicturesSeen seen;                 ///< what was read
    int64_t pictures = 0;              ///< of all splits that are read again and again
    bool crops = true;                 ///< of a JPEG only the crop is decoded
    bool device_could_decode = false;  ///< the GPU does not decode, and was not found slower
    bool in_files = true;              ///< every picture is a file of its own
    int64_t image_size = 0;
    std::string data;
};

/// A shorter wait than this is not worth a word.
constexpr double data_wait_worth_telling = 0.05;

/// Images/s needed and made, and what would cure the wait, with the arithmetic: more workers where there are cores for
/// them; else what these pictures and this machine allow of a cache, smaller pictures, restart markers, the GPU.
std::string loading_advice(const LoadingFacts& facts);

/// What to say when the pictures of 16 bits that were seen use so little of the range that it cannot be meant; "": they
/// do not, or `bits` (--bits) says how many of them count, or these are too few pictures to judge by and not `all`.
std::string unused_bits(const PicturesSeen& seen, int64_t bits, bool all);
/// Says it, once.
void tell_unused_bits(const PicturesSeen& seen, int64_t bits, bool all);

}  // namespace rn50
