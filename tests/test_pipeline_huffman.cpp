// HuffmanReader in libjpeg's place: the same pixels bit for bit, and of what is damaged the same errors.
#include <doctest/doctest.h>

#include <cmath>
#include <random>

#include "base/error.h"
#include "jpeg_support.h"
#include "pipeline/huffman.h"

using namespace rn50;
using namespace rn50::formats;
using namespace rn50::test;

namespace {

/// Pixels, and where the region's box lies in them; or the reason why there are none.
struct Outcome {
    Picture picture;
    Box where;
    std::string reason;
    bool operator==(const Outcome& other) const {
        return reason == other.reason && picture.rgb == other.picture.rgb && picture.width == other.picture.width &&
               where.x0 == other.where.x0 && where.y0 == other.where.y0;
    }
};

Outcome decoded(Jpeg& jpeg, const std::vector<uint8_t>& bytes, const Region& region) {
    Outcome outcome;
    try {
        jpeg.open({bytes.data(), bytes.size()}, DecodeLimits());
        outcome.where = jpeg.decode(region, outcome.picture);
    } catch (const Error& error) {
        outcome = {};
        outcome.reason = error.what();
    }
    return outcome;
}

constexpr int64_t height = 203, width = 317;

Region part_of(double x0, double y0, double x1, double y1, int64_t size) {
    return {{x0 * width, y0 * height, x1 * width, y1 * height}, size, size};
}

const Region whole = part_of(0, 0, 1, 1, 1000);

/// Of each block the values that most of its coefficients get.
enum class Content { soft, noise, flat, corners };

Picture drawn(Content content) {
    Picture picture = soft_picture(height, width);
    std::mt19937 random(5);
    const double pi = std::acos(-1.0);
    for (int64_t i = 0; i < height * width; ++i) {
        const auto x = static_cast<double>(i % width % 8), y = static_cast<double>(i / width % 8);
        // The last coefficient of every other block alone: runs of 62 zeros.
        const double last = 100 * std::cos((2 * x + 1) * 7 * pi / 16) * std::cos((2 * y + 1) * 7 * pi / 16);
        for (int c = 0; c < 3; ++c) {
            uint8_t& value = picture.rgb[static_cast<size_t>(i * 3 + c)];
            if (content == Content::noise) value = static_cast<uint8_t>(random());
            if (content == Content::flat) value = static_cast<uint8_t>(i / width / 64 * 70 + 10);
            if (content == Content::corners)
                value = static_cast<uint8_t>(128.5 + (i % width / 8 % 2 == 0 ? last : 0));
        }
    }
    return picture;
}

const Writing ways[] = {
    {"4:2:0"},
    {"4:4:4", 1, 1},
    {"4:2:2", 2, 1},
    {"4:4:0", 1, 2},
    {"4:1:1", 4, 1},
    {"grey", 1, 1, true},
    {"grey, sampled 2x2", 2, 2, true},
    {"a marker after each unit", 2, 2, false, false, 0, 1, 1},
    {"markers after seven", 1, 1, false, false, 0, 1, 7},
    {"markers after rows", 2, 2, false, false, 1},
};

}  // namespace

TEST_CASE("huffman: pixels are libjpeg's, bit for bit, whatever is coded how") {
    Jpeg own, alone(true);
    for (const Content content : {Content::soft, Content::noise, Content::flat, Content::corners}) {
        const Picture picture = drawn(content);
        for (Writing way : ways)
            for (const int quality : {5, 50, 90, 100})
                for (const bool optimized : {false, true}) {
                    CAPTURE(static_cast<int>(content));
                    CAPTURE(way.name);
                    CAPTURE(quality);
                    CAPTURE(optimized);
                    way.quality = quality;
                    way.optimized = optimized;
                    const std::vector<uint8_t> bytes = encode(picture, way);
                    for (const Region& region : {whole, part_of(0.3, 0.4, 0.7, 0.9, 300), part_of(0.1, 0, 0.5, 0.3, 8),
                                                 part_of(0.8, 0.9, 1, 1, 40)}) {
                        const Outcome got = decoded(own, bytes, region);
                        CHECK(got.reason.empty());
                        CHECK_FALSE(own.gave_up());
                        CHECK((got == decoded(alone, bytes, region)));
                    }
                }
    }
}

TEST_CASE("huffman: what is not one sequential scan is libjpeg's, and nothing is left from the picture before") {
    Jpeg own, alone(true);
    const Picture picture = drawn(Content::soft);
    Writing progressive{"progressive"};
    progressive.progressive = true;
    for (const Writing& way : {ways[0], progressive, ways[8], progressive, ways[5]})
        CHECK((decoded(own, encode(picture, way), whole) == decoded(alone, encode(picture, way), whole)));
}

