// safetensors: files of Python's package, our own, and damaged ones.
#include <doctest/doctest.h>
#include <unistd.h>

#include <unistd.h>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <vector>

#include "base/files.h"
#include "environment.h"
#include "format/safetensors.h"

namespace fs = std::filesystem;
using namespace rn50;

namespace {

const std::string golden = test::tests_folder() + "/golden/python.safetensors";

struct TemporaryFile {
    TemporaryFile() : path((fs::temp_directory_path() / ("rn50-format-" + std::to_string(getpid()))).string()) {}
    ~TemporaryFile() { fs::remove(path); }
    std::string path;
};

std::vector<float> read_f32(const SafetensorsReader& file, const std::string& name) {
    const TensorEntry& entry = file.entry(name);
    std::vector<float> values(static_cast<size_t>(entry.count()));
    file.read(name, entry.dims, DType::f32, values.data());
    return values;
}

/// Opens the file and reads every tensor in every way; true when it was taken, false when it was refused by an Error.
bool survives(const std::string& path) {
    try {
        const SafetensorsReader file(path);
        for (const auto& [name, entry] : file.entries()) {
            std::vector<char> bytes(static_cast<size_t>(entry.count()) * 8 + 8);
            for (const DType wanted : {DType::f32, DType::f16, DType::u8, DType::i64})
                try {
                    file.read(name, entry.dims, wanted, bytes.data());
                } catch (const Error& error) {
                    REQUIRE(error.code() == Exit::data);
                }
        }
        return true;
    } catch (const Error& error) {
        REQUIRE(error.code() == Exit::data);
        CHECK(std::string(error.what()).find(path) != std::string::npos);
        CHECK(!error.remedy().empty());
        return false;
    }
}

std::string refusal(const std::string& path, const std::string& bytes) {
    write_file_atomic(path, bytes);
    try {
        const SafetensorsReader file(path);
    } catch (const Error& error) {
        CHECK(error.code() == Exit::data);
        return error.what();
    }
    return "taken";
}

/// A file with the given header, and data of zeros.
std::string with_header(const std::string& header, size_t data_bytes) {
    std::string file;
    for (int i = 0; i < 8; ++i)
        file += static_cast<char>(header.size() >> (8 * i) & 255);
    return file + header + std::string(data_bytes, '\0');
}

}  // namespace

// Written by safetensors 0.8 and PyTorch 2.15:
//     save_file({"conv1.weight": torch.arange(24, dtype=torch.float32).reshape(2, 3, 2, 2) / 8 - 1,
//                "half": torch.tensor([1., -2.5, 65504., 2**-14, 2**-24, -6 * 2**-24, inf, -inf, nan, -0.]).half(),
//                "brain": torch.tensor([[1., -3.140625], [1e38, 1e-40]]).bfloat16(),
//                "double": torch.tensor([0.1, -1e300, 3.], dtype=torch.float64),
//                "bn1.num_batches_tracked": torch.tensor(1234567890123), "flags": torch.tensor([True, False, True]),
//                "small": torch.tensor([-7, 7], dtype=torch.int32), "bytes": torch.tensor([0, 128, 255]).byte(),
//                "empty": torch.zeros(0, 5), "Kratzer/ü 划痕": torch.ones(1)},
//               metadata={"format": "pt", "classes": '["scratch", "划痕"]'})
TEST_CASE("safetensors: a file of Python's package is read, 16-bit and 64-bit floats as f32") {
    const SafetensorsReader file(golden);
    CHECK(file.entries().size() == 10);
    CHECK(file.metadata() ==
          std::map<std::string, std::string>{{"format", "pt"}, {"classes", R"(["scratch", "划痕"])"}});
    CHECK(file.has("Kratzer/ü 划痕"));
    CHECK(!file.has("fc.bias"));
    CHECK(str(file.entry("conv1.weight").dims) == "2x3x2x2");
    CHECK(str(file.entry("bn1.num_batches_tracked").dims) == "scalar");
    CHECK(file.entry("flags").dtype == "BOOL");

    const std::vector<float> conv = read_f32(file, "conv1.weight");
    for (size_t i = 0; i < 24; ++i)
        CHECK(conv[i] == static_cast<float>(i) / 8 - 1);
    const float inf = std::numeric_limits<float>::infinity();
    const std::vector<float> half = read_f32(file, "half");
    const std::vector<float> expected{1, -2.5, 65504, 0x1p-14f, 0x1p-24f, -6 * 0x1p-24f, inf, -inf};
    CHECK(std::vector<float>(half.begin(), half.begin() + 8) == expected);
    CHECK(std::isnan(half[8]));
    CHECK(half[9] == 0);
    CHECK(std::signbit(half[9]));
    const std::vector<float> brain = read_f32(file, "brain");
    CHECK(brain[0] == 1);
    CHECK(brain[1] == -3.140625f);
    CHECK(brain[2] == doctest::Approx(1e38).epsilon(0.004));
    CHECK(brain[3] == doctest::Approx(1e-40).epsilon(0.004));
    CHECK(read_f32(file, "double") == std::vector<float>{0.1f, -inf, 3});
    CHECK(read_f32(file, "empty").empty());

    int64_t batches = 0;
    file.read("bn1.num_batches_tracked", {}, DType::i64, &batches);
    CHECK(batches == 1234567890123);
    int32_t small[2];
    file.read("small", {2}, DType::i32, small);
    CHECK(small[0] == -7);
    uint8_t bytes[3];
    file.read("bytes", {3}, DType::u8, bytes);
    CHECK(bytes[2] == 255);
}

