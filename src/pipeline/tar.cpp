#include "pipeline/tar.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/math.h"

namespace rn50 {

namespace {

/// A number field: octal digits between blanks, or, with the highest bit set, base 256. -1: neither.
int64_t parse_number(const uint8_t* field, size_t size) {
    int64_t value = 0;
    if (field[0] & 0x80) {
        if (field[0] != 0x80) return -1;  // negative, or above what 64 bits hold
        for (size_t i = 1; i < size; ++i) {
            if (value > INT64_MAX >> 8) return -1;
            value = value << 8 | field[i];
        }
        return value;
    }
    size_t i = 0;
    while (i < size && field[i] == ' ')
        ++i;
    for (; i < size && field[i] >= '0' && field[i] <= '7'; ++i)
        value = value * 8 + (field[i] - '0');  // at most 12 digits of 3 bits
    return i == size || field[i] == ' ' || field[i] == 0 ? value : -1;
}

std::string text_field(const uint8_t* field, size_t size) {
    const auto* text = reinterpret_cast<const char*>(field);
    return std::string(text, strnlen(text, size));
}

constexpr size_t checksum_at = 148, checksum_size = 8;

/// The sum of a header's bytes, its own field counted as blanks; some old programs added signed bytes.
bool checksum_is_right(const uint8_t* block) {
    int64_t plain = 0, with_signs = 0;
    for (size_t i = 0; i < tar_block; ++i) {
        const uint8_t byte = i >= checksum_at && i < checksum_at + checksum_size ? uint8_t{' '} : block[i];
        plain += byte;
        with_signs += static_cast<int8_t>(byte);
    }
    const int64_t stored = parse_number(block + checksum_at, checksum_size);
    return stored == plain || stored == with_signs;
}

}  // namespace

TarBlock parse_tar_header(const uint8_t* block, TarHeader& header) {
    if (std::all_of(block, block + tar_block, [](uint8_t byte) { return byte == 0; })) return TarBlock::zero;
    if (!checksum_is_right(block)) return TarBlock::damaged;
    header.name = text_field(block, 100);
    header.size = parse_number(block + 124, 12);
    header.type = block[156] == 0 ? '0' : static_cast<char>(block[156]);
    const bool posix = std::memcmp(block + 257, "ustar\0", 6) == 0;  // GNU's "ustar  " has no prefix
    const std::string prefix = posix ? text_field(block + 345, 155) : "";
    if (!prefix.empty()) header.name = prefix + "/" + header.name;
    return header.size < 0 ? TarBlock::damaged : TarBlock::header;
}

bool parse_pax(ByteView records, std::string& path, int64_t& size) {
    const std::string text = records.str();
    for (size_t at = 0; at < text.size();) {
        if (text[at] == 0) return true;  // padding
        size_t length = 0, digit = at;
        for (; digit < text.size() && text[digit] >= '0' && text[digit] <= '9' && length <= text.size(); ++digit)
            length = length * 10 + static_cast<size_t>(text[digit] - '0');
        const size_t equals = text.find('=', digit);
        if (digit == at || digit >= text.size() || text[digit] != ' ' || length > text.size() - at ||
            equals == std::string::npos || equals + 1 >= at + length || text[at + length - 1] != '\n')
            return false;
        const std::string key = text.substr(digit + 1, equals - digit - 1);
        const std::string value = text.substr(equals + 1, at + length - 1 - (equals + 1));
        if (key == "path") path = value;
        if (key == "size") {
            if (value.empty() || value.size() > 18 || value.find_first_not_of("0123456789") != std::string::npos)
                return false;
            size = std::stoll(value);
        }
        at += length;
    }
    return true;
}

void split_key(const std::string& path, std::string& key, std::string& extension) {
    const size_t slash = path.rfind('/');
    const size_t dot = path.find('.', slash == std::string::npos ? 0 : slash + 1);
    key = path.substr(0, dot);
    extension = dot == std::string::npos ? "" : path.substr(dot + 1);
    for (char& c : extension)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
}

std::string tar_header(const std::string& name, int64_t size) {
    RN50_REQUIRE(name.size() <= 100 && size >= 0, "a tar member ", name, " of ", size, " bytes");
    std::string block(static_cast<size_t>(tar_block), '\0');
    const auto octal = [&](size_t at, size_t width, int64_t value) {  // with a zero byte behind
        for (size_t i = width - 1; i > 0; --i, value /= 8)
            block[at + i - 1] = static_cast<char>('0' + value % 8);
    };
    name.copy(block.data(), name.size());
    octal(100, 8, 0644);
    octal(108, 8, 0);
    octal(116, 8, 0);
    if (size < int64_t{1} << 33) {
        octal(124, 12, size);
    } else {
        block[124] = static_cast<char>(0x80);
        for (size_t i = 0; i < 8; ++i)
            block[135 - i] = static_cast<char>(size >> (8 * i));
    }
    octal(136, 12, 0);
    block[156] = '0';
    std::memcpy(block.data() + 257,
                "ustar\0"
                "00",
                8);
    std::memset(block.data() + checksum_at, ' ', checksum_size);
    int64_t sum = 0;
    for (const char c : block)
        sum += static_cast<uint8_t>(c);
    octal(checksum_at, 7, sum);
    return block;
}

}  // namespace rn50
