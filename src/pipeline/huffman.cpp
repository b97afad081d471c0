#include "pipeline/huffman.h"

#include <algorithm>
#include <cstring>

namespace rn50::formats {

namespace {

/// Bytes behind the data that may be read: a block takes 64 symbols of at most 16 + 15 bits, and a unit is looked at
/// after each block.
constexpr size_t padding = 64 * 31 / 8 + 16;

/// Row by row, the place of each coefficient, which come in zigzag order (T.81, figure A.6): up a diagonal, down the next.
/// Behind the last one, where the ends of blocks write zeros, it is the last one's: there libjpeg, too, puts what runs
/// out of the block in damaged data.
constexpr auto place_of = [] {
    std::array<uint8_t, 62 + 16 + 64 + 1> places{};
    int x = 0, y = 0;
    for (size_t k = 0; k < places.size(); ++k) {
        places[k] = static_cast<uint8_t>(y * 8 + x);
        if (k >= 63) continue;
        const bool up = (x + y) % 2 == 0;
        if (up) {
            if (x < 7) {
                ++x;
                y -= y > 0 ? 1 : 0;
            } else {
                ++y;
            }
        } else if (y < 7) {
            ++y;
            x -= x > 0 ? 1 : 0;
        } else {
            ++x;
        }
    }
    return places;
}();

/// No sum of differences comes to this (T.81, F.1.2.1): where libjpeg would wrap around, or find fault, it is asked.
constexpr int64_t most_dc = (1 << 15) - 1;

/// What `size` bits stand for (T.81, F.2.2.1, EXTEND): those that begin with 0 are negative.
int extended(int value, int size) {
    return size > 0 && value < 1 << (size - 1) ? value - (1 << size) + 1 : value;
}

}  // namespace

HuffmanSymbol HuffmanTable::symbol_of(int symbol, int length) const {
    const int size = ac_ ? symbol & 15 : symbol, run = ac_ ? symbol >> 4 : 0;
    // Without a value: the end of the block, or sixteen zeros. Other runs end it too, as in libjpeg.
    const bool ends = ac_ && size == 0 && run != 15;
    return {static_cast<uint8_t>(length + size), static_cast<uint8_t>(length), static_cast<uint8_t>(size),
            ends ? HuffmanSymbol::block_end : static_cast<uint8_t>(run + 1)};
}

bool HuffmanTable::make(const HuffmanCodes& codes, bool ac) {
    if (made_ && ac_ == ac && codes_ == codes) return true;
    made_ = false;
    codes_ = codes;
    ac_ = ac;
    constexpr size_t entries = size_t{1} << ahead;
    symbols_.assign(entries, HuffmanSymbol{0, 0, 0, 0});
    pairs_.resize(ac ? entries : 0);
    uint32_t code = 0;
    int first = 0;
    for (int length = 1; length <= 16; ++length) {
        const int count = codes.count[static_cast<size_t>(length)];
        if (first + count > 256 || code + static_cast<uint32_t>(count) > 1u << length) return false;
        offset_[static_cast<size_t>(length)] = first - static_cast<int32_t>(code);
        for (int i = 0; i < count; ++i, ++code) {
            const int symbol = codes.symbol[static_cast<size_t>(first + i)];
            if (!ac && symbol > 15) return false;
            if (const int free = ahead - length; free >= 0)
                std::fill_n(symbols_.begin() + (static_cast<std::ptrdiff_t>(code) << free), size_t{1} << free,
                            symbol_of(symbol, length));
        }
        limit_[static_cast<size_t>(length)] = code << (16 - length);
        first += count;
        code <<= 1;
    }
    limit_[17] = ~uint32_t{0};
    for (size_t next = 0; next < pairs_.size(); ++next)
        pairs_[next] = pair_of(next);
    return made_ = true;
}

HuffmanPair HuffmanTable::pair_of(size_t next) const {
    const auto value_of = [](size_t bits, HuffmanSymbol symbol) {
        return extended(static_cast<int>(bits >> (ahead - symbol.bits)) & ((1 << symbol.size) - 1), symbol.size);
    };
    const HuffmanSymbol one = symbols_[next];
    if (one.bits == 0 || one.bits > ahead) return {};
    const int value = value_of(next, one);
    if (one.advance == HuffmanSymbol::block_end) return {one, value};
    const size_t rest = next << one.bits & (pairs_.size() - 1);
    const HuffmanSymbol two = symbols_[rest];
    if (two.bits == 0 || one.bits + two.bits > ahead) return {one, value};
    return {one, value, two, value_of(rest, two)};
}

HuffmanSymbol HuffmanTable::long_symbol(uint32_t next) const {
    int length = ahead + 1;
    while (next >= limit_[static_cast<size_t>(length)])
        ++length;
    if (length > 16) return {0, 0, 0, 0};
    const auto code = static_cast<int32_t>(next >> (16 - length));
    return symbol_of(codes_.symbol[static_cast<size_t>(code + offset_[static_cast<size_t>(length)])], length);
}

/// At least 56 bits are good then.
inline void HuffmanReader::Bits::fill() {
    uint64_t next;
    std::memcpy(&next, at, sizeof next);
    bits |= __builtin_bswap64(next) >> count;
    at += (63 - count) >> 3;
    count |= 56;
}

inline void HuffmanReader::Bits::drop(unsigned n) {
    bits <<= n;
    count -= static_cast<int>(n);
}

/// A symbol of any length, at most 16 + 15 bits; its value as extended() has it, but without a branch, which would often
/// be mispredicted.
inline HuffmanSymbol HuffmanReader::Bits::take(const HuffmanTable& table, int& value) {
    const HuffmanSymbol symbol = table.symbol(next(), bits >> 48);
    const uint64_t from = bits << symbol.code;
    const uint64_t negative = (from >> 63) - 1;  // all bits, or none
    value = static_cast<int>(((from ^ negative) >> 1 >> (63 - symbol.size) ^ negative) - negative);
    drop(symbol.bits);
    return symbol;
}

/// The 63 others. Pairs are written without a question whether they are one symbol or two.
template <bool keep>
inline bool HuffmanReader::read_ac(Bits& bits, const HuffmanTable& table, int16_t* block) {
    constexpr int enough = 3;  // pairs of at most 11 bits, and the bits of another look, of the 56
    const auto write = [block](unsigned k, int value) {
        if (keep) block[place_of[k]] = static_cast<int16_t>(value);
    };
    for (unsigned k = 0;;) {
        bits.fill();
        HuffmanPair pair = table.pair(bits.next());
        if (__builtin_expect(pair.none(), 0)) {
            int value = 0;
            const HuffmanSymbol symbol = bits.take(table, value);
            if (symbol.bits == 0) return false;
            k += symbol.advance;
            write(k, value);
            if (k >= 63) return true;
            continue;
        }
        for (int i = 0; i < enough && !pair.none(); ++i) {
            const unsigned first = k + pair.first_advance(), second = k + pair.advance();
            write(first, pair.first_value());
            write(second, pair.value());
            if (second >= 63) {  // the block ends, with the second or with the first: then the second is the next one's
                bits.drop(first < 63 ? pair.bits() : pair.first_bits());
                if (first >= 63) write(63, pair.first_value());
                return true;
            }
            bits.drop(pair.bits());
            k = second;
            pair = table.pair(bits.next());
        }
    }
}

template <bool keep>
bool HuffmanReader::read(Block* const* blocks) {
    Bits bits = bits_;
    for (int i = 0; i < blocks_; ++i) {
        const Coding& coding = codings_[static_cast<size_t>(i)];
        bits.fill();
        int difference = 0;
        if (bits.take(*coding.dc, difference).bits == 0) return false;
        const int64_t dc = *coding.last_dc += difference;
        if (dc > most_dc || dc < -most_dc) return false;
        int16_t* const block = keep ? *blocks[i] : nullptr;
        if (keep) block[0] = static_cast<int16_t>(dc);
        if (!read_ac<keep>(bits, *coding.ac, block)) return false;
        if (bits.at - bits.count / 8 > plain_end_) return false;
    }
    bits_ = bits;
    return true;
}

bool HuffmanReader::begin(const HuffmanScan& scan) {
    if (scan.blocks < 1 || scan.blocks > HuffmanScan::most_blocks) return false;
    for (int i = 0; i < scan.blocks; ++i) {
        const size_t part = scan.part[static_cast<size_t>(i)];
        if (part >= scan.dc.size()) return false;
        const size_t dc = scan.dc[part], ac = scan.ac[part];
        if (dc >= dc_.size() || ac >= ac_.size() || !dc_[dc].make(scan.dc_codes[dc], false) ||
            !ac_[ac].make(scan.ac_codes[ac], true))
            return false;
        codings_[static_cast<size_t>(i)] = {&dc_[dc], &ac_[ac], &last_dc_[part]};
    }
    blocks_ = scan.blocks;
    data_ = scan.data;
    interval_ = scan.interval;
    restarts_ = 0;
    open_interval(data_.data);
    return true;
}

void HuffmanReader::open_interval(const uint8_t* from) {
    const uint8_t* const end = data_.data + data_.size;
    const size_t most = static_cast<size_t>(end - from) + padding;
    if (plain_.size() < most) plain_.resize(most);
    uint8_t* to = plain_.data();
    for (marker_ = nullptr; marker_ == nullptr;) {
        const auto* at = static_cast<const uint8_t*>(std::memchr(from, 0xFF, static_cast<size_t>(end - from)));
        if (at == nullptr || at + 1 == end) {
            marker_ = at == nullptr ? end : at;
        } else if (at[1] == 0) {
            ++at;  // the byte itself
        } else {
            marker_ = at;
        }
        const uint8_t* const copied = marker_ != nullptr ? marker_ : at;
        std::memcpy(to, from, static_cast<size_t>(copied - from));
        to += copied - from;
        from = copied + (marker_ != nullptr ? 0 : 1);
    }
    std::memset(to, 0, padding);
    plain_end_ = to;
    bits_ = {0, 0, plain_.data()};
    last_dc_.fill(0);
    left_ = interval_;
}

bool HuffmanReader::restart() {
    constexpr uint8_t rst0 = 0xD0;
    const uint8_t* const end = data_.data + data_.size;
    // Bits that are left over are no fault to libjpeg either.
    if (end - marker_ < 2 || marker_[1] != rst0 + restarts_ % 8) return false;
    ++restarts_;
    open_interval(marker_ + 2);
    return true;
}

bool HuffmanReader::next(Block* const* blocks) {
    if (interval_ > 0) {
        if (left_ == 0 && !restart()) return false;
        --left_;
    }
    return blocks == nullptr ? read<false>(blocks) : read<true>(blocks);
}

}  // namespace rn50::formats
