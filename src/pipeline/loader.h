// Batches of pictures, decoded and rendered by worker threads into a ring of slots, in an order and with contents that
// do not depend on the number of workers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/picture_decoder.h"
#include "pipeline/augment.h"
#include "pipeline/cache.h"
#include "pipeline/mix.h"
#include "pipeline/sample_maker.h"
#include "pipeline/sampler.h"
#include "pipeline/source.h"
#include "tensor/arena.h"
#include "tensor/tensor.h"

namespace rn50 {

struct LoaderOptions {
    int64_t batch_size = 64;  ///< of this rank
    int workers = 0;          ///< threads; 0: one a core that this process may use, at most 32 (workers_of)
    int slots = 0;            ///< batches in the ring, at least 2; 0: 4
    uint64_t seed = 0;
    bool shuffle = false;    ///< a permutation by (seed, epoch); else the source's order
    bool balanced = false;   ///< shuffled so that every class comes equally often: BalancedSampler
    bool drop_last = false;  ///< leaves out the incomplete last step
    int64_t accumulate = 1;  ///< global batches in a step
    /// What becomes of a picture that cannot be decoded, or whose file is gone from a folder that is there. Replaced:
    /// by the next good one of the epoch's order, so that batches keep their size (training). Else it is left out and
    /// the batch is smaller (evaluation).
    bool replace_bad = false;
    /// Where reading fails otherwise (ReadError: a disk, a network, a shard that is gone) a worker tries again for so
    /// many seconds, and then the epoch ends: it is no picture's fault, so none is skipped for it.
    double read_patience_s = 30;
    /// More bad pictures than this share of the source end the epoch with an error. The rule has no floor: one bad
    /// picture of 50 is 2%.
    double max_bad = 0.01;
    PictureOptions pictures;
    /// Keeps decoded pictures; must outlive the loader. All pictures are decoded whole then, so that what a batch holds
    /// does not depend on which were kept.
    PictureCache* cache = nullptr;
    /// For pictures.decode == Decode::device: one decoder is made a worker. Must outlive the loader.
    PictureDecoders* decoders = nullptr;
    MixOptions mix;  ///< mixup and CutMix; needs replace_bad and drop_last
    /// Leaves what belongs to pixels to the consumer (Batch::changes); needs replace_bad, pictures that are augmented
    /// by no more than that (belongs_to_pixels()), and no mixing.
    bool changes_apart = false;
    /// Workers run at a priority lower by 10, for nets that compute on the same cores.
    bool give_way = false;
    int rank = 0, ranks = 1;
};

/// The threads that a loader of these options has.
int workers_of(const LoaderOptions& options);

/// Batches of so many bytes that a ring for training holds: as many as 256 MB hold, which outlasts some uneven
/// pictures, but from 4, so that loading and training overlap, to 16.
int ring_slots(int64_t batch_bytes);

/// A picture that could not be used.
struct BadPicture {
    int64_t index;  ///< in the source
    std::string name, reason;
};

/// Views of one slot of the ring; valid until the next call of next(), start_epoch() or stop().
struct Batch {
    Tensor images;      ///< u8 {count, S, S, channels}, host
    Tensor labels;      ///< i32 {count}, host
    Tensor partners;    ///< i32 {count}, host: the second labels of mixed pictures; absent without mixing
    float share = 1;    ///< of the labels beside the partners
    Tensor changes;     ///< u8 {count * sizeof(pixel::Changes)}, host: what is still to be done to each picture
                        ///< (Backend::augment); absent without changes_apart
    int64_t count = 0;  ///< >= 1
    std::vector<int64_t> indices;  ///< {count}, in the source: for names and predictions
};

/// Delivers the batches of one epoch after the other. The order of the epoch is the same for all ranks: global batch b
/// holds positions [b * B * ranks, (b + 1) * B * ranks), of which rank r takes the r-th part. In the incomplete last
/// global batch (without drop_last) the parts are as even as can be, so a rank may get one picture less, or none.
class Loader {
  public:
    /// Takes all memory of the ring from `host_memory`, which, like `source`, must outlive the loader. Throws
    /// Error(Exit::data) when drop_last leaves no batch at all.
    Loader(const Source& source, const LoaderOptions& options, Memory& host_memory);
    ~Loader();
    Loader(const Loader&) = delete;
    Loader& operator=(const Loader&) = delete;

    /// Starts to load an epoch from its batch `first_batch` on; drops what an earlier epoch left in the ring. Returns
    /// at once, so calling it before an evaluation lets the first batches load meanwhile.
    void start_epoch(int64_t epoch, int64_t first_batch = 0);
    /// The next batch, or null at the end of the epoch. Blocks while the batch is loading. Gives the previous batch
    /// back to the ring. Throws Error(Exit::data) when too many pictures are bad, ReadError when one cannot be read for
    /// long, and whatever else a worker met.
    const Batch* next();
    /// Whether next() would return a batch at once, without an error of reading.
    bool ready() const;
    /// Waits for the batch that next() will give, as next() would, but leaves the present one. The text of the
    /// ReadError that next() will throw; "" for anything else.
    std::string wait_for_next();
    /// Lets the workers finish the picture at hand and end; called by the destructor.
    void stop();

    int64_t batches_per_epoch() const;
    /// Seconds that next() has blocked since start_epoch().
    double wait_seconds() const;
    /// Pictures that one worker made a second of its work, in the epoch before this one; in the first, so far.
    double pictures_per_worker_s() const;
    /// Crops made so far, and how many of them the device's decoder did not take.
    struct Decoded {
        int64_t all, declined;
    };
    Decoded decoded() const;
    /// What the pictures were like, in all epochs so far.
    PicturesSeen seen() const;
    /// Bad pictures met so far, in all epochs, in the order of the batches delivered; each once.
    const std::vector<BadPicture>& bad() const;
    /// Throws as next() does when these, which the loaders of all ranks have met, are too many of the source.
    void require_few(const std::vector<BadPicture>& bad_of_ranks) const;
    /// Bytes of the ring.
    int64_t memory_bytes() const;
    int workers() const;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace rn50
