// The wire format of protocol buffers, as far as TFRecord, Caffe and ONNX need it: no schema compiler, no reflection.
// https://protobuf.dev/programming-guides/encoding/
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace rn50 {

/// Bytes that somebody else owns.
struct ByteView {
    const uint8_t* data = nullptr;
    size_t size = 0;
    std::string str() const { return std::string(reinterpret_cast<const char*>(data), size); }
};

/// Walks over the fields of one message. Never reads outside of it and never throws: damaged input ends the walk with
/// ok() false.
///     for (ProtoReader reader(view); reader.next();)
///         if (reader.field() == 5 && reader.is_varint()) label = reader.integer();
class ProtoReader {
  public:
    explicit ProtoReader(ByteView message) : at_(message.data), end_(message.data + message.size) {}

    /// Goes to the next field. False at the end and at damage.
    bool next();
    bool ok() const { return ok_; }

    uint32_t field() const { return field_; }
    bool is_varint() const { return wire_ == 0; }
    bool is_bytes() const { return wire_ == 2; }
    bool is_fixed32() const { return wire_ == 5; }
    /// The value of a varint (or of fixed32, fixed64 as their bits), 0 for bytes.
    uint64_t value() const { return value_; }
    int64_t integer() const { return static_cast<int64_t>(value_); }
    /// The content of a string, bytes or message field; empty for numbers.
    ByteView bytes() const { return bytes_; }

  private:
    bool fail();

    const uint8_t *at_, *end_;
    uint32_t field_ = 0, wire_ = 0;
    uint64_t value_ = 0;
    ByteView bytes_;
    bool ok_ = true;
};

/// Takes the next varint of [at, end) and moves `at` behind it. False: it is cut short or longer than 64 bits.
bool take_varint(const uint8_t*& at, const uint8_t* end, uint64_t& value);

/// Writes the fields of one message in the order of the calls.
class ProtoWriter {
  public:
    void varint(uint32_t field, uint64_t value);
    void integer(uint32_t field, int64_t value) { varint(field, static_cast<uint64_t>(value)); }
    void boolean(uint32_t field, bool value) { varint(field, value ? 1 : 0); }
    void fixed32(uint32_t field, float value);
    void bytes(uint32_t field, const void* data, size_t size);
    void string(uint32_t field, const std::string& text) { bytes(field, text.data(), text.size()); }
    void message(uint32_t field, const ProtoWriter& inner) { string(field, inner.out_); }
    /// A varint without a tag, for packed lists.
    void bare_varint(uint64_t value);

    const std::string& str() const { return out_; }

  private:
    void tag(uint32_t field, uint32_t wire) { bare_varint(uint64_t{field} << 3 | wire); }
    std::string out_;
};

}  // namespace rn50
