#include "tensor/arena.h"

#include <algorithm>
#include <cstdlib>
#include <iomanip>

#include "base/math.h"

namespace rn50 {

namespace {

// Counting arenas hand out addresses from here up, so that no tensor looks absent.
char* const counting_base = reinterpret_cast<char*>(uintptr_t{1} << 40);

constexpr bool sanitized =
#if defined(__SANITIZE_ADDRESS__)
    true;
#else
    false;
#endif

}  // namespace

const char* name_of(Use use) {
    switch (use) {
        case Use::parameters: return "parameters";
        case Use::gradients: return "gradients";
        case Use::wire: return "gradients on the wire";
        case Use::optimizer: return "optimizer state";
        case Use::statistics: return "statistics";
        case Use::input: return "input";
        case Use::activations: return "activations";
        case Use::activation_gradients: return "activation gradients";
        case Use::packed_weights: return "packed weights";
        case Use::workspace: return "workspace";
        case Use::library_workspace: return "library workspace";
        case Use::count_: break;
    }
    return "?";
}

std::string table_row(const NamedBytes& row) {
    std::ostringstream out;
    out << "  " << std::left << std::setw(26) << row.name << std::right << std::setw(10) << std::fixed
        << std::setprecision(1) << static_cast<double>(row.bytes) / 1e6 << " MB\n";
    return out.str();
}

int64_t MemoryPlan::total() const {
    int64_t bytes = peak;
    for (const NamedBytes& row : beside)
        bytes += row.bytes;
    return bytes;
}

std::string MemoryPlan::table() const {
    std::vector<std::pair<int64_t, std::string>> rows;
    int64_t named = 0;
    for (size_t use = 0; use < by_use.size(); ++use) {
        named += by_use[use];
        if (by_use[use]) rows.emplace_back(by_use[use], name_of(static_cast<Use>(use)));
    }
    for (const auto& [name, bytes] : beside)
        if (bytes > 0) rows.emplace_back(bytes, name);
    std::sort(rows.rbegin(), rows.rend());
    if (peak > named) rows.emplace_back(peak - named, "gaps between tensors");
    rows.emplace_back(total(), "peak");
    std::string table;
    for (const auto& [bytes, name] : rows)
        table += table_row({name, bytes});
    return table;
}

Arena::Arena() : base_(counting_base), capacity_(int64_t{1} << 60) {
    blocks_.push_back({0, capacity_, Use::workspace, true, nullptr});
}

Arena::Arena(Memory& memory, int64_t bytes) : memory_(&memory), capacity_(align_up(bytes, alignment)) {
    const char* chosen = std::getenv("RN50_ARENA");
    const std::string mode = chosen ? chosen : sanitized ? "separate" : "";
    RN50_REQUIRE(mode.empty() || mode == "shared" || mode == "separate" || mode == "nan", "RN50_ARENA=", mode);
    mode_ = mode == "separate" ? Mode::separate : mode == "nan" ? Mode::nan : Mode::shared;
    blocks_.reserve(4096);  // the step must not allocate
    if (mode_ == Mode::separate) return;
    base_ = static_cast<char*>(memory.allocate(capacity_));
    if (mode_ == Mode::nan) memory.fill(base_, 0xFF, capacity_);
    blocks_.push_back({0, capacity_, Use::workspace, true, nullptr});
}

Arena::~Arena() {
    if (!memory_) return;
    if (mode_ == Mode::separate) {
        for (const Block& block : blocks_)
            memory_->release(block.data, block.bytes);
    } else {
        memory_->release(base_, capacity_);
    }
}

void* Arena::take_separate(Use use, int64_t bytes, int64_t library) {
    // A block is used again only for the very same size, so that a checker still sees the end of every tensor.
    for (Block& block : blocks_)
        if (block.free && block.bytes == bytes) {
            block.free = false;
            block.use = use;
            block.library = library;
            note(block, in_use_ + bytes);
            return block.data;
        }
    void* data = memory_->allocate(bytes);
    memory_->fill(data, 0xFF, bytes);
    blocks_.push_back({0, bytes, use, false, data, library});
    note(blocks_.back(), in_use_ + bytes);
    return data;
}

/// Counts a block that is taken (1) or given back (-1).
void Arena::add(const Block& block, int sign) {
    in_use_ += sign * block.bytes;
    by_use_[static_cast<size_t>(block.use)] += sign * (block.bytes - block.library);
    by_use_[static_cast<size_t>(Use::library_workspace)] += sign * block.library;
}

void Arena::note(const Block& block, int64_t end) {
    add(block, 1);
    if (end > plan_.peak) {
        plan_.peak = end;
        plan_.by_use = by_use_;
    }
}

Tensor Arena::alloc(Use use, DType dtype, const Shape& shape) {
    return take(use, {nullptr, dtype, shape}, 0);
}

Tensor Arena::alloc_workspace(int64_t bytes, int64_t library_bytes) {
    RN50_REQUIRE(library_bytes >= 0 && library_bytes <= bytes, library_bytes, " bytes of a workspace of ", bytes);
    return take(Use::workspace, {nullptr, DType::u8, {bytes}}, library_bytes);
}

Tensor Arena::take(Use use, Tensor tensor, int64_t library) {
    if (mode_ == Mode::separate) {
        const int64_t bytes = std::max<int64_t>(tensor.bytes(), 1);
        tensor.data = take_separate(use, bytes, library);
        return tensor;
    }
    const int64_t bytes = align_up(std::max<int64_t>(tensor.bytes(), 1), alignment);
    // The rest behind the last tensor is taken only when no gap fits: its size differs between a counting and a real
    // arena, and must not decide.
    const auto rest_begin = blocks_.empty() || !blocks_.back().free ? blocks_.end() : blocks_.end() - 1;
    auto best = blocks_.end();
    for (auto block = blocks_.begin(); block != rest_begin; ++block)
        if (block->free && block->bytes >= bytes && (best == blocks_.end() || block->bytes < best->bytes)) best = block;
    if (best == blocks_.end() && rest_begin != blocks_.end() && rest_begin->bytes >= bytes) best = rest_begin;
    if (best == blocks_.end())
        throw Error(Exit::device, cat("the memory plan of ", capacity_, " bytes has no room for ", bytes, " bytes of ",
                                      name_of(use)),
                    "this is a defect of rn50; a smaller --batch-size avoids it");
    tensor.data = base_ + best->offset;
    const Block rest{best->offset + bytes, best->bytes - bytes, Use::workspace, true, nullptr};
    *best = {best->offset, bytes, use, false, nullptr, library};
    note(*best, rest.offset);
    if (rest.bytes > 0) blocks_.insert(best + 1, rest);
    return tensor;
}

uint64_t Arena::layout() const {
    uint64_t hash = 0xCBF29CE484222325u;  // FNV-1a
    for (const Block& block : blocks_)
        for (const int64_t number : {block.offset, block.bytes, int64_t{block.free}})
            hash = (hash ^ static_cast<uint64_t>(number)) * 0x100000001B3u;
    return hash;
}

Arena::Mark Arena::mark() const {
    Mark mark;
    mark.blocks_ = blocks_;
    mark.in_use_ = in_use_;
    mark.by_use_ = by_use_;
    return mark;
}

void Arena::rewind(const Mark& mark) {
    blocks_.assign(mark.blocks_.begin(), mark.blocks_.end());  // which keeps the room that was reserved
    in_use_ = mark.in_use_;
    by_use_ = mark.by_use_;
}

/// Fills released memory with NaN. Where the device is lost that fails, and the error which tells so is already on its
/// way or comes from the next op: a second one, thrown from a destructor, would end the program without any message.
void Arena::spoil(void* data, int64_t bytes) noexcept {
    try {
        memory_->fill(data, 0xFF, bytes);
    } catch (const Error&) {
    }
}

void Arena::release(Tensor& tensor) {
    if (!tensor) return;
    const auto match = [&](const Block& block) {
        return !block.free && (mode_ == Mode::separate ? block.data == tensor.data : base_ + block.offset == tensor.data);
    };
    auto block = std::find_if(blocks_.begin(), blocks_.end(), match);
    RN50_REQUIRE(block != blocks_.end(), "release of a tensor which this arena did not give");
    add(*block, -1);
    block->free = true;
    block->library = 0;
    tensor.data = nullptr;
    if (mode_ == Mode::separate) {
        spoil(block->data, block->bytes);
        return;
    }
    if (mode_ == Mode::nan) spoil(base_ + block->offset, block->bytes);
    if (block + 1 != blocks_.end() && (block + 1)->free) {
        block->bytes += (block + 1)->bytes;
        blocks_.erase(block + 1);
    }
    if (block != blocks_.begin() && (block - 1)->free) {
        (block - 1)->bytes += block->bytes;
        blocks_.erase(block);
    }
}

}  // namespace rn50