TEST_CASE("huffman: of damaged files libjpeg has the say") {
    Jpeg own, alone(true);
    std::mt19937 random(11);
    int errors = 0, given_up = 0, pixels = 0;
    for (const Writing& way : ways) {
        const std::vector<uint8_t> sound = encode(drawn(Content::soft), way);
        for (int i = 0; i < 150; ++i) {
            std::vector<uint8_t> bytes = sound;
            const size_t headers = 640;  // some of them
            const size_t at = (i % 5 == 0 ? 2 : headers) + random() % (bytes.size() - headers);
            switch (i % 4) {
                case 0:
                    bytes[at] = static_cast<uint8_t>(bytes[at] ^ 1u << random() % 8);
                    break;
                case 1:
                    bytes.resize(at);
                    break;
                case 2:
                    bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(at));
                    break;
                default: {
                    const std::vector<uint8_t> put[] = {{0xFF, 0, 0xFF, 0, 0xFF, 0},  // no code is all ones
                                                        {0xFF, 0xD9, 0},
                                                        {0xFF, 0xFF, 0},
                                                        {0xFF, 0xD3, 0x55}};
                    const std::vector<uint8_t>& these = put[i / 4 % 4];
                    bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), these.begin(), these.end());
                }
            }
            CAPTURE(way.name);
            CAPTURE(i);
            const Region region = i % 3 == 0 ? part_of(0.3, 0.2, 0.6, 0.8, 200) : whole;
            const Outcome got = decoded(own, bytes, region);
            given_up += own.gave_up() ? 1 : 0;
            (got.reason.empty() ? pixels : errors) += 1;
            CHECK((got == decoded(alone, bytes, region)));
        }
    }
    CHECK(errors > 300);
    CHECK(given_up > 300);
    CHECK(pixels > 200);
}

TEST_CASE("huffman: data that go on behind their last unit, or end without a marker, end as libjpeg ends them") {
    Jpeg own, alone(true);
    const std::vector<uint8_t> sound = encode(drawn(Content::soft), ways[0]);
    REQUIRE(sound[sound.size() - 1] == 0xD9);
    const std::vector<std::vector<uint8_t>> ends = {
        {}, {0xFF}, {0xFF, 0}, {0x55, 0x55, 0xFF, 0xD9}, {0xFF, 0xFF, 0xFF, 0xD9}, {0xFF, 0xD0, 0xFF, 0xD9},
        {0xFF, 0, 0x12, 0xFF, 0xD9}};
    for (const std::vector<uint8_t>& end : ends) {
        CAPTURE(end.size());
        std::vector<uint8_t> bytes(sound.begin(), sound.end() - 2);
        bytes.insert(bytes.end(), end.begin(), end.end());
        CHECK((decoded(own, bytes, whole) == decoded(alone, bytes, whole)));
    }
}

TEST_CASE("huffman: means that leave the range of coefficients are given up") {
    HuffmanScan scan;
    scan.blocks = 1;
    scan.dc_codes[0].count[1] = scan.ac_codes[0].count[1] = 1;
    scan.dc_codes[0].symbol[0] = 11;  // values of 11 bits; and blocks end at once
    // 17 blocks of a 0, eleven ones (2047 more than the block before) and a 0.
    std::vector<bool> bits;
    for (int block = 0; block < 17; ++block)
        for (int i = 0; i < 13; ++i)
            bits.push_back(i > 0 && i < 12);
    std::vector<uint8_t> data;
    for (size_t i = 0; i < bits.size(); i += 8) {
        unsigned byte = 0;
        for (size_t j = i; j < i + 8; ++j)
            byte = byte << 1 | (j < bits.size() && bits[j] ? 1u : 0u);
        data.push_back(static_cast<uint8_t>(byte));
        if (byte == 0xFF) data.push_back(0);
    }
    scan.data = {data.data(), data.size()};
    HuffmanReader reader;
    REQUIRE(reader.begin(scan));
    for (int i = 1; i <= 16; ++i) {
        HuffmanReader::Block block{};
        HuffmanReader::Block* const blocks[] = {&block};
        CHECK(reader.next(blocks));
        CHECK(block[0] == 2047 * i);
    }
    CHECK_FALSE(reader.next(nullptr));
    // And negative ones, which end with the data.
    for (uint8_t& byte : data)
        byte = 0;
    REQUIRE(reader.begin(scan));
    for (int i = 1; i <= 16; ++i)
        CHECK(reader.next(nullptr));
    CHECK_FALSE(reader.next(nullptr));
    scan.data.size = 13 * 5 / 8 + 1;  // of five blocks, and seven bits
    REQUIRE(reader.begin(scan));
    for (int i = 1; i <= 5; ++i)
        CHECK(reader.next(nullptr));
    CHECK_FALSE(reader.next(nullptr));
    CHECK(reader.marker() == data.data() + scan.data.size);
    // A mean, and then a code that there is not.
    data = {0x7F, 0xFF, 0x00, 0xFF, 0x00};
    scan.data = {data.data(), data.size()};
    REQUIRE(reader.begin(scan));
    CHECK_FALSE(reader.next(nullptr));
}

TEST_CASE("huffman: tables that make no sense are refused") {
    HuffmanTable table;
    HuffmanCodes codes;
    CHECK(table.make(codes, true));  // no codes at all
    CHECK(table.symbol(0, 0).bits == 0);
    codes.count[1] = 3;
    CHECK_FALSE(table.make(codes, true));
    codes.count[1] = 1;
    codes.count[16] = 200;
    codes.symbol[0] = 0x21;
    CHECK(table.make(codes, true));
    codes.count[15] = 56;
    CHECK_FALSE(table.make(codes, true));  // 257 codes
    codes.count[15] = 0;
    CHECK_FALSE(table.make(codes, false));  // a DC value of 33 bits
    codes.symbol[0] = 3;
    CHECK(table.make(codes, false));
    const HuffmanSymbol first = table.symbol(0, 0);
    CHECK(first.bits == 4);
    CHECK(first.code == 1);
    CHECK(first.size == 3);
    // The first and the last of the codes of 16 bits, and one behind.
    CHECK(table.symbol(1 << 10, 1 << 15).code == 16);
    CHECK(table.symbol(1 << 10, (1 << 15) + 199).code == 16);
    CHECK(table.symbol(1 << 10, (1 << 15) + 200).bits == 0);
}
