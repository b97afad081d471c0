// pack.json, by which an interrupted `pack` goes on.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "pipeline/pack_manifest.h"

namespace {

/// A folder whose pack.json is the file behind `descriptor`.
std::string folder_of(int descriptor) {
    char name[] = "/tmp/rn50_fuzz_manifest_XXXXXX";
    RN50_REQUIRE(mkdtemp(name) != nullptr, "no folder for pack.json");
    const std::string folder = name, file = "/proc/self/fd/" + std::to_string(descriptor);
    RN50_REQUIRE(symlink(file.c_str(), (folder + "/pack.json").c_str()) == 0, "no pack.json");
    static std::string made;  // for atexit, which takes no argument
    made = folder;
    std::atexit([] {
        unlink((made + "/pack.json").c_str());
        rmdir(made.c_str());
    });
    return folder;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace rn50;
    static const int file = memfd_create("pack.json", 0);
    static const std::string folder = folder_of(file);
    if (ftruncate(file, 0) != 0 || pwrite(file, data, size, 0) != static_cast<ssize_t>(size)) return 0;
    pack_is_unfinished(folder);
    try {
        PackManifest manifest;
        RN50_REQUIRE(PackManifest::read(folder, manifest), "pack.json is there");
        manifest.require_same(manifest, folder);
        for (const PackManifest::Split& split : manifest.splits) {
            RN50_REQUIRE(split.next >= 0 && split.next <= split.pictures, "picture ", split.next, " of ",
                         split.pictures);
            for (const WrittenPart& part : split.parts)
                RN50_REQUIRE(part.pictures >= 0 && part.bytes >= 0, part.file, " holds less than nothing");
        }
    } catch (const Error& error) {
        if (error.code() != Exit::data) throw;
    }
    return 0;
}
