// The owner of all memory of a run. The step asks it for every tensor by name, twice: once against an arena that only
// counts (the memory plan), then, with the same code, against the real one. So the peak is known before the first step.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace rn50 {

/// Where raw memory comes from: the host, a GPU. Implemented by each backend.
class Memory {
  public:
    virtual ~Memory() = default;
    /// `bytes` of memory aligned to at least Arena::alignment. Throws Error(Exit::device) when there is none.
    virtual void* allocate(int64_t bytes) = 0;
    virtual void release(void* data, int64_t bytes) = 0;
    /// Sets every byte to `value`.
    virtual void fill(void* data, int value, int64_t bytes) = 0;
};

/// What a tensor is for: the lines of the memory plan.
enum class Use : uint8_t {
    parameters,
    gradients,
    wire,
    optimizer,
    statistics,
    input,
    activations,
    activation_gradients,
    packed_weights,
    workspace,
    library_workspace,  ///< what the backend's libraries have of it for their own use
    count_
};
const char* name_of(Use use);

/// Bytes, and what they are for.
struct NamedBytes {
    std::string name;
    int64_t bytes = 0;
};

/// Bytes by use, at the moment when the total stood highest.
struct MemoryPlan {
    int64_t peak = 0;  ///< bytes the arena must have (gaps between tensors included)
    std::array<int64_t, static_cast<size_t>(Use::count_)> by_use{};
    /// What the run takes of the same memory beside its arena. An arena's own plan has none: see
    /// Backend::memory_taken().
    std::vector<NamedBytes> beside;

    int64_t total() const;
    /// A small table: one line a use, largest first, with those beside the arena, and the sum.
    std::string table() const;
};

/// A line of that table.
std::string table_row(const NamedBytes& row);

/// Hands out views in one block by best fit; the same sequence of calls always gives the same offsets.
/// RN50_ARENA=separate (the default under sanitizers) gives each tensor memory of its own, so that memory checkers see
/// its ends; RN50_ARENA=nan fills released memory with NaN bytes, so that a use after release shows.
class Arena {
  public:
    static constexpr int64_t alignment = 256;

    /// An arena that counts: its tensors carry offsets for addresses and must not be touched.
    Arena();
    /// An arena over one block of `bytes` taken from `memory`, which must outlive it.
    Arena(Memory& memory, int64_t bytes);
    ~Arena();
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;

    /// A tensor with undefined contents. Throws Error(Exit::device) when the block is full: the plan was wrong.
    Tensor alloc(Use use, DType dtype, const Shape& shape);
    /// A workspace, u8 {bytes}, of which a library has `library_bytes` for itself: these are counted apart.
    Tensor alloc_workspace(int64_t bytes, int64_t library_bytes);
    /// Gives a tensor back and makes `tensor` absent. Absent tensors are ignored. Throws only for a tensor that is not
    /// its own, so that owners may call it in their destructors while an error is on its way.
    void release(Tensor& tensor);

    bool counting() const { return memory_ == nullptr; }
    /// Whether released memory is written to at once (RN50_ARENA=separate and nan).
    bool spoils_released() const { return mode_ != Mode::shared; }
    /// A number for what is taken where: with the same one, the same calls give the same tensors. For
    /// RN50_ARENA=shared.
    uint64_t layout() const;

    /// What is taken at a moment.
    class Mark;
    Mark mark() const;
    /// As at `mark`, which everything taken then has outlived. What was taken since is gone, without release(): for
    /// work that broke off.
    void rewind(const Mark& mark);

    int64_t in_use() const { return in_use_; }
    /// The highest use so far.
    const MemoryPlan& plan() const { return plan_; }

  private:
    enum class Mode { shared, separate, nan };
    struct Block {
        int64_t offset;
        int64_t bytes;
        Use use;
        bool free;
        void* data;           // separate mode only
        int64_t library = 0;  // bytes of a workspace that are counted as Use::library_workspace
    };
    Tensor take(Use use, Tensor tensor, int64_t library);
    void* take_separate(Use use, int64_t bytes, int64_t library);
    void note(const Block& block, int64_t end);
    void add(const Block& block, int sign);
    void spoil(void* data, int64_t bytes) noexcept;

    Memory* memory_ = nullptr;
    Mode mode_ = Mode::shared;
    char* base_ = nullptr;
    int64_t capacity_ = 0;
    int64_t in_use_ = 0;
    std::vector<Block> blocks_;  // shared: by offset, without gaps; separate: every tensor ever given
    std::array<int64_t, static_cast<size_t>(Use::count_)> by_use_{};
    MemoryPlan plan_;
};

class Arena::Mark {
    friend class Arena;
    std::vector<Block> blocks_;
    int64_t in_use_ = 0;
    std::array<int64_t, static_cast<size_t>(Use::count_)> by_use_{};
};

/// A tensor that goes back to its arena at the end of the scope.
class Scratch {
  public:
    Scratch(Arena& arena, DType dtype, const Shape& shape, Use use = Use::workspace)
        : arena_(arena), tensor_(arena.alloc(use, dtype, shape)) {}
    /// As Arena::alloc_workspace.
    Scratch(Arena& arena, int64_t bytes, int64_t library_bytes = 0)
        : arena_(arena), tensor_(arena.alloc_workspace(bytes, library_bytes)) {}
    ~Scratch() { arena_.release(tensor_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    const Tensor& tensor() const { return tensor_; }

  private:
    Arena& arena_;
    Tensor tensor_;
};

}  // namespace rn50