TEST_CASE("safetensors: a wrong shape, dtype or name is refused with both sides") {
    const SafetensorsReader file(golden);
    float values[64];
    const auto message = [&](const std::string& name, const Dims& dims, DType dtype) -> std::string {
        try {
            file.read(name, dims, dtype, values);
        } catch (const Error& error) {
            CHECK(error.code() == Exit::data);
            return error.what();
        }
        return "";
    };
    CHECK(message("conv1.weight", {3, 2, 2, 2}, DType::f32) ==
          golden + ": tensor conv1.weight is F32 2x3x2x2 where F32 3x2x2x2 is needed");
    CHECK(message("small", {2}, DType::f32) == golden + ": tensor small is I32 2 where F32 2 is needed");
    CHECK(message("half", {10}, DType::bf16) == golden + ": tensor half is F16 10 where BF16 10 is needed");
    CHECK(message("fc.weight", {1}, DType::f32) == golden + ": has no tensor fc.weight");
}

TEST_CASE("safetensors: the same tensors give the very bytes of Python's package") {
    // save_file({"bias": torch.ones(2), "a": torch.tensor(5), "c": torch.tensor([1, 2, 3], dtype=torch.uint8)},
    //           metadata={"format": "pt"})
    const std::string header =
        R"({"__metadata__":{"format":"pt"},"a":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
        R"("bias":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},"c":{"dtype":"U8","shape":[3],"data_offsets":[16,19]}})"
        "     ";
    std::string python = with_header(header, 0);
    python += std::string("\5\0\0\0\0\0\0\0\0\0\x80\x3f\0\0\x80\x3f\1\2\3", 19);

    const TemporaryFile file;
    SafetensorsWriter writer;
    const float ones[] = {1, 1};
    const uint8_t bytes[] = {1, 2, 3};
    writer.add("c", DType::u8, {3}, bytes);
    writer.add("bias", DType::f32, {2}, ones);
    writer.add("a", DType::i64, {}, [](void* dst) {
        const int64_t five = 5;
        std::memcpy(dst, &five, sizeof five);
    });
    writer.set_metadata("format", "pt");
    writer.write(file.path);
    CHECK(read_file(file.path) == python);
    writer.write(file.path);
    CHECK(read_file(file.path) == python);
}

TEST_CASE("safetensors: what is written is read back, to the bit") {
    const TemporaryFile file;
    std::vector<float> large(100003);
    for (size_t i = 0; i < large.size(); ++i)
        large[i] = static_cast<float>(i) * 0.37f - 1e4f;
    large[7] = std::numeric_limits<float>::quiet_NaN();
    const uint16_t half[] = {0x3C00, 0xC100};
    SafetensorsWriter writer;
    writer.add("z", DType::f32, {static_cast<int64_t>(large.size())}, large.data());
    writer.add("quote\"\\\n", DType::f16, {1, 2}, half);
    writer.add("nothing", DType::i32, {4, 0}, nullptr);
    writer.set_metadata("classes", "[\"ü\"]");
    writer.set_metadata("latin", "\xfc");  // no UTF-8: a folder's name may be anything
    writer.write(file.path);

    const SafetensorsReader reader(file.path);
    CHECK(reader.metadata().at("classes") == "[\"ü\"]");
    CHECK(reader.metadata().at("latin") == "\xef\xbf\xbd");
    const std::vector<float> back = read_f32(reader, "z");
    CHECK(std::memcmp(back.data(), large.data(), large.size() * sizeof(float)) == 0);
    CHECK(read_f32(reader, "quote\"\\\n") == std::vector<float>{1, -2.5});
    CHECK(reader.entry("nothing").count() == 0);

    const SafetensorsWriter empty;
    empty.write(file.path);
    CHECK(SafetensorsReader(file.path).entries().empty());
    float one = 0;
    CHECK_THROWS_AS(writer.add("z", DType::f32, {1}, &one), Error);
    CHECK_THROWS_AS(writer.add("__metadata__", DType::f32, {1}, &one), Error);
}

