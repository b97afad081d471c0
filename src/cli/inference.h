// A net that answers, with all its memory from one arena: what eval, predict and bench infer stand on.
#pragma once

#include <cstdint>
#include <memory>

#include "backend/backend.h"
#include "model/net.h"

namespace rn50 {

class Inference {
  public:
    /// Bytes of the arena for a net of `desc` (training false), from a dry run. Throws Error(Exit::device) naming the
    /// largest batch that fits when this is more than the process may use.
    static int64_t plan(Backend& backend, const NetDesc& desc);

    /// Takes everything that stays from `arena`, which, like `backend`, must outlive it.
    Inference(Backend& backend, Arena& arena, const NetDesc& desc);
    ~Inference();
    Inference(const Inference&) = delete;
    Inference& operator=(const Inference&) = delete;

    /// Random weights, for measurements.
    void initialize(uint64_t seed);
    /// Once the weights are there: folds batch norm into them.
    void begin();
    /// u8 {count, S, S, C} in host memory to f32 {count, classes} there; count up to desc.batch.
    void run(const void* pictures, int64_t count, float* logits);

    const Net& net() const { return *net_; }
    Context& context() { return context_; }

  private:
    Backend& backend_;
    Context context_;
    std::unique_ptr<Net> net_;
    Tensor pictures_, logits_;
    bool begun_ = false;
};

}  // namespace rn50
