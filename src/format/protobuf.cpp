#include "format/protobuf.h"

#include <cstring>

namespace rn50 {

namespace {

constexpr uint32_t wire_varint = 0, wire_fixed64 = 1, wire_bytes = 2, wire_fixed32 = 5;

uint64_t little_endian(const uint8_t* at, size_t size) {
    uint64_t value = 0;
    for (size_t i = size; i > 0; --i)
        value = value << 8 | at[i - 1];
    return value;
}

}  // namespace

bool take_varint(const uint8_t*& at, const uint8_t* end, uint64_t& value) {
    value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (at == end) return false;
        const uint8_t byte = *at++;
        if (shift == 63 && byte > 1) return false;
        value |= uint64_t{byte & 0x7Fu} << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

bool ProtoReader::fail() {
    ok_ = false;
    at_ = end_;
    return false;
}

bool ProtoReader::next() {
    if (at_ == end_) return false;
    uint64_t tag = 0;
    if (!take_varint(at_, end_, tag) || tag > UINT32_MAX) return fail();
    field_ = static_cast<uint32_t>(tag >> 3);
    wire_ = static_cast<uint32_t>(tag & 7);
    value_ = 0;
    bytes_ = {};
    if (field_ == 0) return fail();
    const auto left = static_cast<size_t>(end_ - at_);
    switch (wire_) {
        case wire_varint:
            return take_varint(at_, end_, value_) || fail();
        case wire_fixed64:
        case wire_fixed32: {
            const size_t size = wire_ == wire_fixed64 ? 8 : 4;
            if (left < size) return fail();
            value_ = little_endian(at_, size);
            at_ += size;
            return true;
        }
        case wire_bytes: {
            uint64_t size = 0;
            if (!take_varint(at_, end_, size) || size > static_cast<uint64_t>(end_ - at_)) return fail();
            bytes_ = {at_, static_cast<size_t>(size)};
            at_ += size;
            return true;
        }
        default:  // groups, which nobody writes any more, and what does not exist
            return fail();
    }
}

void ProtoWriter::bare_varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7)
        out_.push_back(static_cast<char>(value | 0x80));
    out_.push_back(static_cast<char>(value));
}

void ProtoWriter::varint(uint32_t field, uint64_t value) {
    tag(field, wire_varint);
    bare_varint(value);
}

void ProtoWriter::fixed32(uint32_t field, float value) {
    tag(field, wire_fixed32);
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    for (int i = 0; i < 4; ++i)
        out_.push_back(static_cast<char>(bits >> (8 * i)));
}

void ProtoWriter::bytes(uint32_t field, const void* data, size_t size) {
    tag(field, wire_bytes);
    bare_varint(size);
    out_.append(static_cast<const char*>(data), size);
}

}  // namespace rn50
