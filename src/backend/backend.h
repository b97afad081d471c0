// The one page of op contracts. Every backend (cpu/ beside this file, ../../cuda) does exactly this, and the tests hold
// each one to it, beside a naive version in double precision.
//
// Conventions. Pictures are {N, H, W, C}. "act" is the activation dtype of the precision (f32, f16, bf16); everything
// about parameters and statistics is f32. Outputs are overwritten unless the text says "added to". Outputs never
// overlap inputs unless it says "in place". Sums over many elements are accumulated in f32 or wider, in a fixed order:
// the same call gives the same bits. Every public entry checks its contract, then calls the virtual do_...; in a dry
// run (Context::dry) it stops there, having taken and returned its workspace.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/picture_decoder.h"
#include "backend/types.h"

namespace rn50 {

/// A square convolution without bias. Output side: (side + 2 * pad - kernel) / stride + 1.
struct ConvDesc {
    std::string name;  ///< for profiles and messages: "layer1.0.conv1"
    int64_t batch = 0, height = 0, width = 0, in_channels = 0, out_channels = 0;
    int64_t kernel = 1, stride = 1, pad = 0;
    DType src_dtype = DType::f32;  ///< act, or u8 for the picture itself
    DType dtype = DType::f32;      ///< act: dst and all activation gradients
    bool tf32 = false;             ///< products of f32 may round their factors to tf32
    bool training = true;          ///< false: only pack() and infer() will be called

    Shape src_shape() const { return {batch, height, width, in_channels}; }
    Shape dst_shape() const {
        return {batch, (height + 2 * pad - kernel) / stride + 1, (width + 2 * pad - kernel) / stride + 1, out_channels};
    }
    Shape weights_shape() const { return {out_channels, kernel, kernel, in_channels}; }
};

/// One convolution, prepared. `weights`: f32 {K, kh, kw, C}; in 16-bit precisions the products take them rounded to
/// act. For infer() the batch may be smaller than the description's.
class Conv {
  public:
    explicit Conv(ConvDesc desc) : desc_(std::move(desc)) {}
    virtual ~Conv() = default;
    const ConvDesc& desc() const { return desc_; }
    /// Whether forward() and backward() also take weights that are rounded to act already, with the same result: then
    /// the weights of a whole net may be rounded at once, by Backend::convert().
    virtual bool takes_rounded_weights() const { return false; }

    /// dst = conv(src, weights), and its statistics over N, H, W:
    /// stats {2, K} f32 = mean, M2 = sum((dst - mean)^2), of dst as stored; absent stats are not computed.
    void forward(Context& ctx, const Activation& src, const Tensor& weights, const Tensor& dst, const Tensor& stats);

    /// With d_raw the norm's backward of diff_dst (see NormGradient):
    /// diff_weights = or += sum over N and pixels of src * d_raw (f32, the weights' shape);
    /// diff_src, when given, receives conv^T(d_raw, weights) as its own contract says; never for u8 pictures.
    void backward(Context& ctx, const Activation& src, const Tensor& weights, const DiffDst& diff_dst,
                  const DiffSrc* diff_src, const Tensor& diff_weights, Write write_weights);

    /// Bytes of the packed form of the weights, in which a norm is folded: u8 {packed_bytes()}.
    virtual int64_t packed_bytes() const = 0;
    /// packed = weights * norm.scale by output channel, with bias norm.shift.
    void pack(Context& ctx, const Tensor& weights, const Norm& norm, const Tensor& packed);
    /// dst = conv(src, packed) + bias (+ residual), then max(0, .) if relu. residual: dst's shape, may
    /// be absent, or dst itself (in place).
    void infer(Context& ctx, const Activation& src, const Tensor& packed, const Tensor& residual, bool relu,
               const Tensor& dst);

    enum class Phase { forward, backward, pack, infer };
    /// Scratch memory of one phase, taken from the context's arena at each call (u8), and what of it is the library's
    /// own: the memory plan names that apart.
    virtual int64_t workspace_bytes(Phase phase) const = 0;
    virtual int64_t library_workspace_bytes(Phase) const { return 0; }

