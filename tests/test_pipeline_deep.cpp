// Pictures of 16 bits a sample, of which fewer may count.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "pipeline/encode.h"
#include "pipeline/loader.h"
#include "pipeline/pack.h"
#include "pipeline_support.h"
#include "png_support.h"

using namespace rn50;
using namespace rn50::test;

namespace {

/// A PNG of 16 bits and one row: `channels` 1 grey, 3 RGB. `significant`: the body of its sBIT chunk; "": none.
std::vector<uint8_t> png_of(const std::vector<uint32_t>& samples, const std::string& significant = "",
                            uint32_t channels = 1) {
    const auto width = static_cast<uint32_t>(samples.size()) / channels;
    std::string row(1, '\0');  // no filter
    for (const uint32_t sample : samples)
        row += big_endian(sample, 2);
    const auto size = static_cast<uint16_t>(row.size());
    std::string packed = "\x78\x01\x01";  // stored as it is, in one block
    for (const uint16_t length : {size, static_cast<uint16_t>(~size)})
        packed += {static_cast<char>(length & 255), static_cast<char>(length >> 8)};
    const std::string header =
        big_endian(width) + big_endian(1) + "\x10" + std::string(1, channels == 3 ? '\2' : '\0') + std::string(3, '\0');
    const std::string text = "\x89PNG\r\n\x1a\n" + png_chunk("IHDR", header) +
                             (significant.empty() ? "" : png_chunk("sBIT", significant)) +
                             png_chunk("IDAT", packed + row + std::string(4, '\0')) + png_chunk("IEND", "");
    return {text.begin(), text.end()};
}

std::vector<int> levels(const std::vector<uint8_t>& bytes, int bits = 0) {
    Decoder decoder;
    Picture picture;
    decoder.decode(bytes.data(), bytes.size(), "x", {}, picture, bits);
    std::vector<int> first;
    for (size_t i = 0; i < picture.rgb.size(); i += 3)
        first.push_back(picture.rgb[i]);
    return first;
}

/// 0, 1, ... 2^bits - 1, each times `factor`.
std::vector<uint32_t> ramp(int bits, uint32_t factor = 1) {
    std::vector<uint32_t> samples;
    for (uint32_t v = 0; v < 1u << bits; ++v)
        samples.push_back(v * factor);
    return samples;
}

/// What a ramp becomes: value * 255 / highest, rounded.
std::vector<int> ramp_of_levels(int bits) {
    std::vector<int> expected;
    for (int v = 0; v < 1 << bits; ++v)
        expected.push_back(static_cast<int>(std::lround(v * 255.0 / ((1 << bits) - 1))));
    return expected;
}

int different(std::vector<int> values) {
    std::sort(values.begin(), values.end());
    return static_cast<int>(std::unique(values.begin(), values.end()) - values.begin());
}

}  // namespace

TEST_CASE("16 bits: a ramp of fewer in the lower ones keeps all its grey levels where somebody says how many count") {
    CHECK(different(levels(png_of(ramp(12)))) == 17);  // 0 to 4095 of 65535
    for (int bits = 9; bits <= 13; ++bits) {
        CAPTURE(bits);
        CHECK(levels(png_of(ramp(bits)), bits) == ramp_of_levels(bits));
        CHECK(levels(png_of(ramp(bits), std::string(1, static_cast<char>(bits)))) == ramp_of_levels(bits));
    }
    CHECK(levels(png_of({0, 2048, 4095, 4096, 65535}), 12) == std::vector<int>{0, 128, 255, 255, 255});
    CHECK(levels(png_of({0, 255, 256}), 8) == std::vector<int>{0, 255, 255});
    CHECK(levels(png_of({0, 128, 129, 32768, 65535}), 16) == std::vector<int>{0, 0, 1, 128, 255});
    CHECK(levels(png_of({0, 128, 129, 32768, 65535})) == std::vector<int>{0, 0, 1, 128, 255});
}

TEST_CASE("16 bits: samples in the upper bits, as PNG wants those of fewer, are what they are without sBIT") {
    const std::string twelve = "\x0C";
    CHECK(levels(png_of(ramp(12, 16), twelve)) == ramp_of_levels(12));
    std::vector<uint32_t> replicated;
    for (const uint32_t v : ramp(12))
        replicated.push_back(v << 4 | v >> 8);
    CHECK(levels(png_of(replicated, twelve)) == ramp_of_levels(12));
    CHECK(levels(png_of(replicated)) == ramp_of_levels(12));
    // Dark, so that they would do as samples in the lower bits: 0 to 255 of 4095.
    std::vector<int> darkest = ramp_of_levels(12);
    darkest.resize(256);
    CHECK(levels(png_of(ramp(8, 16), twelve)) == darkest);
}

