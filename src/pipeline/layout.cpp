#include "pipeline/layout.h"

#include <algorithm>
#include <filesystem>
#include <iomanip>
#include <map>

#include "base/error.h"
#include "pipeline/folder.h"

namespace rn50 {

namespace fs = std::filesystem;

namespace {

constexpr const char* digits = "0123456789";
constexpr size_t most_names = 1'000'000;

bool ends_with(const std::string& text, const std::string& end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

bool strip_end(std::string& text, const std::string& end) {
    if (!ends_with(text, end)) return false;
    text.resize(text.size() - end.size());
    return true;
}

/// "-00000-of-00128" at the end, which is removed; gives 128, or 0 when there is none.
int64_t strip_number_of(std::string& text) {
    const size_t total = text.find_last_not_of(digits) + 1;
    if (total == text.size() || text.size() - total > 9 || !ends_with(text.substr(0, total), "-of-")) return 0;
    const std::string head = text.substr(0, total - 4);
    const size_t number = head.find_last_not_of(digits) + 1;
    if (number == head.size() || number == 0 || head[number - 1] != '-') return 0;
    const int64_t shards = std::stoll(text.substr(total));
    text = head.substr(0, number - 1);
    return shards;
}

/// "imagenet-train_" is a split named train; a prefix that says nothing of the kind is its own name.
std::string split_of_prefix(std::string prefix) {
    prefix.resize(prefix.find_last_not_of(digits) + 1);
    prefix.resize(prefix.find_last_not_of("-_.") + 1);
    const std::string last = prefix.substr(prefix.find_last_of("-_.") + 1);
    if (last == "train" || last == "training") return "train";
    if (last == "val" || last == "valid" || last == "validation") return "val";
    return prefix;
}

[[noreturn]] void refuse_compressed(const std::string& path) {
    throw Error(Exit::data, cat(path, ": is compressed, which allows no random access"),
                "unpack it (gunzip, zstd -d); pictures are compressed themselves");
}

bool is_compressed(const std::string& name) {
    for (const char* end : {".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz", ".tfrecord.gz", ".tfrecords.gz"})
        if (ends_with(name, end)) return true;
    return false;
}

/// A split in the making: shards of one name.
struct Group {
    std::vector<std::string> paths;
    std::map<ShardKind, std::string> kinds;  ///< each with an example
    int64_t of_shards = 0;

    void add(const std::string& path, const ShardName& name) {
        paths.push_back(path);
        kinds.emplace(name.kind, path);
        of_shards = std::max(of_shards, name.of_shards);
    }
};

SplitPlace place_of(const std::string& split, const std::string& where, Group group) {
    if (group.kinds.size() > 1)
        throw Error(Exit::data,
                    cat(where, ": split ", split, " is there twice, as ", name_of(group.kinds.begin()->first), " (",
                        group.kinds.begin()->second, ") and as ", name_of(group.kinds.rbegin()->first), " (",
                        group.kinds.rbegin()->second, ")"),
                    "move one of them elsewhere");
    if (group.of_shards > 0 && static_cast<int64_t>(group.paths.size()) != group.of_shards)
        throw Error(Exit::data,
                    cat(where, ": there are ", group.paths.size(), " shards of ", split, ", whose names say ",
                        group.of_shards, " (", group.paths.front(), ")"),
                    "copy the missing ones, or remove the others");
    return {split, group.kinds.begin()->first, std::move(group.paths)};
}

Error mixture(const std::string& where, const std::string& shard, const std::string& other) {
    return Error(Exit::data, cat(where, ": holds shards (", shard, ") and more (", other, "): only one can be meant"),
                 "move one of them elsewhere");
}

/// The shards in one folder as a split of this name; none when there are none.
std::optional<SplitPlace> shards_inside(const std::string& folder, const std::string& split) {
    const Listing listing = list_folder(folder);
    Group group;
    for (const std::string& file : listing.files) {
        if (const auto name = parse_shard_name(file)) group.add(join(folder, file), *name);
        if (is_compressed(file)) refuse_compressed(join(folder, file));
    }
    if (group.paths.empty()) return {};
    const auto picture = std::find_if(listing.files.begin(), listing.files.end(), is_picture_name);
    if (!listing.folders.empty() || picture != listing.files.end())
        throw mixture(folder, group.paths.front(),
                      listing.folders.empty() ? join(folder, *picture) : join(folder, listing.folders.front()));
    return place_of(split, folder, std::move(group));
}

/// train first, then val, then by name.
bool goes_before(const SplitPlace& a, const SplitPlace& b) {
    const auto rank = [](const SplitPlace& place) { return place.name == "train" ? 0 : place.name == "val" ? 1 : 2; };
    return std::make_pair(rank(a), a.name) < std::make_pair(rank(b), b.name);
}

Layout layout_of_files(const std::string& root, const std::vector<std::string>& paths) {
    Group group;
    for (const std::string& path : paths) {
        const std::string file = fs::path(path).filename().string();
        if (is_compressed(file)) refuse_compressed(path);
        const auto name = parse_shard_name(file);
        if (!name)
            throw Error(Exit::data, cat(path, ": is neither a folder nor a shard by its name"),
                        "shards are named .tar, .tfrecord, .tfrecords, NAME-00000-of-00128 or data.mdb");
        group.add(path, *name);
    }
    group.of_shards = 0;  // the user chose
    return {{place_of("all", root, std::move(group))}, {}};
}

Layout layout_of_folder(const std::string& root) {
    const Listing top = list_folder(root);
    Layout layout;
    std::map<std::string, Group> groups;
    for (const std::string& file : top.files) {
        if (const auto name = parse_shard_name(file)) groups[name->split].add(join(root, file), *name);
        if (is_compressed(file)) refuse_compressed(join(root, file));
    }
    for (auto& [split, group] : groups)
        layout.splits.push_back(place_of(split, root, std::move(group)));
    for (const std::string& folder : top.folders) {
        if (folder == "masks") continue;
        const std::string path = join(root, folder);
        std::string split = folder == "validation" ? "val" : folder;
        if (strip_end(split, "_lmdb") && !fs::exists(join(path, "data.mdb"))) split = folder;
        const bool named = split == "train" || split == "val";
        std::optional<SplitPlace> shards;
        try {
            shards = shards_inside(path, split);
        } catch (const Error&) {
            if (named) throw;  // what else lies there may be anything
        }
        if (shards)
            layout.splits.push_back(std::move(*shards));
        else
            (folder == "train" || folder == "val" ? layout.splits : layout.candidates).push_back({folder, {}, {path}});
    }
    std::sort(layout.splits.begin(), layout.splits.end(), goes_before);
    for (size_t i = 1; i < layout.splits.size(); ++i)
        if (layout.splits[i - 1].name == layout.splits[i].name)
            throw Error(Exit::data,
                        cat(root, ": split ", layout.splits[i].name, " is there twice: ",
                            layout.splits[i - 1].paths.front(), " and ", layout.splits[i].paths.front()),
                        "move one of them elsewhere");
    return layout;
}

}  // namespace

const SplitPlace* Layout::find(const std::string& name) const {
    for (const SplitPlace& place : splits)
        if (place.name == name) return &place;
    return nullptr;
}

std::optional<ShardName> parse_shard_name(const std::string& file_name) {
    if (file_name == "data.mdb") return ShardName{ShardKind::lmdb, "", 0};
    std::string text = file_name;
    if (strip_end(text, ".tar")) return ShardName{ShardKind::tar, split_of_prefix(text), 0};
    const bool front = strip_end(text, ".tfrecord") || strip_end(text, ".tfrecords");
    const int64_t of_shards = strip_number_of(text);
    const bool behind = strip_end(text, ".tfrecord") || strip_end(text, ".tfrecords");
    if (!front && !behind && of_shards == 0) return {};
    return ShardName{ShardKind::tfrecord, split_of_prefix(text), of_shards};
}

std::vector<std::string> expand_braces(const std::string& pattern) {
    const size_t open = pattern.find('{');
    if (open == std::string::npos) return {pattern};
    const size_t close = pattern.find('}', open), dots = pattern.find("..", open);
    const auto refuse = [&](const char* reason) {
        return Error(Exit::usage, cat(pattern, ": ", reason), "write a range as 'x-{000000..000099}.tar'");
    };
    if (close == std::string::npos || dots == std::string::npos || dots > close)
        throw refuse("the braces hold no range");
    const std::string low = pattern.substr(open + 1, dots - open - 1),
                      high = pattern.substr(dots + 2, close - dots - 2);
    for (const std::string& number : {low, high})
        if (number.empty() || number.size() > 9 || number.find_first_not_of(digits) != std::string::npos)
            throw refuse("the braces hold no range of numbers");
    const std::vector<std::string> tails = expand_braces(pattern.substr(close + 1));
    const int64_t first = std::stoll(low), last = std::stoll(high);
    if (last < first) throw refuse("the range runs backward");
    if (static_cast<size_t>(last - first + 1) > most_names / tails.size())
        throw refuse("names more than a million files");
    std::vector<std::string> names;
    for (int64_t i = first; i <= last; ++i)
        for (const std::string& tail : tails)
            names.push_back(
                cat(pattern.substr(0, open), std::setfill('0'), std::setw(static_cast<int>(low.size())), i, tail));
    return names;
}

Layout find_layout(const std::string& root) {
    std::error_code unknown;
    if (!fs::exists(root, unknown) && root.find('{') != std::string::npos)
        return layout_of_files(root, expand_braces(root));
    if (fs::is_regular_file(root, unknown)) return layout_of_files(root, {root});
    Layout layout = layout_of_folder(root);
    if (layout.splits.empty()) {
        // Class folders, then.
        if (layout.candidates.empty())
            throw Error(Exit::data, cat(root, ": there are no pictures in folders here"),
                        cat("put them into ", join(root, "train/CLASS/"), " and ", join(root, "val/CLASS/")));
        return {{{"all", {}, {root}}}, {}};
    }
    if (layout.find("train") || layout.find("val")) return layout;
    if (layout.splits.size() > 1)
        throw Error(Exit::data,
                    cat(root, ": there are splits ", layout.splits[0].name, " and ", layout.splits[1].name,
                        " but none named train"),
                    "name the shards to train on train-000000.tar and so on, or give one shard or pattern as DATA");
    for (const SplitPlace& place : layout.candidates) {
        const std::vector<std::string> files = list_folder(place.paths.front()).files;
        if (std::any_of(files.begin(), files.end(), is_picture_name))
            throw mixture(root, layout.splits[0].paths.front(), place.paths.front());
    }
    layout.splits[0].name = "all";
    layout.candidates.clear();
    return layout;
}

}  // namespace rn50