  protected:
    virtual void do_forward(const Activation& src, const Tensor& weights, const Tensor& dst, const Tensor& stats,
                            const Tensor& workspace) = 0;
    virtual void do_backward(const Activation& src, const Tensor& weights, const DiffDst& diff_dst,
                             const DiffSrc* diff_src, const Tensor& diff_weights, Write write_weights,
                             const Tensor& workspace) = 0;
    virtual void do_pack(const Tensor& weights, const Norm& norm, const Tensor& packed, const Tensor& workspace) = 0;
    virtual void do_infer(const Activation& src, const Tensor& packed, const Tensor& residual, bool relu,
                          const Tensor& dst, const Tensor& workspace) = 0;

  private:
    void check_weights(const Tensor& weights) const;

    ConvDesc desc_;
};

/// dst = src * weights^T + bias. src {N, C} act, weights {K, C} f32, bias {K} f32, dst {N, K} f32. N may be smaller
/// than the description's. In 16-bit precisions the weights and diff_dst are rounded to act before the product.
struct LinearDesc {
    std::string name;
    int64_t batch = 0, in_features = 0, out_features = 0;
    DType dtype = DType::f32;  ///< act
    bool tf32 = false;         ///< as ConvDesc's
};

class Linear {
  public:
    explicit Linear(LinearDesc desc) : desc_(std::move(desc)) {}
    virtual ~Linear() = default;
    const LinearDesc& desc() const { return desc_; }

    void forward(Context& ctx, const Tensor& src, const Tensor& weights, const Tensor& bias, const Tensor& dst);
    /// diff_src {N, C} act = diff_dst * weights; diff_weights {K, C} = or += diff_dst^T * src;
    /// diff_bias {K} = or += the sum of diff_dst over N. diff_dst {N, K} f32.
    void backward(Context& ctx, const Tensor& src, const Tensor& weights, const Tensor& diff_dst,
                  const Tensor& diff_src, const Tensor& diff_weights, const Tensor& diff_bias, Write write_weights);
    virtual int64_t workspace_bytes() const = 0;
    virtual int64_t library_workspace_bytes() const { return 0; }  ///< as Conv's

  protected:
    virtual void do_forward(const Tensor& src, const Tensor& weights, const Tensor& bias, const Tensor& dst,
                            const Tensor& workspace) = 0;
    virtual void do_backward(const Tensor& src, const Tensor& weights, const Tensor& diff_dst, const Tensor& diff_src,
                             const Tensor& diff_weights, const Tensor& diff_bias, Write write_weights,
                             const Tensor& workspace) = 0;

  private:
    LinearDesc desc_;
};

/// A part [begin, end) of the parameter buffer that is decayed or not.
struct ParameterRange {
    int64_t begin, end;
    bool decay;
};

/// AdamW: decoupled decay (Loshchilov & Hutter, 2019), in torch.optim.AdamW's order of operations:
///   p -= lr * weight_decay * p;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
///   p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
/// SGD: coupled decay, torch.optim.SGD's (dampening 0):
///   g += weight_decay * p;  buf = momentum * buf + g (buf = g at t = 1);
///   p -= lr * (nesterov ? g + momentum * buf : buf)
struct OptimizerDesc {
    enum class Kind : uint8_t { adamw, sgd } kind = Kind::adamw;
    float beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f;  // AdamW
    float momentum = 0.9f;                            // SGD
    bool nesterov = true;                             // SGD; without effect at momentum 0
    float weight_decay = 0;
    std::vector<ParameterRange> ranges;  ///< ascending, without overlap; elements outside are not touched
};

/// What a backend is and has.
struct DeviceInfo {
    std::string kind;                               ///< "cpu", "cuda"
    std::string name;                               ///< the processor's own name
    std::string library;                            ///< "oneDNN 2.6.3", "cuDNN 9.13"
    int threads = 0;                                ///< CPU threads in use; 0 on a GPU
    int64_t total_memory = 0, free_memory = 0;      ///< bytes
    bool bf16 = false, fp16 = false, tf32 = false;  ///< precisions with hardware behind them
};

/// What the loss compares N logits with: for each sample one label, or two that share it, and the weights of classes.
struct Targets {
    Targets() = default;
    Targets(const Tensor& only_labels) : labels(only_labels) {}  // implicit: the plain case is the common one

