// What is known of a GPU module and a driver before either is loaded, and how its code serves a GPU.
#include <doctest/doctest.h>
#include <link.h>

#include <algorithm>
#include <cstring>

#include "backend/cuda_module.h"
#include "backend/elf.h"
#include "base/random.h"
#include "pipeline_support.h"

using namespace rn50;
using rn50::test::TempFolder;

namespace {

/// The file of a library that this process has loaded: its path holds `name`.
std::string file_of(const char* name) {
    std::pair<const char*, std::string> search{name, ""};
    dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void* data) {
            auto& [wanted, found] = *static_cast<std::pair<const char*, std::string>*>(data);
            if (std::strstr(info->dlpi_name, wanted) != nullptr) found = info->dlpi_name;
            return 0;
        },
        &search);
    return search.second;
}

std::string text_of(const std::string& path) {
    const std::vector<uint8_t> bytes = test::read_file(path);
    return {bytes.begin(), bytes.end()};
}

bool holds(const std::vector<std::string>& names, const char* name) {
    return std::count(names.begin(), names.end(), name) == 1;
}

}  // namespace

TEST_CASE("elf: the libraries that a file needs") {
    const std::string cpp = file_of("/libstdc++.so.6");
    REQUIRE_FALSE(cpp.empty());
    const std::vector<std::string> names = libraries_needed(cpp);
    CHECK(is_whole_library(cpp));
    CHECK(holds(names, "libc.so.6"));  // as `ldd` and `readelf -d` have it
    CHECK(holds(names, "libm.so.6"));
    CHECK_FALSE(holds(names, "libstdc++.so.6"));
    CHECK(libraries_needed("/nowhere.so").empty());
    CHECK_FALSE(is_whole_library("/nowhere.so"));
}

TEST_CASE("elf: a damaged file is told or misread, and nothing worse") {
    const TempFolder folder;
    const std::string whole = text_of(file_of("/libm.so.6")), path = folder.path("damaged.so");
    REQUIRE(whole.size() > 10000);
    folder.write("damaged.so", whole.substr(0, whole.size() / 2));
    CHECK_FALSE(is_whole_library(path));
    CHECK(libraries_needed(path).empty());
    folder.write("damaged.so",
                 "\x7f"
                 "ELF");
    CHECK_FALSE(is_whole_library(path));
    // Numbers in the headers of file and sections are replaced by large and odd ones.
    uint64_t sections = 0;
    std::memcpy(&sections, whole.data() + 40, sizeof sections);
    Random random(0, 0, 0, Purpose::demo);
    for (int i = 0; i < 200; ++i) {
        std::string damaged = whole;
        for (int k = 0; k < 20; ++k) {
            const size_t at = k == 0 && i % 4 == 0
                                  ? 16 + random.below(48)
                                  : sections + random.below(static_cast<uint32_t>(whole.size() - sections));
            damaged[at] = static_cast<char>(random.below(256));
        }
        folder.write("damaged.so", damaged);
        CHECK(libraries_needed(path).size() < 10000);
    }
}

TEST_CASE("driver: one that is too old is named, with what each way out is") {
    const ModuleFailure failure = driver_too_old(12020, 13);
    CHECK(failure.reason.find("is too old: it runs CUDA up to 12.2, rn50_cuda.so is made with CUDA 13") !=
          std::string::npos);
    CHECK(failure.remedy.find("driver 580 or newer") != std::string::npos);
    CHECK(failure.remedy.find("CUDA 12") != std::string::npos);
    CHECK(driver_too_old(11080, 12).remedy.find("driver 525 or newer") != std::string::npos);
}

TEST_CASE("module: machine code, PTX or nothing for a GPU, by CUDA's rules") {
    const auto code = [](const char* architectures, int major, int minor) {
        return static_cast<int>(module_code(architectures, major, minor));
    };
    const int none = static_cast<int>(ModuleCode::none), ptx = static_cast<int>(ModuleCode::ptx),
              machine = static_cast<int>(ModuleCode::machine);
    const char* const usual = "sm_89 compute_75";
    CHECK(code(usual, 8, 9) == machine);
    CHECK(code(usual, 9, 0) == ptx);
    CHECK(code(usual, 8, 6) == ptx);  // machine code does not serve older GPUs of its generation
    CHECK(code(usual, 7, 5) == ptx);
    CHECK(code(usual, 7, 0) == none);
    CHECK(code("sm_80", 8, 6) == machine);  // but younger ones
    CHECK(code("sm_80", 9, 0) == none);     // of its generation
    CHECK(code("sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120 compute_120", 12, 0) == machine);
    CHECK(code("sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120 compute_120", 12, 1) == machine);
    CHECK(code("sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120 compute_120", 13, 0) == ptx);
    CHECK(code("sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120 compute_120", 11, 0) == none);
    CHECK(code("compute_90a", 9, 0) == ptx);
    CHECK(code("sm_90a compute_90a", 10, 0) == none);
    CHECK(code("sm_100f", 10, 3) == machine);
    CHECK(code("compute_100f", 12, 0) == none);
    CHECK(code("", 8, 9) == none);
    CHECK(code("rubbish sm_ sm_x compute", 8, 9) == none);
}
