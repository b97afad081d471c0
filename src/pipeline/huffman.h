// The entropy-coded data of a sequential JPEG (ITU-T T.81, F.2.2), which is most of the time that decoding takes. Reads
// what is in order and nothing else, so that it can be quick: what is not is left to libjpeg, from the beginning.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "pipeline/formats.h"

namespace rn50::formats {

/// A Huffman table as the file holds it: how many codes there are of each length, 1 to 16, and what they stand for.
struct HuffmanCodes {
    std::array<uint8_t, 17> count{};  ///< [0] is nothing
    std::array<uint8_t, 256> symbol{};
    bool operator==(const HuffmanCodes& other) const { return count == other.count && symbol == other.symbol; }
};

/// A code, and the value behind it.
struct HuffmanSymbol {
    static constexpr uint8_t block_end = 64;
    uint8_t bits;     ///< of both; 0: there is no such code
    uint8_t code;     ///< its bits
    uint8_t size;     ///< bits of the value
    uint8_t advance;  ///< to the coefficient that has the value, from the one before; block_end: none has
};

/// Two symbols and their values, or one, whose coefficient then counts as the second's too. In one word, the lowest
/// byte of which shifts without being taken out.
class HuffmanPair {
  public:
    HuffmanPair() = default;
    HuffmanPair(const HuffmanSymbol& one, int value) : HuffmanPair(one.bits, one, value, one.advance, value) {}
    HuffmanPair(const HuffmanSymbol& one, int value, const HuffmanSymbol& two, int second_value)
        : HuffmanPair(one.bits + two.bits, one, value, one.advance + two.advance, second_value) {}

    bool none() const { return static_cast<uint8_t>(word_) == 0; }
    unsigned bits() const { return static_cast<uint8_t>(word_); }
    unsigned first_bits() const { return static_cast<uint8_t>(word_ >> 8); }
    unsigned advance() const { return static_cast<uint8_t>(word_ >> 24); }  ///< to the second's coefficient
    unsigned first_advance() const { return static_cast<uint8_t>(word_ >> 16); }
    int16_t value() const { return static_cast<int16_t>(word_ >> 48); }  ///< the second's
    int16_t first_value() const { return static_cast<int16_t>(word_ >> 32); }

  private:
    HuffmanPair(int bits, const HuffmanSymbol& one, int value, int advance, int second_value)
        : word_(static_cast<uint64_t>(bits) | uint64_t{one.bits} << 8 | uint64_t{one.advance} << 16 |
                static_cast<uint64_t>(advance) << 24 | uint64_t{static_cast<uint16_t>(value)} << 32 |
                uint64_t{static_cast<uint16_t>(second_value)} << 48) {}
    uint64_t word_ = 0;
};

/// A table for reading.
class HuffmanTable {
  public:
    static constexpr int ahead = 11;  ///< how many bits are looked at at once

    /// Of codes as it had them last it makes nothing anew. `ac`: what a code stands for is a run of zeros and the bits
    /// of a value, else the latter alone. False: the codes make no sense.
    bool make(const HuffmanCodes& codes, bool ac);
    /// What the next bits, `ahead` and 16, begin with.
    HuffmanSymbol symbol(uint64_t next, uint64_t next_16) const {
        const HuffmanSymbol found = symbols_[next];
        return __builtin_expect(found.bits == 0, 0) ? long_symbol(static_cast<uint32_t>(next_16)) : found;
    }
    /// Of an AC table, what of that lies within the bits looked at, with the values.
    HuffmanPair pair(uint64_t next) const { return pairs_[next]; }

  private:
    HuffmanSymbol symbol_of(int symbol, int length) const;
    HuffmanSymbol long_symbol(uint32_t next) const;
    HuffmanPair pair_of(size_t next) const;

    HuffmanCodes codes_;
    bool made_ = false, ac_ = false;
    std::vector<HuffmanSymbol> symbols_;
    std::vector<HuffmanPair> pairs_;
    std::array<uint32_t, 18> limit_{};  ///< of 16 bits, the first above the codes of each length
    std::array<int32_t, 17> offset_{};  ///< from a code of that length to its symbol
};

/// The one scan of a picture.
struct HuffmanScan {
    static constexpr int most_blocks = 10, most_parts = 4;  ///< T.81, B.2.3
    Bytes data{};                                           ///< from the first coded byte to the end of the file
    int blocks = 0;                                         ///< of 8x8, in a unit
    std::array<uint8_t, most_blocks> part{};                ///< of each block: which colour
    std::array<uint8_t, most_parts> dc{}, ac{};             ///< of each colour: its tables
    std::array<HuffmanCodes, 4> dc_codes{}, ac_codes{};     ///< those that are named
    int64_t interval = 0;                                   ///< units between restart markers; 0: there are none
};

class HuffmanReader {
  public:
    using Block = int16_t[64];  ///< coefficients row by row, as libjpeg has them

    /// False: the scan is none that it reads.
    bool begin(const HuffmanScan& scan);
    /// Fills the next unit's blocks, which hold zeros; null: reads over it. False: the data are not in order.
    bool next(Block* const* blocks);
    /// Where reading would go on behind the units so far: the marker there, or the end of the data.
    const uint8_t* marker() const { return marker_; }

    int64_t kept_bytes() const { return static_cast<int64_t>(plain_.capacity()); }
    void release() { std::vector<uint8_t>().swap(plain_); }

  private:
    /// The next bits, those that come first on top.
    struct Bits {
        uint64_t bits = 0;
        int count = 0;  ///< so many are good
        const uint8_t* at = nullptr;
        void fill();
        uint64_t next() const { return bits >> (64 - HuffmanTable::ahead); }
        void drop(unsigned n);
        HuffmanSymbol take(const HuffmanTable& table, int& value);
    };
    /// How one block of a unit is coded.
    struct Coding {
        const HuffmanTable *dc, *ac;
        int64_t* last_dc;
    };
    template <bool keep>
    bool read(Block* const* blocks);
    template <bool keep>
    static bool read_ac(Bits& bits, const HuffmanTable& table, int16_t* block);
    void open_interval(const uint8_t* from);
    bool restart();

    std::array<HuffmanTable, 4> dc_, ac_;
    std::array<int64_t, HuffmanScan::most_parts> last_dc_{};
    std::array<Coding, HuffmanScan::most_blocks> codings_{};
    int blocks_ = 0;
    Bytes data_{};
    std::vector<uint8_t> plain_;  ///< the data up to the next marker, without the zeros behind bytes of ff
    const uint8_t* plain_end_ = nullptr;
    const uint8_t* marker_ = nullptr;
    Bits bits_;
    int64_t interval_ = 0, left_ = 0;  ///< units; those left of it
    int restarts_ = 0;
};

}  // namespace rn50::formats