    Tensor labels;         ///< {N} i32 in [0, K)
    Tensor partners;       ///< {N} i32 in [0, K): the second labels; absent: there are none
    Tensor share;          ///< {1} f32: of `labels`, in [0, 1]; the partners have the rest. Present where they are
    Tensor class_weights;  ///< {K} f32, >= 0; absent: all 1
    /// What the gradient is divided by, for a mean over the global batch: the sum over its samples of
    /// share * weight[label] + (1 - share) * weight[partner]. Several ranks add up theirs before. 0: N.
    float total = 0;
};

/// Names one sample's random numbers in dropout: sample i of the batch is first_sample + i of the global batch.
struct DropoutKey {
    uint64_t seed = 0;
    Tensor step;  ///< {1} i32: of the run, from 0, modulo 2^32
    int64_t first_sample = 0;
};

/// What Backend::passes() works on: tensors as they meet around a convolution, {N, H, W, C}. Passes whose tensors are
/// absent are left out.
struct PassTensors {
    Activation src;    ///< u8 or act
    Tensor dst;        ///< act, src's shape; of u8 pictures as many channels as products take
    Tensor stats;      ///< {2, C} f32, of src.raw
    DiffDst diff_dst;  ///< its gradient goes to d_raw
    Tensor d_raw, g;   ///< act
    DiffSrc diff_src;  ///< where g is left
};

/// A pass over memory that is part of other ops, to be timed alone.
struct Pass {
    std::string name;
    int64_t bytes;  ///< each element that is read or written counted once
    std::function<void(Context&)> run;
};

/// What a process holds of its device's memory beside the tensors of Backend::memory().
struct MemoryTaken {
    std::vector<NamedBytes> beside;  ///< taken by the backend itself, for what
    /// By the device's context and its libraries, which ask nobody: free memory before, less that of now, less what is
    /// known. Other programs that take or give back memory meanwhile blur it. "": the device has nothing of the kind.
    NamedBytes libraries;
};

/// Copies from host_memory() that go on beside what the device computes. Not used after its backend's end.
class Upload {
  public:
    virtual ~Upload() = default;
    /// dst = host, of dst.bytes() bytes, once all that was queued before release() is done with dst. `host` stays as it
    /// is until wait().
    virtual void begin(const void* host, const Tensor& dst) = 0;
    /// What the backend does from now on finds all copies that were begun.
    virtual void use() = 0;
    /// What the backend was given so far is the last that touches them.
    virtual void release() = 0;
    /// Until the copies have left the host's memory.
    virtual void wait() = 0;
};

/// Copies to host_memory() that stand in the order of the backend's work, while the host goes on. Not used after its
/// backend's end.
class Download {
  public:
    virtual ~Download() = default;
    /// host = src, of src.bytes() bytes, as all that the backend was given so far leaves it; what it is given later may
    /// overwrite src. `host` is not to be read before wait(), nor to go before this object does.
    virtual void begin(const Tensor& src, void* host) = 0;
    /// Until all copies that were begun are there. What the backend was given after them is not waited for.
    virtual void wait() = 0;
};

/// Work that a backend has noted, to be given to the device as a whole: see Backend::record.
class Recording {
  public:
    virtual ~Recording() = default;
    /// Has the device do all of it, after what it was given before: the same ops on the same tensors. What these hold
    /// is read then.
    virtual void run() = 0;
};

class Backend {
  public:
    virtual ~Backend() = default;
    virtual DeviceInfo info() const = 0;
    /// Memory for tensors; and host memory from which copy_in is fast (pinned, on a GPU).
    virtual Memory& memory() = 0;
    virtual Memory& host_memory() = 0;
    /// Whether ops return before they are done, so that the host can prepare what comes next beside them. Where they
    /// are not, the host itself computes, and nothing is ever under way.
    virtual bool asynchronous() const { return false; }

    /// What of the device's memory is taken at the moment that memory() did not give.
    virtual MemoryTaken memory_taken() const { return {}; }

    // --- prepared ops; throw Error(Exit::device) for what this device cannot do ----------------------------------
    virtual std::unique_ptr<Conv> conv(const ConvDesc& desc) = 0;
    virtual std::unique_ptr<Linear> linear(const LinearDesc& desc) = 0;

