// safetensors: the file format of checkpoints. Eight bytes of header length (little endian), a JSON header that gives
// each tensor's dtype, shape and place, then the bytes of all tensors without gaps.
// https://huggingface.co/docs/safetensors: what is written here Python's safetensors reads, and the other way round.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace rn50 {

/// Dimensions of a stored tensor; unlike Shape of any rank, since files of others hold more than ours do.
using Dims = std::vector<int64_t>;
Dims dims_of(const Shape& shape);
/// "64x3x7x7"; "scalar" for rank 0.
std::string str(const Dims& dims);

/// One tensor of a file.
struct TensorEntry {
    std::string name;
    std::string dtype;  ///< as the file spells it: "F32", "BF16", "I64", ...
    Dims dims;
    int64_t offset = 0;  ///< of the first byte, from the start of the file
    int64_t bytes = 0;
    int64_t count() const;
};

/// Reads a file; the whole header is validated at once, so that a damaged or foreign file is refused at the door.
class SafetensorsReader {
  public:
    /// Throws Error(Exit::data) that says which file, which tensor and what is wrong with it.
    explicit SafetensorsReader(const std::string& path);
    ~SafetensorsReader();
    SafetensorsReader(const SafetensorsReader&) = delete;
    SafetensorsReader& operator=(const SafetensorsReader&) = delete;

    const std::string& path() const { return path_; }
    /// By name, in alphabetical order.
    const std::map<std::string, TensorEntry>& entries() const { return entries_; }
    bool has(const std::string& name) const { return entries_.count(name) != 0; }
    /// Throws Error(Exit::data) when the file lacks it.
    const TensorEntry& entry(const std::string& name) const;
    const std::map<std::string, std::string>& metadata() const { return metadata_; }

    /// Reads all of one tensor into `dst` (count of `dims` elements of `wanted`). F16, BF16 and F64 become f32 when f32
    /// is wanted; any other difference of dtype, and any difference of shape, throws Error(Exit::data) with both.
    void read(const std::string& name, const Dims& dims, DType wanted, void* dst) const;
    /// The same for a host tensor.
    void read(const std::string& name, const Tensor& dst) const { read(name, dims_of(dst.shape), dst.dtype, dst.data); }

  private:
    void read_header();

    std::string path_;
    int descriptor_ = -1;
    std::map<std::string, TensorEntry> entries_;
    std::map<std::string, std::string> metadata_;
};

/// Gathers tensors and writes them as one file.
class SafetensorsWriter {
  public:
    /// Writes all bytes of one tensor into `dst`.
    using Fill = std::function<void(void* dst)>;

    /// `data` must live until write(); it is not copied.
    void add(const std::string& name, DType dtype, const Dims& dims, const void* data);
    /// `fill` is called within write(), for one tensor after the other, so that a file whose tensors have to be
    /// transposed or fetched from a device needs scratch memory for its largest tensor only.
    void add(const std::string& name, DType dtype, const Dims& dims, Fill fill);
    void set_metadata(const std::string& key, const std::string& value) { metadata_[key] = value; }

    /// Writes through an AtomicFile; throws Error(Exit::data). May be called again.
    void write(const std::string& path) const;

  private:
    struct Item {
        std::string name;
        DType dtype;
        Dims dims;
        int64_t bytes;
        const void* data;
        Fill fill;
    };
    void add(Item item);
    std::string header() const;

    std::vector<Item> items_;
    std::map<std::string, std::string> metadata_;
};

}  // namespace rn50
