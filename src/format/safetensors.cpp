#include "format/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "base/files.h"
#include "base/half.h"
#include "base/math.h"

namespace rn50 {

namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t length_bytes = 8;
constexpr int64_t max_header_bytes = 100'000'000;  // the reference implementation's limit
constexpr char metadata_key[] = "__metadata__";

// In the order of the reference implementation, which sorts a file's tensors by it, the last first: so every tensor
// lies at a multiple of its element size.
struct StoredType {
    const char* name;
    int64_t bytes;
};
constexpr StoredType stored_types[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1},
                                       {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
                                       {"U32", 4},  {"F32", 4}, {"F64", 8}, {"I64", 8},     {"U64", 8}};

const StoredType* find_type(const std::string& name) {
    for (const StoredType& type : stored_types)
        if (name == type.name) return &type;
    return nullptr;
}

const char* stored_name(DType dtype) {
    switch (dtype) {
        case DType::f32:
            return "F32";
        case DType::f16:
            return "F16";
        case DType::bf16:
            return "BF16";
        case DType::u8:
            return "U8";
        case DType::i32:
            return "I32";
        case DType::i64:
            return "I64";
    }
    RN50_REQUIRE(false, "unknown dtype ", static_cast<int>(dtype));
}

/// Product of the dimensions; false when it, or its bytes, leave 63 bits.
bool count_of(const Dims& dims, int64_t element_bytes, int64_t& count) {
    count = 1;
    int64_t bytes = 0;
    for (const int64_t dim : dims)
        if (__builtin_mul_overflow(count, dim, &count)) return false;
    return !__builtin_mul_overflow(count, element_bytes, &bytes);
}

[[noreturn]] void damaged(const std::string& path, const std::string& what) {
    throw Error(Exit::data, cat(path, ": ", what),
                "the file is damaged or not a safetensors file; copy or write it again (rn50 keeps best and last)");
}

void read_bytes(int descriptor, const std::string& path, void* dst, int64_t bytes, int64_t offset) {
    char* at = static_cast<char*>(dst);
    while (bytes > 0) {
        const ssize_t got = pread(descriptor, at, static_cast<size_t>(bytes), offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            throw Error(Exit::data, with_errno("reading " + path), "check the disk and its file system (dmesg)");
        if (got == 0) damaged(path, cat("ends at byte ", offset, ", ", bytes, " bytes too early"));
        at += got;
        bytes -= got;
        offset += got;
    }
}

/// Parses the header and refuses what JSON itself allows: a key given twice, and nesting where none belongs.
Json parse_header(const std::string& path, const std::string& text) {
    std::set<std::string> seen[3];
    const Json::parser_callback_t check = [&](int depth, Json::parse_event_t event, Json& parsed) {
        if (depth > 3) damaged(path, "its header is nested too deeply");
        if (event != Json::parse_event_t::key) return true;
        if (depth == 1) seen[2].clear();
        const std::string& key = parsed.get_ref<const std::string&>();
        if (depth > 2 || !seen[depth].insert(key).second) damaged(path, cat("its header gives \"", key, "\" twice"));
        return true;
    };
    try {
        return Json::parse(text, check);
    } catch (const Json::parse_error& error) {
        damaged(path, cat("its header is no JSON, from byte ", error.byte, " of it on"));
    } catch (const Json::exception&) {
        damaged(path, "its header is no JSON");
    }
}

std::map<std::string, std::string> metadata_of(const std::string& path, const Json& json) {
    if (!json.is_object()) damaged(path, "its __metadata__ is no object");
    std::map<std::string, std::string> metadata;
    for (const auto& [key, value] : json.items()) {
        if (!value.is_string()) damaged(path, cat("its metadata \"", key, "\" is no string"));
        metadata[key] = value.get<std::string>();
    }
    return metadata;
}

std::vector<int64_t> whole_numbers(const std::string& path, const std::string& name, const char* key,
                                   const Json& list) {
    if (!list.is_array()) damaged(path, cat("tensor ", name, ": ", key, " is no list"));
    std::vector<int64_t> numbers;
    for (const Json& number : list) {
        if (!number.is_number_unsigned() || number.get<uint64_t>() > INT64_MAX)
            damaged(path, cat("tensor ", name, ": ", key, " holds ", number.dump(), ", not a whole number"));
        numbers.push_back(number.get<int64_t>());
    }
    return numbers;
}

/// One tensor of the header; offsets become offsets in the file.
TensorEntry entry_of(const std::string& path, const std::string& name, const Json& json, int64_t data_begin) {
    if (!json.is_object()) damaged(path, cat("tensor ", name, " is described by no object"));
    for (const char* key : {"dtype", "shape", "data_offsets"})
        if (!json.contains(key)) damaged(path, cat("tensor ", name, " has no ", key));
    TensorEntry entry;
    entry.name = name;
    const StoredType* type = json["dtype"].is_string() ? find_type(json["dtype"].get<std::string>()) : nullptr;
    if (!type) {
        const std::string shown = json["dtype"].dump(-1, ' ', true, Json::error_handler_t::replace);
        damaged(path, cat("tensor ", name, " has the dtype ", shown, ", which rn50 does not know"));
    }
    entry.dtype = type->name;
    entry.dims = whole_numbers(path, name, "shape", json["shape"]);
    const std::vector<int64_t> offsets = whole_numbers(path, name, "data_offsets", json["data_offsets"]);
    if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > INT64_MAX - data_begin)
        damaged(path, cat("tensor ", name, " has no valid data_offsets"));
    entry.offset = data_begin + offsets[0];
    entry.bytes = offsets[1] - offsets[0];
    int64_t count = 0;
    if (!count_of(entry.dims, type->bytes, count) || count * type->bytes != entry.bytes)
        damaged(path, cat("tensor ", name, " of ", entry.dtype, " ", str(entry.dims), " has ", entry.bytes, " bytes"));
    return entry;
}

float f64_to_f32(double value) {
    return static_cast<float>(value);
}

/// Reads `count` elements of type From through a small buffer and stores them as f32.
template <class From, class Convert>
void read_converted(int descriptor, const std::string& path, const TensorEntry& entry, Convert convert, void* dst) {
    std::vector<From> buffer(1 << 15);
    auto* out = static_cast<float*>(dst);
    const int64_t count = entry.bytes / static_cast<int64_t>(sizeof(From));
    for (int64_t begin = 0; begin < count; begin += static_cast<int64_t>(buffer.size())) {
        const int64_t n = std::min(count - begin, static_cast<int64_t>(buffer.size()));
        read_bytes(descriptor, path, buffer.data(), n * static_cast<int64_t>(sizeof(From)),
                   entry.offset + begin * static_cast<int64_t>(sizeof(From)));
        std::transform(buffer.begin(), buffer.begin() + n, out + begin, convert);
    }
}

}  // namespace