    // --- batch norm ----------------------------------------------------------------------------------------------
    /// From statistics over `count` elements a channel (at least 2, else Error(Exit::usage): variance of one value):
    ///   inv_std = 1 / sqrt(M2 / count + eps), scale = gamma * inv_std, shift = beta - mean * scale;
    /// observed {2, C} f32 = mean and the unbiased variance M2 / (count - 1), for norm_update_running; may be absent.
    void norm_from_batch(Context& ctx, const Tensor& stats, int64_t count, const Tensor& gamma, const Tensor& beta,
                         float eps, const Norm& norm, const Tensor& observed);
    /// The same from constants: running {2, C} f32 = mean, variance.
    void norm_from_running(Context& ctx, const Tensor& running, const Tensor& gamma, const Tensor& beta, float eps,
                           const Norm& norm);
    /// From gathered sums (DiffSrc) over `count` elements: diff_gamma = or += sums[1], diff_beta = or += sums[0], and
    /// the coefficients of NormGradient (gradient.mean is not written; it is the forward's).
    void norm_backward(Context& ctx, const Tensor& sums, int64_t count, const Norm& norm, const Tensor& gamma,
                       const NormGradient& gradient, const Tensor& diff_gamma, const Tensor& diff_beta, Write write);
    /// running = (1 - momentum) * running + momentum * observed over all norms at once; nothing when state.skip.
    void norm_update_running(Context& ctx, const Tensor& observed, const Tensor& running, float momentum,
                             const Tensor& state);
    /// parts {R, 2, C} f32: what each of R ranks has. stats {2, C} f32 = mean and M2 over all of their elements, where
    /// each part is mean and M2 over `count` of them; sums {2, C} f32 = the sum of the parts. Both in the order of the
    /// ranks.
    void merge_statistics(Context& ctx, const Tensor& parts, int64_t count, const Tensor& stats);
    void sum_parts(Context& ctx, const Tensor& parts, const Tensor& sums);

    // --- between convolutions ------------------------------------------------------------------------------------
    /// dst = max(value(a) + value(b), 0): the end of a residual block. a and b are pending, without ReLU of their own.
    /// Its backward needs no op: both sides take the same dz.
    void join(Context& ctx, const Activation& a, const Activation& b, const Tensor& dst);
    /// 3x3 maximum, stride 2, padding 1 (never the maximum), of the pending src. dst {N, (H+1)/2, (W+1)/2, C} act.
    void max_pool(Context& ctx, const Activation& src, const Tensor& dst);
    /// The gradient goes to the first maximum of each window, rows first.
    void max_pool_backward(Context& ctx, const Activation& src, const Tensor& diff_dst, const DiffSrc& diff_src);
    /// dst {N, C} act = the mean over H and W of src {N, H, W, C} act.
    void avg_pool(Context& ctx, const Tensor& src, const Tensor& dst);
    /// g = diff_dst / (H * W) at every pixel, left as DiffSrc says.
    void avg_pool_backward(Context& ctx, const Tensor& diff_dst, const DiffSrc& diff_src);

    // --- classifier and loss -------------------------------------------------------------------------------------
    /// dst = src / (1 - p) where kept, 0 elsewhere; kept = Random(seed, step, sample, dropout), element c with its c-th
    /// uniform() >= p. The backward is the same call on the gradient. {N, C} act; in place allowed.
    void dropout(Context& ctx, const Tensor& src, const Tensor& dst, float p, const DropoutKey& key);
    /// loss {N} f32 = -sum over k of w_k q_k log softmax(logits)_k, with w = class_weights and
    ///   q = (1 - smoothing) * (share * onehot(label) + (1 - share) * onehot(partner)) + smoothing / K.
    /// diff_logits {N, K} f32 = its gradient / total * state.loss_scale; absent: evaluation, state may be absent too.
    /// sum(loss) / total and diff_logits are torch.nn.CrossEntropyLoss(weight, label_smoothing)'s mean, with partners
    /// share * that of the labels + (1 - share) * that of the partners, where these are the labels permuted.
    /// logits {N, K} f32. Labels are checked where the backend can see them.
    void softmax_cross_entropy(Context& ctx, const Tensor& logits, const Targets& targets, float smoothing,
                               const Tensor& state, const Tensor& loss, const Tensor& diff_logits);

