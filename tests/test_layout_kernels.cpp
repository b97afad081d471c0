// Copies and pending values in those shapes and dtypes in which no op of a network makes them, on the emulator:
// whatever instance of a kernel is in the GPU module has run.
#define RN50_SIMT
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

#include "base/half.h"
#include "layout.h"
#include "simt_backend.h"
#include "tiles.h"

using namespace rn50;
using namespace rn50::test;

namespace {

/// Values of a dtype as bytes, between guards that must stay.
class Guarded {
  public:
    Guarded(DType dtype, const std::vector<float>& values) : dtype_(dtype), count_(values.size()) {
        static uint8_t used = 0;
        mark_ = ++used;  // one copied from another is seen
        bytes_.assign(2 * guard + count_ * size(), mark_);
        for (size_t i = 0; i < count_; ++i) {
            const uint16_t bits = dtype == DType::bf16 ? f32_to_bf16(values[i]) : f32_to_f16(values[i]);
            const auto byte = static_cast<uint8_t>(values[i]);
            const void* const from = dtype == DType::f32  ? static_cast<const void*>(&values[i])
                                     : dtype == DType::u8 ? static_cast<const void*>(&byte)
                                                          : static_cast<const void*>(&bits);
            std::memcpy(&bytes_[guard + i * size()], from, size());
        }
    }
    void* data() { return &bytes_[guard]; }
    std::vector<float> values() const {
        std::vector<float> all(count_);
        for (size_t i = 0; i < count_; ++i) {
            const uint8_t* const at = &bytes_[guard + i * size()];
            uint16_t bits = 0;
            if (dtype_ == DType::f32) {
                std::memcpy(&all[i], at, 4);
                continue;
            }
            std::memcpy(&bits, at, 2);
            all[i] = dtype_ == DType::bf16 ? bf16_to_f32(bits) : f16_to_f32(bits);
        }
        return all;
    }
    bool guards_stand() const {
        const auto is_guard = [this](uint8_t byte) { return byte == mark_; };
        return std::all_of(bytes_.begin(), bytes_.begin() + guard, is_guard) &&
               std::all_of(bytes_.end() - guard, bytes_.end(), is_guard);
    }

  private:
    size_t size() const { return static_cast<size_t>(size_of(dtype_)); }
    static constexpr ptrdiff_t guard = 1024;
    DType dtype_;
    size_t count_;
    uint8_t mark_ = 0;
    std::vector<uint8_t> bytes_;
};

/// Multiples of 1/8 below 16: every dtype holds them and their sums.
std::vector<float> eighths(int64_t count, int seed) {
    std::vector<float> values;
    for (int64_t i = 0; i < count; ++i)
        values.push_back(static_cast<float>((i * 37 + seed) % 127 - 63) / 8);
    return values;
}

}  // namespace

TEST_CASE("layout kernels: dense copies within a dtype, in whole packs and not, written and added") {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16})
        for (const int64_t channels : {16, 15})  // 3 rows: packs of 4 or 8 divide the first alone
            for (const Write write : {Write::overwrite, Write::add})
                for (const EmulatorOrder order : {EmulatorOrder::forward, EmulatorOrder::shuffled}) {
                    CAPTURE(cat(name_of(dtype), ", ", channels, " channels"));
                    set_emulator_order(order);
                    const int64_t count = 3 * channels;
                    const std::vector<float> from = eighths(count, 1), before = eighths(count, 50);
                    Guarded src(dtype, from), dst(dtype, before);
                    cuda::copy_matrix(nullptr, {src.data(), dtype, 3, channels}, {dst.data(), dtype, 3, channels},
                                      write);
                    std::vector<float> expected = from;
                    for (size_t i = 0; write == Write::add && i < expected.size(); ++i)
                        expected[i] += before[i];
                    CHECK(dst.values() == expected);
                    CHECK(dst.guards_stand());
                }
}

TEST_CASE("layout kernels: bytes with a pending norm, in other widths than a network's first layer has") {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16})
        for (const bool relu : {false, true})
            for (const int64_t dst_channels : {5, 8}) {
                CAPTURE(cat(name_of(dtype), " ", dst_channels, relu ? " relu" : ""));
                set_emulator_order(EmulatorOrder::shuffled);
                const int64_t channels = 5, rows = 2 * 3 * 3;
                std::vector<float> bytes;
                for (int64_t i = 0; i < rows * channels; ++i)
                    bytes.push_back(static_cast<float>(i * 29 % 16));
                // Powers of two and small sums: nothing is rounded, in any dtype.
                std::vector<float> scale{1, 2, 0.5f, -1, 0.25f}, shift{0, -3, 1, 2, -1};
                Guarded src(DType::u8, bytes),
                    dst(dtype, std::vector<float>(static_cast<size_t>(rows * dst_channels), 9));
                Activation pending;
                pending.raw = {src.data(), DType::u8, {2, 3, 3, channels}};
                pending.norm.scale = {scale.data(), DType::f32, {channels}};
                pending.norm.shift = {shift.data(), DType::f32, {channels}};
                pending.relu = relu;
                cuda::apply_pending(nullptr, pending, dst.data(), dtype, dst_channels);
                std::vector<float> expected;
                for (int64_t row = 0; row < rows; ++row)
                    for (int64_t c = 0; c < dst_channels; ++c) {
                        const auto at = static_cast<size_t>(c);
                        float v = c < channels ? bytes[static_cast<size_t>(row * channels + c)] * scale[at] + shift[at]
                                               : 0.0f;
                        if (relu && v < 0) v = 0;
                        expected.push_back(v);
                    }
                CHECK(dst.values() == expected);
                CHECK(dst.guards_stand());
            }
}

TEST_CASE("layout kernels: a tile that would hold one row more") {
    // 128 channels of f32 are 32 packs: tiles of 64 rows, of which there are 63.
    const int64_t channels = 128, rows = 7 * 9;
    const std::vector<float> values = eighths(rows * channels, 3);
    Guarded src(DType::f32, values), dst(DType::f32, std::vector<float>(values.size(), 9));
    Activation plain;
    plain.raw = {src.data(), DType::f32, {1, 7, 9, channels}};
    for (const EmulatorOrder order : {EmulatorOrder::forward, EmulatorOrder::backward}) {
        set_emulator_order(order);
        cuda::apply_pending(nullptr, plain, dst.data(), DType::f32, channels);
        CHECK(dst.values() == values);
        CHECK(dst.guards_stand());
    }
}
