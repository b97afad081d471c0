// What the pipeline's tests share: golden pictures, a folder that goes away, host memory that counts.
#pragma once

#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/error.h"
#include "environment.h"
#include "pipeline/decode.h"
#include "tensor/arena.h"

namespace rn50::test {

inline std::vector<uint8_t> read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    REQUIRE_MESSAGE(file.good(), path);
    return {std::istreambuf_iterator<char>(file), {}};
}

inline std::string golden_path(const std::string& file) {
    return tests_folder() + "/golden/pictures/" + file;
}

/// NAME.rgb as tools/golden_pictures.py writes it.
inline Picture golden_rgb(const std::string& name) {
    const std::vector<uint8_t> bytes = read_file(golden_path(name + ".rgb"));
    int32_t size[2];
    REQUIRE(bytes.size() > sizeof size);
    std::memcpy(size, bytes.data(), sizeof size);
    Picture picture;
    picture.height = size[0];
    picture.width = size[1];
    picture.rgb.assign(bytes.begin() + sizeof size, bytes.end());
    REQUIRE(static_cast<int64_t>(picture.rgb.size()) == picture.height * picture.width * 3);
    return picture;
}

/// The picture by formula of tools/golden_pictures.py.
inline Picture formula_picture(int64_t height, int64_t width) {
    Picture picture;
    picture.height = height;
    picture.width = width;
    for (int64_t y = 0; y < height; ++y) {
        for (int64_t x = 0; x < width; ++x) {
            for (int64_t c = 0; c < 3; ++c) {
                const auto index = static_cast<uint64_t>((y * width + x) * 3 + c);
                const auto noise = static_cast<int64_t>(((index * 2654435761u + 12345) & 0xFFFFFFFFu) >> 27);
                int64_t value = (x * 5 + y * 3 + c * 40) % 200 + noise;
                if (x * 2 > width && y * 3 < height) value = 255 - value;
                picture.rgb.push_back(static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value));
            }
        }
    }
    return picture;
}

/// The largest difference of any byte; 256 when the sizes differ.
inline int difference(const uint8_t* a, const uint8_t* b, size_t n) {
    int worst = 0;
    for (size_t i = 0; i < n; ++i)
        worst = std::max(worst, std::abs(int{a[i]} - int{b[i]}));
    return worst;
}
inline int difference(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b) {
    return a.size() == b.size() ? difference(a.data(), b.data(), a.size()) : 256;
}

class TempFolder {
  public:
    TempFolder() {
        static std::atomic<int> count{0};
        path_ = std::filesystem::temp_directory_path() / cat("rn50_pipeline_", getpid(), "_", count++);
        std::filesystem::create_directories(path_);
    }
    ~TempFolder() { std::filesystem::remove_all(path_); }
    TempFolder(const TempFolder&) = delete;
    TempFolder& operator=(const TempFolder&) = delete;

    std::string path(const std::string& name = "") const {
        return name.empty() ? path_.string() : (path_ / name).string();
    }
    void write(const std::string& name, const std::vector<uint8_t>& bytes) const {
        std::filesystem::create_directories((path_ / name).parent_path());
        std::ofstream(path_ / name, std::ios::binary)
            .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    }
    void write(const std::string& name, const std::string& text) const {
        write(name, std::vector<uint8_t>(text.begin(), text.end()));
    }
    /// A PPM of 8 x 8 pixels that differ with `seed`.
    void write_picture(const std::string& name, int seed) const {
        std::vector<uint8_t> bytes;
        for (const char c : std::string("P6 8 8 255\n"))
            bytes.push_back(static_cast<uint8_t>(c));
        for (int i = 0; i < 8 * 8 * 3; ++i)
            bytes.push_back(static_cast<uint8_t>(seed * 37 + i * (1 + seed % 5)));
        write(name, bytes);
    }

  private:
    std::filesystem::path path_;
};

class HostMemory : public Memory {
  public:
    void* allocate(int64_t bytes) override {
        in_use += bytes;
        void* data = nullptr;
        return posix_memalign(&data, Arena::alignment, static_cast<size_t>(bytes)) == 0 ? data : nullptr;
    }
    void release(void* data, int64_t bytes) override {
        in_use -= bytes;
        std::free(data);
    }
    void fill(void* data, int value, int64_t bytes) override { std::memset(data, value, static_cast<size_t>(bytes)); }
    int64_t in_use = 0;
};

/// Runs `action` and gives the error it throws; fails when it throws none.
template <class Action>
Error error_of(Action&& action) {
    try {
        action();
    } catch (const Error& error) {
        return error;
    }
    FAIL("nothing was thrown");
    return Error(Exit::ok, "");
}

inline bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

}  // namespace rn50::test