    // --- the optimizer step, over whole buffers ------------------------------------------------------------------
    /// Looks at all (scaled) gradients f32 {P} once: sets grad_norm, skip, multiplier (clipping when clip_norm > 0),
    /// moves the loss scale by `policy` and counts t, good_steps, skipped. state: u8 {sizeof(StepState)}. The gradients
    /// meant are those in the buffer divided by `divisor` f32 {1}, > 0, which goes into norm and multiplier; absent: 1.
    void check_gradients(Context& ctx, const Tensor& gradients, float clip_norm, const ScalePolicy& policy,
                         const Tensor& state, const Tensor& divisor = {});
    /// Bytes of what optimize() reads beside its tensors: how this backend shares the ranges out. May be 0.
    virtual int64_t optimizer_table_bytes(const OptimizerDesc& desc) const = 0;
    /// Fills table, u8 {optimizer_table_bytes(desc)}, for all calls of optimize() with this description.
    void prepare_optimizer(Context& ctx, const OptimizerDesc& desc, const Tensor& table);
    /// One step over {P} f32 buffers with the gradients multiplied by state.multiplier; nothing when state.skip.
    /// moment2 is absent for SGD. table: from prepare_optimizer(); absent: made for this call, in workspace.
    void optimize(Context& ctx, const OptimizerDesc& desc, const Tensor& parameters, const Tensor& gradients,
                  const Tensor& moment1, const Tensor& moment2, const Tensor& state, const Tensor& table = {});

    // --- memory --------------------------------------------------------------------------------------------------
    void zero(Context& ctx, const Tensor& dst);
    /// dst = src, of the same shape: from f32 to f16 or bf16, or back. Rounds to nearest even; what is beyond the range
    /// becomes infinite.
    void convert(Context& ctx, const Tensor& src, const Tensor& dst);
    /// From and to host memory, of tensor.bytes() bytes. copy_out has finished when it returns; copy_in may still read
    /// host_memory() until synchronize(), or until a Download that was begun after it is there. From any other memory
    /// copy_in may wait for all that the backend was given before.
    void copy_in(Context& ctx, const void* host, const Tensor& dst);
    void copy_out(Context& ctx, const Tensor& src, void* host);
    void synchronize(Context& ctx);

    virtual std::unique_ptr<Upload> upload() = 0;
    virtual std::unique_ptr<Download> download() = 0;

    // --- recording -----------------------------------------------------------------------------------------------
    /// Notes what `work` gives to the device, and does not do it. Every number that an op takes from the host is noted
    /// with it, so what is to differ from run to run must stand in tensors: the learning rate and the loss scale
    /// (StepState), DropoutKey's step, Targets' share. `work` has run before, plainly, so that libraries are loaded and
    /// plans made; it takes no memory, waits for nothing, and copies nothing from or to the host. The collectives of
    /// one communicator belong to it when they are waited for within it; then all ranks record the same, and run their
    /// recordings at the same times. A recording goes before its communicator, its backend, and the memory of its
    /// tensors.
    /// Null: this device or this work cannot be recorded, for the reason left in `why`. The backend is as before; of
    /// what the host was to keep of `work` (tensors taken, counters) nothing is known.
    virtual std::unique_ptr<Recording> record(const std::function<void()>& work, std::string& why) {
        static_cast<void>(work);
        why = "this device records nothing";
        return nullptr;
    }

    // --- loading -------------------------------------------------------------------------------------------------
    /// dst[i] = src[i] turned, flipped, jittered and erased as changes[i] says, in the order and with the arithmetic of
    /// base/pixel_ops.h: every backend gives the same bits. src, dst u8 {N, S, S, C}, C 1 or 3; changes u8
    /// {N * sizeof(pixel::Changes)}.
    void augment(Context& ctx, const Tensor& src, const Tensor& changes, const Tensor& dst);
    /// What decodes JPEGs on this device, beside its training. Null: nothing does, for the reason left in `why`.
    virtual std::unique_ptr<PictureDecoders> picture_decoders(std::string& why) {
        why = "this device decodes no pictures";
        return nullptr;
    }

