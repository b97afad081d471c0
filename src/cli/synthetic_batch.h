// A batch of noise, to measure a net without a data set.
#pragma once

#include <cstdint>

#include "base/math.h"
#include "base/random.h"
#include "tensor/arena.h"

namespace rn50 {

/// In the memory that the loader's batches come in: `pictures` u8 {batch, size, size, channels}, `labels` i32 {batch}.
struct SyntheticBatch {
    SyntheticBatch(Memory& memory, int64_t batch, int64_t size, int64_t channels, int64_t classes)
        : arena(memory,
                align_up(batch * size * size * channels, Arena::alignment) + align_up(batch * 4, Arena::alignment)),
          pictures(arena.alloc(Use::input, DType::u8, {batch, size, size, channels})),
          labels(arena.alloc(Use::input, DType::i32, {batch})) {
        Random random(0, 0, 0, Purpose::demo);
        for (int64_t i = 0; i < pictures.count(); ++i)
            pictures.as<uint8_t>()[i] = static_cast<uint8_t>(random.u32() >> 24);
        for (int64_t i = 0; i < batch; ++i)
            labels.as<int32_t>()[i] = static_cast<int32_t>(random.below(static_cast<uint64_t>(classes)));
    }
    Arena arena;
    Tensor pictures, labels;
};

}  // namespace rn50