Dims dims_of(const Shape& shape) {
    Dims dims;
    for (int axis = 0; axis < shape.rank(); ++axis)
        dims.push_back(shape[axis]);
    return dims;
}

std::string str(const Dims& dims) {
    std::string text;
    for (const int64_t dim : dims)
        text += (text.empty() ? "" : "x") + std::to_string(dim);
    return dims.empty() ? "scalar" : text;
}

int64_t TensorEntry::count() const {
    int64_t count = 1;
    for (const int64_t dim : dims)
        count *= dim;
    return count;
}

SafetensorsReader::SafetensorsReader(const std::string& path) : path_(path) {
    descriptor_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor_ < 0)
        throw Error(Exit::data, with_errno("opening " + path), "check that the file is there and may be read");
    try {
        read_header();
    } catch (...) {
        close(descriptor_);
        throw;
    }
}

SafetensorsReader::~SafetensorsReader() {
    close(descriptor_);
}

void SafetensorsReader::read_header() {
    struct stat status {};
    if (fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) damaged(path_, "is no file");
    const int64_t file_bytes = status.st_size;
    if (file_bytes < length_bytes) damaged(path_, cat("has only ", file_bytes, " bytes"));
    unsigned char head[length_bytes];
    read_bytes(descriptor_, path_, head, length_bytes, 0);
    if (std::memcmp(head, "PK\3\4", 4) == 0)
        throw Error(Exit::data, cat(path_, ": is a zip file, such as torch.save makes"),
                    "convert it once in Python: safetensors.torch.save_file(torch.load(\"x.pth\"), \"x.safetensors\")");
    uint64_t length = 0;
    for (int i = length_bytes - 1; i >= 0; --i)
        length = length << 8 | head[i];
    if (length < 2 || length > static_cast<uint64_t>(max_header_bytes))
        damaged(path_, cat("says that its header has ", length, " bytes"));
    const int64_t data_begin = length_bytes + static_cast<int64_t>(length);
    if (data_begin > file_bytes)
        damaged(path_, cat("ends within its header, at byte ", file_bytes, " of ", data_begin));
    std::string text(length, '\0');
    read_bytes(descriptor_, path_, text.data(), static_cast<int64_t>(length), length_bytes);
    if (text[0] != '{') damaged(path_, "its header is no JSON object");

    const Json json = parse_header(path_, text);
    std::vector<const TensorEntry*> by_place;
    for (const auto& [name, value] : json.items()) {
        if (name == metadata_key)
            metadata_ = metadata_of(path_, value);
        else
            by_place.push_back(&(entries_[name] = entry_of(path_, name, value, data_begin)));
    }
    std::sort(by_place.begin(), by_place.end(), [](const TensorEntry* a, const TensorEntry* b) {
        return std::make_pair(a->offset, a->offset + a->bytes) < std::make_pair(b->offset, b->offset + b->bytes);
    });
    int64_t end = data_begin;
    for (const TensorEntry* entry : by_place) {
        if (entry->offset != end)
            damaged(path_, cat("tensor ", entry->name, " starts at byte ", entry->offset,
                               entry->offset < end ? ", inside another tensor" : ", after bytes of no tensor"));
        end += entry->bytes;
    }
    if (end > file_bytes) damaged(path_, cat("has ", file_bytes, " bytes of ", end, ": it was cut short"));
    if (end < file_bytes) damaged(path_, cat("has ", file_bytes - end, " bytes behind its last tensor"));
}