TEST_CASE("safetensors: damage is named") {
    const TemporaryFile temporary;
    const std::string& path = temporary.path;
    const auto contains = [&](const std::string& bytes, const std::string& part) {
        const std::string message = refusal(path, bytes);
        CHECK_MESSAGE(message.find(part) != std::string::npos, message);
        CHECK(message.find(path) == 0);
    };
    const std::string x = R"("x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
    CHECK(refusal(path, with_header("{" + x + "}", 8)) == "taken");
    contains("", "has only 0 bytes");
    contains("PK\3\4 and so on", "zip");
    contains(std::string(8, '\xff') + "{}", "says that its header has 18446744073709551615 bytes");
    contains(with_header("{" + x + "}", 8).substr(0, 30), "ends within its header");
    contains(with_header("[1,2]", 0), "no JSON object");
    contains(with_header("{" + x, 8), "no JSON");
    contains(with_header("{" + x + "}", 7), "cut short");
    contains(with_header("{" + x + "}", 9), "1 bytes behind its last tensor");
    contains(with_header("{" + x + "," + x + "}", 8), "gives \"x\" twice");
    contains(with_header(R"({"x":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8), "twice");
    contains(with_header("{" + x + R"(,"y":{"dtype":"U8","shape":[8],"data_offsets":[4,12]}})", 12), "tensor y starts");
    contains(with_header("{" + x + R"(,"y":{"dtype":"U8","shape":[8],"data_offsets":[9,17]}})", 17), "of no tensor");
    contains(with_header(R"({"x":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8),
             "tensor x of F32 3 has 8 bytes");
    contains(with_header(R"({"x":{"dtype":"Q4","shape":[3],"data_offsets":[0,8]}})", 8), "dtype \"Q4\"");
    contains(with_header(R"({"x":{"dtype":"F32","shape":[2]}})", 8), "no data_offsets");
    contains(with_header(R"({"x":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8), "holds -2");
    contains(with_header(R"({"x":{"dtype":"F32","shape":[2.5],"data_offsets":[0,8]}})", 8), "holds 2.5");
    contains(with_header(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8), "data_offsets");
    contains(with_header(R"({"x":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0),
             "tensor x");
    contains(with_header(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}})", 8),
             "tensor x");
    contains(with_header(R"({"__metadata__":{"a":1}})", 0), "metadata \"a\"");
    contains(with_header("{" + std::string(100000, '[') + "}", 0), "no JSON");
    contains(with_header("{\"x\":" + std::string(100000, '[') + std::string(100000, ']') + "}", 0), "nested");
    CHECK_THROWS_AS(SafetensorsReader(path + "-missing"), Error);
    CHECK_THROWS_AS(SafetensorsReader(fs::temp_directory_path().string()), Error);
}

TEST_CASE("safetensors: whatever byte is changed or cut off, the file is read or refused") {
    const TemporaryFile temporary;
    const std::string whole = read_file(golden);
    REQUIRE(whole.size() < 2000);
    write_file_atomic(temporary.path, whole);
    for (size_t length = whole.size(); length-- > 0;) {
        fs::resize_file(temporary.path, length);
        CHECK(!survives(temporary.path));
    }
    write_file_atomic(temporary.path, whole);
    std::fstream file(temporary.path, std::ios::in | std::ios::out | std::ios::binary);
    const auto put = [&](size_t at, int byte) {
        file.seekp(static_cast<std::streamoff>(at)).put(static_cast<char>(byte)).flush();
        REQUIRE(file.good());
    };
    int taken = 0;
    for (size_t at = 0; at < whole.size(); ++at) {
        for (const int change : {1, 2, 8, 32, 128, 255}) {
            put(at, whole[at] ^ change);
            taken += survives(temporary.path);
        }
        put(at, whole[at]);
    }
    CHECK(taken > 900);  // at least the changes of the data itself
    CHECK(survives(temporary.path));
}