TEST_CASE("16 bits: sBIT of colours, and one that makes no sense or is damaged") {
    const std::vector<uint32_t> pixels = {4095, 2048, 0, 1, 2, 3};
    Picture picture;
    Decoder decoder;
    const auto rgb = [&](const std::string& significant) {
        const std::vector<uint8_t> bytes = png_of(pixels, significant, 3);
        decoder.decode(bytes.data(), bytes.size(), "x", {}, picture);
        return picture.rgb;
    };
    CHECK(rgb("\x0A\x0C\x0B") == std::vector<uint8_t>{255, 128, 0, 0, 0, 0});
    CHECK(rgb("\x11\x11\x11") == std::vector<uint8_t>{16, 8, 0, 0, 0, 0});
    CHECK(rgb(std::string(3, '\0')) == std::vector<uint8_t>{16, 8, 0, 0, 0, 0});
    std::vector<uint8_t> damaged = png_of(pixels, "\x0C\x0C\x0C", 3);
    ++damaged[41];  // signature 8, IHDR 25, length and type of sBIT 8
    CHECK(contains(error_of([&] { levels(damaged); }).what(), "a PNG chunk is damaged"));
}

TEST_CASE("16 bits: what is asked for stands above a PNM's own maximum, and does not touch 8 bits") {
    const auto pnm = [](const std::string& text) { return std::vector<uint8_t>(text.begin(), text.end()); };
    const std::vector<uint8_t> deep = pnm("P5 2 1 65535\n" + big_endian(4095, 2) + big_endian(2048, 2));
    CHECK(levels(deep) == std::vector<int>{16, 8});
    CHECK(levels(deep, 12) == std::vector<int>{255, 128});
    CHECK(levels(pnm("P5 2 1 4095\n" + big_endian(4095, 2) + big_endian(2048, 2))) == std::vector<int>{255, 128});
    CHECK(levels(pnm("P5 1 1 255\nd"), 12) == std::vector<int>{'d'});
}

TEST_CASE("16 bits: a loader tells how high the samples are of which nobody says how many bits count") {
    const TempFolder folder;
    folder.write("a/1.png", png_of(ramp(12)));
    folder.write("a/2.png", png_of(ramp(10)));
    folder.write("a/3.png", png_of(ramp(13), "\x0D"));
    folder.write_picture("b/4.ppm", 4);
    folder.write("b/5.jpg", read_file(golden_path("restart.jpg")));
    folder.write("b/6.jpg", read_file(golden_path("baseline.jpg")));
    const auto source = make_folder_source(folder.path());
    const auto seen = [&](int bits) {
        LoaderOptions options;
        options.batch_size = 2;
        options.workers = 2;
        options.pictures.image_size = 8;
        options.pictures.bits = bits;
        HostMemory memory;
        Loader loader(*source, options, memory);
        loader.start_epoch(0);
        while (loader.next() != nullptr) {
        }
        return loader.seen();
    };
    const PicturesSeen by_files = seen(0);
    CHECK(by_files.pictures == 6);
    CHECK(by_files.deep == 2);
    CHECK(by_files.highest == 4095);
    CHECK(by_files.jpegs == 2);
    CHECK(by_files.marked == 1);
    double pixels = 4096 + 1024 + 8192 + 64, shorter = 1 + 1 + 1 + 8, bytes = 0;
    for (const char* const name : {"restart.jpg", "baseline.jpg"}) {
        const Picture jpeg = golden_rgb(name);
        pixels += static_cast<double>(jpeg.height * jpeg.width);
        shorter += static_cast<double>(std::min(jpeg.height, jpeg.width));
    }
    for (int64_t i = 0; i < source->size(); ++i) {
        std::vector<uint8_t> file;
        source->read(i, file);
        bytes += static_cast<double>(file.size());
    }
    CHECK(by_files.pixels == pixels);
    CHECK(by_files.shorter_side == shorter);
    CHECK(by_files.bytes == bytes);
    CHECK(seen(12).deep == 0);
}

TEST_CASE("16 bits: packed smaller, a picture keeps the range that was asked for") {
    const TempFolder folder;
    std::string text = "P5 64 64 65535\n";
    for (int i = 0; i < 64 * 64; ++i)
        text += big_endian(i % 64 < 32 ? 4095 : 1024, 2);
    folder.write("set/a/1.pgm", text);
    folder.write("set/b/1.pgm", text);
    const auto brightest = [&](int bits) {
        std::vector<NamedSource> splits;
        splits.push_back({"all", make_folder_source(folder.path("set"))});
        PackOptions options;
        options.format = PackFormat::folder;
        options.longest = 32;
        options.quality = 100;
        options.bits = bits;
        const std::string out = folder.path(cat("out", bits));
        pack(splits, out, options, [](const PackState&) {});
        const auto packed = make_folder_source(out);
        std::vector<uint8_t> bytes;
        packed->read(0, bytes);
        const Picture picture = decode(bytes.data(), bytes.size(), "x.jpg");
        CHECK(picture.height == 32);
        return int{*std::max_element(picture.rgb.begin(), picture.rgb.end())};
    };
    CHECK(brightest(0) <= 20);
    CHECK(brightest(12) >= 250);
}
