#include "plan_cache.h"

#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"

namespace rn50::cuda {

namespace fs = std::filesystem;
using Json = nlohmann::json;

namespace {

constexpr int format_version = 2;

std::string file_name(const std::string& machine) {
    std::string name;
    for (const char letter : machine)
        name += std::isalnum(static_cast<unsigned char>(letter)) || letter == '.' || letter == '-' ? letter : '_';
    return cat("plans-", name, ".json");
}

}  // namespace

PlanCache::PlanCache(const std::string& folder, const std::string& machine) : machine_(machine) {
    if (folder.empty()) return;
    path_ = (fs::path(folder) / file_name(machine)).string();
    plans_ = read();
}

std::string PlanCache::default_folder() {
    const auto variable = [](const char* name) {
        const char* value = std::getenv(name);
        return value ? std::string(value) : std::string();
    };
    if (const std::string own = variable("RN50_PLAN_CACHE"); !own.empty()) return own;
    if (const std::string cache = variable("XDG_CACHE_HOME"); !cache.empty())
        return (fs::path(cache) / "rn50").string();
    if (const std::string home = variable("HOME"); !home.empty()) return (fs::path(home) / ".cache" / "rn50").string();
    log::warn_once("plan cache",
                   "HOME is not set, so the choice of convolution plans is measured at each start; "
                   "RN50_PLAN_CACHE=FOLDER keeps it");
    return {};
}

PlanCache::Plans PlanCache::read() const {
    std::error_code absent;
    if (!fs::exists(path_, absent)) return {};
    try {
        const Json file = Json::parse(read_file(path_));
        if (file.at("version") != format_version || file.at("machine") != machine_) return {};
        Plans plans;
        for (const auto& [key, entry] : file.at("plans").items())
            plans[key] = {{entry.at("engine").get<int64_t>(),
                           entry.at("knobs").get<std::vector<std::pair<int64_t, int64_t>>>()},
                          entry.at("ms").get<float>()};
        return plans;
    } catch (const std::exception&) {
        log::warn_once(
            "damaged plan cache",
            cat(path_, " is damaged or cannot be read: the plans are measured again and it is written anew"));
        return {};
    }
}

std::optional<KeptPlan> PlanCache::find(const std::string& key) const {
    const auto found = plans_.find(key);
    if (found == plans_.end()) return std::nullopt;
    return found->second;
}

void PlanCache::store(const std::string& key, const KeptPlan& kept) {
    plans_[key] = fresh_[key] = kept;
}

void PlanCache::flush() {
    if (path_.empty() || fresh_.empty()) return;
    try {
        fs::create_directories(fs::path(path_).parent_path());
        Plans all = read();
        for (const auto& [key, kept] : fresh_)
            all[key] = kept;
        Json plans = Json::object();
        for (const auto& [key, kept] : all)
            plans[key] = {{"engine", kept.choice.engine}, {"knobs", kept.choice.knobs}, {"ms", kept.milliseconds}};
        const Json file = {{"version", format_version}, {"machine", machine_}, {"plans", plans}};
        write_file_atomic(path_, file.dump(1) + "\n");
    } catch (const std::exception& error) {
        log::warn_once("plan cache", cat("the choice of convolution plans is not kept (", error.what(),
                                         "): each start measures again, and another run may choose other plans; "
                                         "RN50_PLAN_CACHE=FOLDER names a folder that can be written"));
    }
    fresh_.clear();
}

}  // namespace rn50::cuda
