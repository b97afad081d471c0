// One training step and one evaluation over a net: the same code runs dry for the memory plan and for real.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "backend/backend.h"
#include "comm/comm.h"
#include "model/net.h"
#include "pipeline/loader.h"
#include "train/averaging.h"
#include "train/metrics.h"
#include "train/sync_norm.h"

namespace rn50 {

struct TrainerOptions {
    NetDesc net;              ///< its `accumulate` batches of each rank make a step
    OptimizerDesc optimizer;  ///< `ranges` come from the net's table
    float label_smoothing = 0;
    std::vector<float> class_weights;          ///< {classes}, of the training loss; empty: all 1
    bool mixed = false;                        ///< batches have partners
    bool changes = false;                      ///< batches have pictures that are still to be augmented
    float clip_norm = 0;                       ///< global L2 norm of the gradients; 0: no clipping
    float loss_scale = 0;                      ///< constant; 0: dynamic from 65536 in fp16, 1 elsewhere
    uint64_t seed = 0;                         ///< of starting values and dropout
    Communicator* comm = nullptr;              ///< the other ranks; must outlive the trainer. Null: there are none
    bool sync_norm = false;                    ///< batch-norm statistics over all ranks
    int64_t bucket_bytes = int64_t{16} << 20;  ///< of gradients averaged at a time: see bucket_bounds()
    DType wire = DType::f32;                   ///< as which they go from rank to rank: f32, f16 or bf16
};

/// A whole batch in host memory.
struct HostBatch {
    const void* pictures;           ///< u8 {batch, S, S, C}
    const void* labels;             ///< i32 {batch}
    const void* partners;           ///< i32 {batch}, the second labels of mixed pictures; null: none
    float share;                    ///< of the labels beside the partners
    const void* changes = nullptr;  ///< pixel::Changes {batch}, of pictures that are still to be augmented; null: none
};

/// What one step has found.
struct StepResult {
    double loss = 0;  ///< mean over the step's pictures, by class weights where there are some; of this rank, so that
                      ///< the mean over the ranks is that of all
    StepState state;  ///< grad_norm, loss_scale, skip, ...
};

class Trainer {
  public:
    /// Prepares the net and takes from `arena` all that stays for the whole run. With a counting arena every call is
    /// dry. `backend` and `arena` must outlive the trainer.
    Trainer(Backend& backend, Arena& arena, const TrainerOptions& options);
    ~Trainer();
    Trainer(const Trainer&) = delete;
    Trainer& operator=(const Trainer&) = delete;

    /// Starting values of parameters, running statistics and optimizer, as a function of the seed.
    void initialize();
    /// Parameters, running statistics and optimizer become rank 0's. Nothing without other ranks.
    void follow_rank_0();

    /// Begins to bring a whole batch to the device, beside what it computes. One batch may wait there while another is
    /// trained on. The host's memory is read until uploaded().
    void stage(const HostBatch& batch);
    /// Waits until all staged batches have left the host's memory.
    void uploaded();
    /// Forward and backward with the batch that was staged first. `step` counts the steps of the run from 0, `part` the
    /// batches of the step: their gradients add up, and with the last one the parameters are updated.
    void step(int64_t step, double lr, int64_t part = 0);
    /// The same with a batch that has left the host's memory when this returns.
    void step(const HostBatch& batch, int64_t step, double lr, int64_t part = 0);
    void step(const void* pictures, const void* labels, int64_t step, double lr) {
        this->step({pictures, labels, nullptr, 1}, step, lr);
    }
    /// Waits for the step.
    StepResult result();

    /// A step and an evaluation over pictures of zeros, so that the device's libraries take what they need of its memory
    /// and load their code before the run begins. Parameters, running statistics and optimizer are spoilt by it:
    /// initialize() or a stored state comes after. All ranks together.
    void rehearse();

    /// Where inf or NaN appeared first in the last step, in words: "the activations before layer1.0.bn2", or "the
    /// gradient of layer4.2.conv3.weight"; "" when all is finite.
    std::string first_non_finite();

    /// Everything in `loader`, and in those of the other ranks, through the net as it infers, with rank 0's running
    /// statistics; all ranks get the metrics of all. `each` is called with the number of pictures so far, and
    /// false from it ends the evaluation early.
    EvalMetrics evaluate(Loader& loader, const std::function<bool(int64_t)>& each);

    Backend& backend() { return backend_; }
    Context& context() { return context_; }
    const TrainerOptions& options() const { return options_; }
    const Net& net() const { return *net_; }
    /// What a resumed run needs beside the net's state, in device memory.
    const Tensor& moment1() const { return moment1_; }
    const Tensor& moment2() const { return moment2_; }  ///< absent for SGD
    const Tensor& step_state() const { return step_state_; }

  private:
    /// A batch's place on the device. There are two, which take turns.
    struct Place {
        Tensor pictures, labels, partners, changes;  ///< the last two may be absent
        std::unique_ptr<Upload> upload;              ///< null in a dry run
        float share = 1;
        double weight = 0;                        ///< the sum of the weights of its labels and partners
        bool partnered = false, changed = false;  ///< what the batch has
    };
    void allocate_places();
    double total_weight(const HostBatch& batch) const;
    void gradients_of(const Place& place, int64_t step, int64_t part);
    void begin_mean_weight();
    void update();
    void infer_all(Loader& loader, const Tensor& logits, EvalMetrics& metrics,
                   const std::function<bool(int64_t)>& each);
    void infer(const void* pictures, const void* labels, int64_t count, const Tensor& logits);

    Backend& backend_;
    Context context_;
    TrainerOptions options_;
    ScalePolicy scale_;
    std::unique_ptr<SyncNorm> sync_norm_;  ///< must outlive the net
    std::unique_ptr<Net> net_;
    std::unique_ptr<GradientAveraging> averaging_;  ///< null without other ranks
    Tensor moment1_, moment2_, optimizer_table_, step_state_, augmented_, class_weights_, mean_weight_, loss_;
    std::array<Place, 2> places_;
    int64_t staged_ = 0, taken_ = 0;  ///< batches so far
    std::vector<float> host_loss_, host_logits_;
    float lr_ = 0;
    double weights_ = 0;  ///< of the step's labels so far, of this rank
    float mean_ = 1;      ///< of the weights of the step's labels, of this rank; on the device then that of all
};

/// The memory that a Trainer of these options takes at its highest: a dry rehearsal.
MemoryPlan plan_memory(Backend& backend, const TrainerOptions& options);

}  // namespace rn50
