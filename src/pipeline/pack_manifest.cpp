#include "pipeline/pack_manifest.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "pipeline/folder.h"

namespace rn50 {

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* file_name = "pack.json";

Json to_json(const PackManifest::Split& split) {
    Json parts = Json::array(), bad = Json::array();
    for (const WrittenPart& part : split.parts)
        parts.push_back({{"file", part.file}, {"pictures", part.pictures}, {"bytes", part.bytes}});
    for (const PackManifest::Bad& picture : split.bad)
        bad.push_back({{"name", picture.name}, {"reason", picture.reason}});
    return {{"name", split.name},   {"pictures", split.pictures}, {"fingerprint", split.fingerprint},
            {"next", split.next},   {"complete", split.complete}, {"parts", std::move(parts)},
            {"bad", std::move(bad)}};
}

PackManifest::Split split_from(const Json& json) {
    PackManifest::Split split;
    json.at("name").get_to(split.name);
    json.at("pictures").get_to(split.pictures);
    json.at("fingerprint").get_to(split.fingerprint);
    json.at("next").get_to(split.next);
    json.at("complete").get_to(split.complete);
    for (const Json& part : json.at("parts"))
        split.parts.push_back({part.at("file"), part.at("pictures"), part.at("bytes")});
    for (const Json& picture : json.at("bad"))
        split.bad.push_back({picture.at("name"), picture.at("reason")});
    return split;
}

/// Numbers that pack() writes, and goes on by.
bool makes_sense(const PackManifest::Split& split) {
    return split.pictures >= 0 && split.next >= 0 && split.next <= split.pictures &&
           std::all_of(split.parts.begin(), split.parts.end(),
                       [](const WrittenPart& part) { return part.pictures >= 0 && part.bytes >= 0; });
}

}  // namespace

bool PackManifest::complete() const {
    return std::all_of(splits.begin(), splits.end(), [](const Split& split) { return split.complete; });
}

void PackManifest::write(const std::string& folder) const {
    Json all = Json::array();
    for (const Split& split : splits)
        all.push_back(to_json(split));
    const Json json{{"rn50_pack", 1},     {"complete", complete()},   {"format", format},
                    {"encode", encode},   {"longest", longest},       {"shortest", shortest},
                    {"quality", quality}, {"part_bytes", part_bytes}, {"restart_markers", restart_markers},
                    {"bits", bits},       {"splits", std::move(all)}};
    write_file_atomic(join(folder, file_name), json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
}

bool PackManifest::read(const std::string& folder, PackManifest& manifest) {
    const std::string path = join(folder, file_name);
    std::error_code missing;
    if (!std::filesystem::is_regular_file(path, missing)) return false;
    try {
        const Json json = Json::parse(read_file(path));
        if (json.at("rn50_pack") != 1) throw Error(Exit::data, cat(path, ": was written by another version of rn50"));
        manifest = PackManifest();
        json.at("format").get_to(manifest.format);
        manifest.encode = json.value("encode", "keep");  // older ones had no choice
        json.at("longest").get_to(manifest.longest);
        json.at("shortest").get_to(manifest.shortest);
        json.at("quality").get_to(manifest.quality);
        json.at("part_bytes").get_to(manifest.part_bytes);
        manifest.restart_markers = json.value("restart_markers", false);
        manifest.bits = json.value("bits", 0);
        for (const Json& split : json.at("splits"))
            manifest.splits.push_back(split_from(split));
        if (!std::all_of(manifest.splits.begin(), manifest.splits.end(), makes_sense))
            throw Error(Exit::data,
                        cat(path, ": is damaged: it counts more pictures than there are, or less than none"),
                        "pack into a new folder");
        return true;
    } catch (const Json::exception& error) {
        throw Error(Exit::data, cat(path, ": is damaged: ", error.what()), "pack into a new folder");
    }
}

void PackManifest::require_same(const PackManifest& asked, const std::string& folder) const {
    const auto differs = [&](const std::string& what, const auto& then, const auto& now) {
        if (then == now) return;
        throw Error(Exit::usage, cat(folder, " was begun with ", what, " ", then, ", not ", now),
                    "give the same options to go on, or pack into a new folder");
    };
    differs("--format", format, asked.format);
    differs("--encode", encode, asked.encode);
    differs("--longest", longest, asked.longest);
    differs("--shortest", shortest, asked.shortest);
    differs("--quality", quality, asked.quality);
    differs("shards of so many bytes:", part_bytes, asked.part_bytes);
    const auto yes_or_no = [](bool value) { return value ? "yes" : "no"; };
    differs("--restart-markers:", std::string(yes_or_no(restart_markers)), yes_or_no(asked.restart_markers));
    differs("--bits", bits, asked.bits);
    differs("a number of splits:", splits.size(), asked.splits.size());
    for (size_t i = 0; i < splits.size(); ++i) {
        differs("split", splits[i].name, asked.splits[i].name);
        differs(cat(splits[i].name, " of so many pictures:"), splits[i].pictures, asked.splits[i].pictures);
        differs(cat("other pictures or labels in ", splits[i].name, ", fingerprint"), splits[i].fingerprint,
                asked.splits[i].fingerprint);
    }
}

}  // namespace rn50
