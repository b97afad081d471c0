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
#include "train/recorded_steps.h"
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
    bool record = false;                       ///< steps go to the device as a whole where it can: see RecordedSteps
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
    /// Of a step of this rank whose loss is not finite: where inf or NaN appeared first, in words ("the activations
    /// before layer1.0.bn2"), found in what came with the result. Else "".
    std::string not_finite;
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
    /// Of the oldest step that was not asked for: waits for it, and not for what was launched after it. So the device
    /// need not wait for the host between two steps: the next one may be launched before this is called, but not two.
    StepResult result();

    /// A step and an evaluation over pictures of zeros, so that the device's libraries take what they need of its memory
    /// and load their code before the run begins. Parameters, running statistics and optimizer are spoilt by it:
    /// initialize() or a stored state comes after. All ranks together.
    void rehearse();

    /// Where inf or NaN appeared first in the last step that was launched, in words: as StepResult::not_finite, or "the
    /// gradient of layer4.2.conv3.weight"; "" when all is finite. Waits for all that was launched.
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
    /// Null unless steps are to be recorded.
    const RecordedSteps* recorded_steps() const { return recorded_.get(); }

  private:
    /// A batch's place on the device. There are two, which take turns.
    struct Place {
        Tensor pictures, labels, partners, changes;  ///< the last two may be absent
        std::unique_ptr<Upload> upload;              ///< null in a dry run
        float share = 1;
        double weight = 0;                        ///< the sum of the weights of its labels and partners
        bool partnered = false, changed = false;  ///< what the batch has
    };
    /// What goes into a step by way of the host, and what comes out of it, in memory from and to which the device
    /// copies while the host goes on. There are two, which take turns: a step that is launched does not touch what the
    /// one before has left.
    struct Slot {
        Tensor lr, mean_weight;              ///< f32 {1}, into it
        Tensor step, share;                  ///< i32 {1}; f32 {accumulate}, into it
        Tensor loss, mean_weight_of_all;     ///< f32 {accumulate * batch}; f32 {1}, where there are class weights
        Tensor state;                        ///< u8 {sizeof(StepState)}
        Tensor observed;                     ///< as NetState's; absent in fp16, whose losses need not be finite
        std::unique_ptr<Download> download;  ///< null in a dry run
    };
    void allocate_places();
    void allocate_slots();
    /// Of the step that is being launched.
    Slot& slot() { return slots_[static_cast<size_t>(launched_ % 2)]; }
    void bring_result();
    std::string first_non_finite(const float* observed) const;
    double total_weight(const HostBatch& batch) const;
    void write_numbers(const Place& place, int64_t step, double lr, int64_t part);
    void compute(const Place& place, int64_t part);
    void gradients_of(const Place& place, int64_t part);
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
    Tensor step_number_, share_;  ///< i32 {1} and f32 {1}: what of a batch's ops differs from step to step
    std::array<Place, 2> places_;
    int64_t staged_ = 0, taken_ = 0;  ///< batches so far
    std::unique_ptr<Arena> host_;     ///< null in a dry run
    std::array<Slot, 2> slots_;
    int64_t launched_ = 0, asked_for_ = 0;  ///< steps so far
    std::vector<float> host_loss_, host_logits_;
    double weights_ = 0;                       ///< of the step's labels so far, of this rank
    std::unique_ptr<RecordedSteps> recorded_;  ///< the first to go
};

/// The memory that a Trainer of these options takes at its highest: a dry rehearsal.
MemoryPlan plan_memory(Backend& backend, const TrainerOptions& options);

}  // namespace rn50
