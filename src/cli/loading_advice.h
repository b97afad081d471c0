// What a run says when its net waits for pictures.
#pragma once

#include <cstdint>
#include <string>

namespace rn50 {

/// An epoch as far as loading goes.
struct LoadingFacts {
    double images_per_s = 0;         ///< reached
    double data_wait = 0;            ///< fraction of the time that the net waited for pictures, below 1
    double images_per_worker_s = 0;  ///< while a worker was at work
    int workers = 0, cores = 0;      ///< cores: those that the process may use
    bool net_uses_cores = false;     ///< the net computes on the processor too
    bool cached = false;             ///< decoded pictures are kept already
    int64_t image_size = 0;
    std::string data;
};

/// A shorter wait than this is not worth a word.
constexpr double data_wait_worth_telling = 0.05;

/// Images/s needed and made, and what would cure the wait: more workers where there are cores for them, else smaller
/// pictures, packed once.
std::string loading_advice(const LoadingFacts& facts);

}  // namespace rn50
