// A data set opened, for training, for an evaluation, or as it is.
#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/random.h"
#include "pipeline/folder.h"
#include "pipeline/layout.h"
#include "pipeline/pack.h"
#include "pipeline/shard_source.h"

namespace rn50 {

namespace fs = std::filesystem;

namespace {

/// classes.txt beside the shards, or, where they have a folder of their own, in the one above.
std::string classes_file_of(const SplitPlace& place) {
    const fs::path beside = fs::absolute(place.paths.front()).parent_path();
    std::error_code unknown;
    for (const fs::path& folder : {beside, beside.parent_path()})
        if (fs::is_regular_file(folder / "classes.txt", unknown)) return (folder / "classes.txt").string();
    return {};
}

/// `known`: the classes to which labels refer; null: the place's own.
std::unique_ptr<Source> open_place(const SplitPlace& place, const std::vector<std::string>* known,
                                   const DataOptions& options, bool needs_all_classes,
                                   std::vector<std::string>& warnings) {
    if (!place.kind) return make_folder_source(place.paths.front(), known, &warnings);
    ShardSet set;
    set.kind = *place.kind;
    set.paths = place.paths;
    set.indices = load_indices(place.paths, *place.kind);
    set.classes_file = classes_file_of(place);
    const std::vector<std::string> classes = known ? *known : classes_of(set, options.label_offset, warnings);
    return make_shard_source(std::move(set), classes, options.label_offset, needs_all_classes, warnings);
}

/// Splits beside train and val.
std::vector<NamedSource> open_extras(const Layout& layout, const std::vector<std::string>& classes,
                                     const DataOptions& options, std::vector<std::string>& warnings) {
    std::vector<NamedSource> extras;
    for (const SplitPlace& place : layout.splits) {
        if (place.name == "train" || place.name == "val") continue;
        try {
            extras.push_back({place.name, open_place(place, &classes, options, false, warnings)});
        } catch (const Error& error) {  // nobody asked for it by name
            warnings.push_back(cat("split ", place.name, " is not used: ", error.what()));
        }
    }
    for (const SplitPlace& place : layout.candidates)
        if (auto source = open_extra_folder(place.paths.front(), classes, warnings))
            extras.push_back({place.name, std::move(source)});
    std::sort(extras.begin(), extras.end(), [](const NamedSource& a, const NamedSource& b) { return a.name < b.name; });
    return extras;
}

/// Draws `share` of each class's pictures for val; order is kept in both parts.
void draw_val(const Source& source, double share, uint64_t seed, std::vector<int64_t>& train, std::vector<int64_t>& val,
              std::vector<std::string>& warnings) {
    std::vector<std::vector<int64_t>> by_class(source.classes().size());
    for (int64_t i = 0; i < source.size(); ++i)
        by_class[static_cast<size_t>(source.label(i))].push_back(i);
    std::vector<char> in_val(static_cast<size_t>(source.size()), 0);
    for (size_t c = 0; c < by_class.size(); ++c) {
        std::vector<int64_t>& members = by_class[c];
        if (members.empty()) continue;
        if (members.size() == 1) {
            warnings.push_back(
                cat("class ", source.classes()[c], " has a single picture: it is trained on, val has none of it"));
            continue;
        }
        Random random(seed, 0, c, Purpose::split);
        for (size_t i = members.size() - 1; i > 0; --i)
            std::swap(members[i], members[random.below(i + 1)]);
        const auto wanted = static_cast<size_t>(static_cast<double>(members.size()) * share + 0.5);
        const size_t n = std::clamp<size_t>(wanted, 1, members.size() - 1);
        for (size_t i = 0; i < n; ++i)
            in_val[static_cast<size_t>(members[i])] = 1;
    }
    for (int64_t i = 0; i < source.size(); ++i)
        (in_val[static_cast<size_t>(i)] ? val : train).push_back(i);
}

void draw_splits(std::shared_ptr<const Source> whole, const std::string& where, const DataOptions& options,
                 DataSplits& data) {
    std::vector<int64_t> train, val;
    draw_val(*whole, options.val_split, options.seed, train, val, data.warnings);
    if (val.empty())
        throw Error(Exit::data, cat(where, ": each class has a single picture: none is left to measure on"));
    data.train = make_subset_source(whole, std::move(train));
    data.val = make_subset_source(whole, std::move(val));
}

void check_share(double val_split) {
    if (!(val_split >= 0 && val_split < 1))
        throw Error(Exit::usage, cat("--val-split ", val_split, " is not a share"),
                    "give a number from 0 to below 1, e.g. 0.2");
}

/// What a data set consists of; not one that is half there.
Layout layout_of(const std::string& root) {
    if (pack_is_unfinished(root))
        throw Error(Exit::data, cat(root, ": packing it was not finished"),
                    "give the same rn50 pack command again: it goes on where it was");
    return find_layout(root);
}

Error no_val(const std::string& root, const SplitPlace& train) {
    if (train.kind)
        return Error(
            Exit::data, cat(root, ": there is no split val to measure on"),
            "add shards named val-000000.tar and so on, or give --val-split 0.2 to keep a fifth of the training "
            "pictures for it");
    return Error(Exit::data, cat(root, ": there is no folder named val to measure on"),
                 cat("put pictures into ", join(root, "val/CLASS/"),
                     train.name == "train" ? "" : " and those of training into train/CLASS/",
                     ", or give --val-split 0.2 to keep a fifth of the training pictures for it"));
}

/// The split train, or all there is.
const SplitPlace& train_of(const Layout& layout, const std::string& root) {
    const SplitPlace& first = layout.splits.front();
    if (&first == layout.find("val"))
        throw Error(Exit::data, cat(root, ": there is a split val but none named train"),
                    cat("put the training pictures into ", join(root, "train/CLASS/")));
    return first;
}

}  // namespace

DataSplits open_data(const std::string& root, const DataOptions& options) {
    check_share(options.val_split);
    const Layout layout = layout_of(root);
    const SplitPlace& train = train_of(layout, root);
    const SplitPlace* const val = layout.find("val");
    if (!val && options.val_split == 0) throw no_val(root, train);
    DataSplits data;
    std::unique_ptr<Source> source = open_place(train, nullptr, options, true, data.warnings);
    data.classes = source->classes();
    if (data.classes.size() == 1)
        throw Error(
            Exit::data,
            cat(train.paths.front(), ": there is a single class (", data.classes[0], "): nothing to tell apart"),
            "put the pictures of each class into a folder of their own");
    if (val) {
        data.train = std::move(source);
        if (options.val_split > 0)
            data.warnings.push_back(cat("--val-split is not used: ", val->paths.front(), " exists"));
        data.val = open_place(*val, &data.classes, options, true, data.warnings);
    } else {
        draw_splits(std::move(source), train.paths.front(), options, data);
    }
    if (train.name == "train")
        for (NamedSource& extra : open_extras(layout, data.classes, options, data.warnings))
            data.extra.emplace_back(extra.name, std::move(extra.source));
    return data;
}

bool lacks_indices(const std::string& root) {
    try {
        const Layout layout = layout_of(root);
        return std::any_of(layout.splits.begin(), layout.splits.end(), [](const SplitPlace& place) {
            return place.kind && lacks_an_index(place.paths, *place.kind);
        });
    } catch (const Error&) {
        return false;
    }
}

std::unique_ptr<Source> open_training(const std::string& root, const DataOptions& options,
                                      std::vector<std::string>& warnings) {
    check_share(options.val_split);
    const Layout layout = layout_of(root);
    if (options.val_split == 0 || layout.find("val"))
        return open_place(train_of(layout, root), nullptr, options, true, warnings);
    DataSplits drawn = open_data(root, options);
    warnings.insert(warnings.end(), drawn.warnings.begin(), drawn.warnings.end());
    return std::move(drawn.train);
}

std::vector<NamedSource> open_evaluation(const std::string& root, const DataOptions& options,
                                         const std::vector<std::string>& classes, std::vector<std::string>& warnings) {
    const Layout layout = layout_of(root);
    std::vector<NamedSource> splits;
    if (const SplitPlace* const val = layout.find("val")) {
        splits.push_back({"val", open_place(*val, &classes, options, true, warnings)});
        for (NamedSource& extra : open_extras(layout, classes, options, warnings))
            splits.push_back(std::move(extra));
        return splits;
    }
    if (options.val_split == 0) {
        const SplitPlace& all = layout.splits.front();
        splits.push_back({all.name, open_place(all, &classes, options, true, warnings)});
        return splits;
    }
    DataSplits drawn = open_data(root, options);
    if (drawn.classes != classes)
        throw Error(Exit::data, cat(root, " holds other classes than the checkpoint knows"),
                    "choose the data that it was trained on");
    warnings.insert(warnings.end(), drawn.warnings.begin(), drawn.warnings.end());
    splits.push_back({"val", std::move(drawn.val)});
    return splits;
}

std::vector<NamedSource> open_splits(const std::string& root, const DataOptions& options,
                                     std::vector<std::string>& warnings) {
    const Layout layout = layout_of(root);
    std::vector<NamedSource> splits;
    splits.push_back({layout.splits.front().name, open_place(layout.splits.front(), nullptr, options, true, warnings)});
    const std::vector<std::string> classes = splits.front().source->classes();
    if (splits.front().name != "train") return splits;
    if (const SplitPlace* const val = layout.find("val"))
        splits.push_back({"val", open_place(*val, &classes, options, true, warnings)});
    for (NamedSource& extra : open_extras(layout, classes, options, warnings))
        splits.push_back(std::move(extra));
    return splits;
}

}  // namespace rn50