    // --- for `rn50 bench kernels` --------------------------------------------------------------------------------
    /// "copy", a plain copy of src.raw to dst, beside which every other pass is measured; and what this backend does as
    /// passes of their own around the products of its convolutions: "apply", "statistics", "norm gradient",
    /// "leave gradient".
    virtual std::vector<Pass> passes(const PassTensors&) { return {}; }

  protected:
    virtual void do_norm_from_batch(const Tensor& stats, int64_t count, const Tensor& gamma, const Tensor& beta,
                                    float eps, const Norm& norm, const Tensor& observed) = 0;
    virtual void do_norm_from_running(const Tensor& running, const Tensor& gamma, const Tensor& beta, float eps,
                                      const Norm& norm) = 0;
    virtual void do_norm_backward(const Tensor& sums, int64_t count, const Norm& norm, const Tensor& gamma,
                                  const NormGradient& gradient, const Tensor& diff_gamma, const Tensor& diff_beta,
                                  Write write) = 0;
    virtual void do_norm_update_running(const Tensor& observed, const Tensor& running, float momentum,
                                        const Tensor& state) = 0;
    virtual void do_merge_statistics(const Tensor& parts, int64_t count, const Tensor& stats) = 0;
    virtual void do_sum_parts(const Tensor& parts, const Tensor& sums) = 0;
    virtual void do_join(const Activation& a, const Activation& b, const Tensor& dst) = 0;
    virtual void do_max_pool(const Activation& src, const Tensor& dst) = 0;
    virtual int64_t max_pool_workspace_bytes(const Shape& src) const = 0;  ///< of the backward, as avg_pool's
    virtual int64_t avg_pool_workspace_bytes(const Shape& src) const = 0;
    virtual void do_max_pool_backward(const Activation& src, const Tensor& diff_dst, const DiffSrc& diff_src,
                                      const Tensor& workspace) = 0;
    virtual void do_avg_pool(const Tensor& src, const Tensor& dst) = 0;
    virtual void do_avg_pool_backward(const Tensor& diff_dst, const DiffSrc& diff_src, const Tensor& workspace) = 0;
    virtual void do_dropout(const Tensor& src, const Tensor& dst, float p, const DropoutKey& key) = 0;
    virtual void do_softmax_cross_entropy(const Tensor& logits, const Targets& targets, float smoothing,
                                          const Tensor& state, const Tensor& loss, const Tensor& diff_logits) = 0;
    virtual void do_check_gradients(const Tensor& gradients, float clip_norm, const ScalePolicy& policy,
                                    const Tensor& divisor, const Tensor& state, const Tensor& workspace) = 0;
    virtual int64_t gradients_workspace_bytes() const = 0;  ///< of check_gradients
    virtual void do_prepare_optimizer(const OptimizerDesc&, const Tensor& /*table*/) {}
    virtual void do_optimize(const OptimizerDesc& desc, const Tensor& parameters, const Tensor& gradients,
                             const Tensor& moment1, const Tensor& moment2, const Tensor& state,
                             const Tensor& table) = 0;
    virtual int64_t augment_workspace_bytes(int64_t pictures) const = 0;
    virtual void do_augment(const Tensor& src, const Tensor& changes, const Tensor& dst, const Tensor& workspace) = 0;
    virtual void do_zero(const Tensor& dst) = 0;
    virtual void do_convert(const Tensor& src, const Tensor& dst) = 0;
    virtual void do_copy_in(const void* host, const Tensor& dst) = 0;
    virtual void do_copy_out(const Tensor& src, void* host) = 0;
    virtual void do_synchronize() = 0;
};

/// Which backends this build has, best first: {"cuda", "cpu"} or fewer.
std::vector<std::string> backends_built_in();
/// "auto" takes the best that works on this machine and says which and why; "cpu" and "cuda" insist.
/// threads: 0 = all the process may use. local_rank: of the ranks on this machine, which have a GPU each. Throws
/// Error(Exit::device) with the remedy when it is not there.
std::unique_ptr<Backend> make_backend(const std::string& device, int threads = 0, int local_rank = 0);

}  // namespace rn50
