// All device memory that rn50 takes itself, it takes here: so it can tell how much that is, and for what. What the
// libraries take for themselves is measured (CudaBackend::memory_taken).
#pragma once

#include <array>
#include <map>
#include <mutex>
#include <vector>

#include "portable.h"
#include "tensor/arena.h"

namespace rn50::cuda {

enum class Taken : uint8_t { tensors, collectives, decoding, timing, count_ };

/// The words of the memory plan.
inline const char* name_of(Taken what) {
    switch (what) {
        case Taken::tensors:
            return "tensors";
        case Taken::collectives:
            return "exchange of the ranks";
        case Taken::decoding:
            return "decoding of pictures";
        case Taken::timing:
            return "timing of convolutions";
        case Taken::count_:
            break;
    }
    return "?";
}

/// Of this process, from any of its threads.
class Ledger {
  public:
    /// cudaMalloc. An error stays for cudaGetLastError().
    cudaError_t take(Taken what, void** data, int64_t bytes) {
        const cudaError_t status = cudaMalloc(data, static_cast<size_t>(bytes));
        if (status != cudaSuccess) return status;
        const std::lock_guard<std::mutex> lock(mutex_);
        blocks_[*data] = {what, bytes};
        bytes_[static_cast<size_t>(what)] += bytes;
        return cudaSuccess;
    }
    /// cudaFree, which waits for the device; of null: nothing.
    void give_back(void* data) {
        if (data == nullptr) return;
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            const auto block = blocks_.find(data);
            bytes_[static_cast<size_t>(block->second.what)] -= block->second.bytes;
            blocks_.erase(block);  // before the address may be given to another thread
        }
        cudaFree(data);
    }
    int64_t bytes(Taken what) const {
        const std::lock_guard<std::mutex> lock(mutex_);
        return bytes_[static_cast<size_t>(what)];
    }
    int64_t total() const {
        const std::lock_guard<std::mutex> lock(mutex_);
        int64_t sum = 0;
        for (const int64_t bytes : bytes_)
            sum += bytes;
        return sum;
    }
    /// What is held at the moment beside tensors.
    std::vector<NamedBytes> beside_tensors() const {
        std::vector<NamedBytes> rows;
        for (const Taken what : {Taken::collectives, Taken::decoding, Taken::timing})
            if (const int64_t held = bytes(what); held > 0) rows.push_back({name_of(what), held});
        return rows;
    }

  private:
    struct Block {
        Taken what;
        int64_t bytes;
    };
    mutable std::mutex mutex_;
    std::map<void*, Block> blocks_;
    std::array<int64_t, static_cast<size_t>(Taken::count_)> bytes_{};
};

/// It outlives all that holds memory.
inline Ledger& ledger() {
    static Ledger& the_ledger = *new Ledger;
    return the_ledger;
}

}  // namespace rn50::cuda