const TensorEntry& SafetensorsReader::entry(const std::string& name) const {
    const auto found = entries_.find(name);
    if (found == entries_.end())
        throw Error(Exit::data, cat(path_, ": has no tensor ", name), "check that the file is of the same --model");
    return found->second;
}

void SafetensorsReader::read(const std::string& name, const Dims& dims, DType wanted, void* dst) const {
    const TensorEntry& stored = entry(name);
    const auto refuse = [&] {
        throw Error(Exit::data,
                    cat(path_, ": tensor ", name, " is ", stored.dtype, " ", str(stored.dims), " where ",
                        stored_name(wanted), " ", str(dims), " is needed"),
                    "check that the file is of the same --model, number of classes and image size");
    };
    if (stored.dims != dims) refuse();
    if (stored.dtype == stored_name(wanted))
        read_bytes(descriptor_, path_, dst, stored.bytes, stored.offset);
    else if (wanted == DType::f32 && stored.dtype == "F16")
        read_converted<uint16_t>(descriptor_, path_, stored, f16_to_f32, dst);
    else if (wanted == DType::f32 && stored.dtype == "BF16")
        read_converted<uint16_t>(descriptor_, path_, stored, bf16_to_f32, dst);
    else if (wanted == DType::f32 && stored.dtype == "F64")
        read_converted<double>(descriptor_, path_, stored, f64_to_f32, dst);
    else
        refuse();
}

void SafetensorsWriter::add(const std::string& name, DType dtype, const Dims& dims, const void* data) {
    add({name, dtype, dims, 0, data, nullptr});
}

void SafetensorsWriter::add(const std::string& name, DType dtype, const Dims& dims, Fill fill) {
    add({name, dtype, dims, 0, nullptr, std::move(fill)});
}

void SafetensorsWriter::add(Item item) {
    int64_t count = 0;
    for (const int64_t dim : item.dims)
        RN50_REQUIRE(dim >= 0, "tensor ", item.name, " of ", str(item.dims));
    RN50_REQUIRE(count_of(item.dims, size_of(item.dtype), count), "tensor ", item.name, " of ", str(item.dims));
    item.bytes = count * size_of(item.dtype);
    // The reference implementation's order (see stored_types), so that the same tensors give the same bytes.
    const auto before = [](const Item& a, const Item& b) {
        const auto rank = [](const Item& one) { return find_type(stored_name(one.dtype)) - stored_types; };
        return rank(a) != rank(b) ? rank(a) > rank(b) : a.name < b.name;
    };
    for (const Item& other : items_)
        RN50_REQUIRE(other.name != item.name, "tensor ", item.name, " is added twice");
    RN50_REQUIRE(item.name != metadata_key, "a tensor named ", item.name);
    items_.insert(std::upper_bound(items_.begin(), items_.end(), item, before), std::move(item));
}

std::string SafetensorsWriter::header() const {
    Json json = Json::object();
    if (!metadata_.empty()) json[metadata_key] = metadata_;
    int64_t offset = 0;
    for (const Item& item : items_) {
        json[item.name] = {
            {"dtype", stored_name(item.dtype)}, {"shape", item.dims}, {"data_offsets", {offset, offset + item.bytes}}};
        offset += item.bytes;
    }
    std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
    text.resize(static_cast<size_t>(align_up(static_cast<int64_t>(text.size()), 8)), ' ');
    std::string length;
    for (size_t i = 0; i < static_cast<size_t>(length_bytes); ++i)
        length += static_cast<char>(static_cast<unsigned char>(text.size() >> (8 * i)));
    return length + text;
}

void SafetensorsWriter::write(const std::string& path) const {
    const std::string head = header();
    int64_t total = static_cast<int64_t>(head.size()), largest = 0;
    for (const Item& item : items_) {
        total += item.bytes;
        if (item.fill) largest = std::max(largest, item.bytes);
    }
    AtomicFile file(path, total);
    file.write(head);
    std::vector<char> scratch(static_cast<size_t>(largest));
    for (const Item& item : items_) {
        if (item.fill) item.fill(scratch.data());
        file.write(item.fill ? scratch.data() : item.data, item.bytes);
    }
    file.commit();
}

}  // namespace rn50
