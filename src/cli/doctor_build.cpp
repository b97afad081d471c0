#include <stdio.h>  // jpeglib.h does not include what it uses

#include <jpeglib.h>

#include <CLI/Version.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>

#include "backend/backend.h"
#include "base/error.h"
#include "base/machine.h"
#include "cli/doctor.h"
#include "cli/version.h"
#include "pipeline/lmdb.h"

#define RN50_TEXT_OF(token) #token
#define RN50_VALUE_OF(macro) RN50_TEXT_OF(macro)

namespace rn50::doctor {

namespace {

Finding backend_finding() {
    try {
        const DeviceInfo info = make_backend("cpu")->info();
        std::string precisions = "fp32";
        if (info.bf16) precisions += ", bf16";
        if (info.fp16) precisions += ", fp16";
        return {State::good, "CPU backend", cat(info.library, ", ", info.threads, " threads, ", precisions), ""};
    } catch (const Error& error) {
        return {State::missing, "CPU backend", error.what(), error.remedy()};
    } catch (const std::exception& error) {
        return {State::missing, "CPU backend", error.what(), "tools/setup.sh installs what it needs"};
    }
}

}  // namespace

bool has_cpu_backend() {
    const std::vector<std::string> names = backends_built_in();
    return std::count(names.begin(), names.end(), "cpu") > 0;
}

std::vector<Finding> examine_build() {
    std::string backends;
    for (const std::string& name : backends_built_in())
        backends += cat(backends.empty() ? "" : ", ", name);
    std::vector<Finding> findings{
        {State::good, "rn50", cat(version, ", backends: ", backends.empty() ? "none" : backends), ""},
#ifdef LIBJPEG_TURBO_VERSION
        {State::good, "pictures", "libjpeg-turbo " RN50_VALUE_OF(LIBJPEG_TURBO_VERSION) ", stb_image", ""},
#else
        {State::costs, "pictures", "libjpeg " RN50_VALUE_OF(JPEG_LIB_VERSION) " without turbo: decoding is slow",
         install_command("libjpeg62-turbo-dev", "libjpeg-turbo-devel") + ", then build again"},
#endif
        {State::good, "libraries",
         cat("CLI11 ", CLI11_VERSION, ", nlohmann-json ", NLOHMANN_JSON_VERSION_MAJOR, ".", NLOHMANN_JSON_VERSION_MINOR,
             ".", NLOHMANN_JSON_VERSION_PATCH, ", LMDB ", lmdb_version()),
         ""},
    };
    if (has_cpu_backend()) findings.insert(findings.begin() + 1, backend_finding());
    return findings;
}

}  // namespace rn50::doctor
