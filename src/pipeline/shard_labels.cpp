// From the labels that shards hold, numbers or names, to indices of classes.
#include <algorithm>
#include <map>
#include <sstream>

#include "base/error.h"
#include "pipeline/shard_source.h"

namespace rn50 {

namespace {

constexpr int64_t most_classes = 1'000'000;

std::vector<std::string> read_classes(const std::string& path) {
    std::vector<std::string> classes;
    std::map<std::string, size_t> lines;
    std::istringstream in(read_file(path));
    for (std::string line; std::getline(in, line);) {
        if (!line.empty() && line.back() == '\r') line.pop_back();
        classes.push_back(line);
    }
    while (!classes.empty() && classes.back().empty())
        classes.pop_back();
    if (classes.empty())
        throw Error(Exit::data, cat(path, ": is empty"), "write one class name a line, the first for label 0");
    for (size_t i = 0; i < classes.size(); ++i) {
        const auto [first, is_new] = lines.emplace(classes[i], i + 1);
        if (classes[i].empty() || !is_new)
            throw Error(Exit::data,
                        cat(path, ":", i + 1, ": ",
                            classes[i].empty() ? "an empty line"
                                               : cat("class ", classes[i], " stands in line ", first->second, " too")),
                        "write one class name a line, each once");
    }
    return classes;
}

/// What the samples of a set say about their classes.
struct Survey {
    bool any_number = false, all_numbers = true, all_known = true;
    int64_t lowest = INT64_MAX, highest = INT64_MIN;
    // Names of samples.
    std::string first_without_number, first_number_alone, with_lowest, with_highest;

    explicit Survey(const ShardSet& set) {
        for (size_t shard = 0; shard < set.indices.size(); ++shard) {
            const ShardIndex& index = set.indices[shard];
            for (int64_t i = 0; i < index.size(); ++i) {
                const ShardIndex::Entry& entry = index.entry(i);
                const auto name = [&] { return cat(set.paths[shard], "/", index.key(i)); };
                if (entry.label == ShardIndex::no_label) {
                    if (all_numbers) first_without_number = name();
                    all_numbers = false;
                    continue;
                }
                any_number = true;
                if (entry.class_name < 0 && all_known) {
                    first_number_alone = name();
                    all_known = false;
                }
                if (entry.label < lowest) with_lowest = name();
                if (entry.label > highest) with_highest = name();
                lowest = std::min(lowest, entry.label);
                highest = std::max(highest, entry.label);
            }
        }
    }
};

std::vector<std::string> sorted_names(const ShardSet& set) {
    std::vector<std::string> names;
    for (const ShardIndex& index : set.indices)
        names.insert(names.end(), index.class_names().begin(), index.class_names().end());
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    return names;
}

/// The name of each number from 0 to highest - offset, where samples say one.
std::vector<std::string> names_of_numbers(const ShardSet& set, int64_t count, int64_t offset,
                                          std::vector<std::string>& warnings) {
    std::vector<std::string> names(static_cast<size_t>(count));
    std::string contradiction;
    for (const ShardIndex& index : set.indices) {
        for (int64_t i = 0; i < index.size(); ++i) {
            const ShardIndex::Entry& entry = index.entry(i);
            if (entry.class_name < 0) continue;
            const std::string& said = index.class_names()[static_cast<size_t>(entry.class_name)];
            std::string& name = names[static_cast<size_t>(entry.label - offset)];
            if (name.empty()) name = said;
            if (name != said && contradiction.empty())
                contradiction = cat("label ", entry.label, " is called ", name, " and ", said, ": the first counts");
        }
    }
    if (!contradiction.empty()) warnings.push_back(contradiction);
    // Two classes of ImageNet are called crane: a name must tell its class.
    std::map<std::string, int64_t> first_of_name;
    for (int64_t k = 0; k < count; ++k) {
        std::string& name = names[static_cast<size_t>(k)];
        if (name.empty()) name = std::to_string(k);
        if (!first_of_name.emplace(name, k).second) name += cat(" (", k, ")");
    }
    return names;
}

/// Turns one label after the other into an index.
class Resolver {
  public:
    Resolver(const ShardSet& set, const std::vector<std::string>& classes, int64_t offset)
        : set_(set), classes_(classes), offset_(offset) {
        for (size_t i = 0; i < classes.size(); ++i)
            by_name_[classes[i]] = static_cast<int32_t>(i);
        if (set.classes_file.empty()) return;
        listed_ = read_classes(set.classes_file);
        for (const std::string& name : listed_) {
            const auto found = by_name_.find(name);
            to_class_.push_back(found == by_name_.end() ? -1 : found->second);
        }
    }

    int32_t resolve(size_t shard, int64_t i) {
        const ShardIndex& index = set_.indices[shard];
        const ShardIndex::Entry& entry = index.entry(i);
        const std::string* const said =
            entry.class_name < 0 ? nullptr : &index.class_names()[static_cast<size_t>(entry.class_name)];
        if (entry.label == ShardIndex::no_label) return named(*said, shard, i);
        if (entry.label < offset_ || entry.label - offset_ >= limit()) throw out_of_range(shard, i);
        const auto k = static_cast<size_t>(entry.label - offset_);
        if (!listed_.empty()) return to_class_[k] >= 0 ? to_class_[k] : named(listed_[k], shard, i);
        // A number counts as it is, unless the name beside it is that of another class.
        if (said == nullptr || classes_[k] == *said || classes_[k] == cat(*said, " (", k, ")"))
            return static_cast<int32_t>(k);
        const auto found = by_name_.find(*said);
        return found == by_name_.end() ? static_cast<int32_t>(k) : found->second;
    }

  private:
    int64_t limit() const { return static_cast<int64_t>(listed_.empty() ? classes_.size() : listed_.size()); }
    std::string name_of_sample(size_t shard, int64_t i) const {
        return cat(set_.paths[shard], "/", set_.indices[shard].key(i));
    }

    int32_t named(const std::string& name, size_t shard, int64_t i) const {
        const auto found = by_name_.find(name);
        if (found != by_name_.end()) return found->second;
        throw Error(Exit::data,
                    cat(name_of_sample(shard, i), ": class ", name, " is not among the ", classes_.size(),
                        set_.classes_file.empty() ? " classes of training" : " classes"),
                    "give training pictures of it, or leave its pictures out");
    }

    Error out_of_range(size_t shard, int64_t i) const {
        const Survey survey(set_);
        const int64_t lowest = offset_, highest = offset_ + limit() - 1;
        std::string remedy = "correct the labels or classes.txt";
        if (offset_ == 0 && survey.lowest >= 1 && survey.highest == limit())
            remedy = "labels that begin with 1 need --label-offset 1";
        if (offset_ == 1 && survey.lowest == 0) remedy = "labels that begin with 0 need no --label-offset";
        return Error(Exit::data,
                     cat(name_of_sample(shard, i), ": label ", set_.indices[shard].entry(i).label,
                         " lies outside of the ", limit(), " classes (", lowest, " to ", highest, ")"),
                     remedy);
    }

    const ShardSet& set_;
    const std::vector<std::string>& classes_;
    const int64_t offset_;
    std::map<std::string, int32_t> by_name_;
    std::vector<std::string> listed_;  ///< the lines of classes.txt
    std::vector<int32_t> to_class_;    ///< of each line
};

}  // namespace

std::vector<std::string> classes_of(const ShardSet& set, int64_t label_offset, std::vector<std::string>& warnings) {
    if (!set.classes_file.empty()) return read_classes(set.classes_file);
    const Survey survey(set);
    if (!survey.all_numbers) {
        if (!survey.all_known)
            throw Error(Exit::data,
                        cat("some samples have a number for a class (", survey.first_number_alone,
                            ") and some a name (", survey.first_without_number, ")"),
                        "write the names into a classes.txt beside the shards: line by line those of label 0, 1, ...");
        return sorted_names(set);
    }
    if (!survey.any_number) return {};
    const std::string where = set.paths.front();
    if (survey.lowest < label_offset || survey.highest - label_offset >= most_classes)
        throw Error(Exit::data,
                    cat(survey.lowest < label_offset ? survey.with_lowest : survey.with_highest, ": labels run from ",
                        survey.lowest, " to ", survey.highest, ", which are no classes",
                        label_offset ? " with --label-offset 1" : ""),
                    "labels are whole numbers from 0 on (from 1 on with --label-offset 1)");
    if (label_offset == 0 && survey.lowest == 1)
        warnings.push_back(cat(where, ": no picture has label 0; labels run from 1 to ", survey.highest,
                               " (if they begin with 1, give --label-offset 1)"));
    return names_of_numbers(set, survey.highest - label_offset + 1, label_offset, warnings);
}

std::unique_ptr<Source> make_shard_source(ShardSet set, const std::vector<std::string>& classes, int64_t label_offset,
                                          bool needs_all_classes, std::vector<std::string>& warnings) {
    const std::string where =
        set.paths.size() == 1 ? set.paths[0] : cat(set.paths.front(), " and ", set.paths.size() - 1, " more");
    int64_t pictures = 0;
    std::map<std::string, ShardIndex::LeftOut> left_out;
    for (size_t shard = 0; shard < set.indices.size(); ++shard) {
        pictures += set.indices[shard].size();
        for (const auto& [reason, left] : set.indices[shard].left_out()) {
            ShardIndex::LeftOut& sum = left_out[reason];
            if (sum.count == 0) sum.example = cat(set.paths[shard], "/", left.example);
            sum.count += left.count;
        }
    }
    std::string reasons;
    for (const auto& [reason, left] : left_out)
        reasons += cat(reasons.empty() ? "" : "; ", left.count, left.count == 1 ? " sample is" : " samples are",
                       " left out: ", reason, ", e.g. ", left.example);
    if (pictures == 0)
        throw Error(Exit::data,
                    cat(where, ": there is no picture that can be used", reasons.empty() ? "" : ": ", reasons),
                    "a sample needs a picture and a class");
    if (!reasons.empty()) warnings.push_back(reasons);

    std::vector<std::vector<int32_t>> labels(set.indices.size());
    Resolver resolver(set, classes, label_offset);
    std::vector<char> seen(classes.size(), 0);
    for (size_t shard = 0; shard < set.indices.size(); ++shard) {
        labels[shard].resize(static_cast<size_t>(set.indices[shard].size()));
        for (size_t i = 0; i < labels[shard].size(); ++i) {
            labels[shard][i] = resolver.resolve(shard, static_cast<int64_t>(i));
            seen[static_cast<size_t>(labels[shard][i])] = 1;
        }
    }
    std::string missing;
    int64_t unseen = 0;
    for (size_t c = 0; c < classes.size(); ++c) {
        if (seen[c]) continue;
        if (++unseen <= 5) missing += (unseen > 1 ? ", " : "") + classes[c];
    }
    if (unseen > 0 && needs_all_classes)
        warnings.push_back(cat(where, " has no picture of ", unseen == 1 ? "class " : "classes ", missing,
                               unseen > 5 ? cat(", ... (", unseen, ")") : ""));
    return make_indexed_source(std::move(set), std::move(labels), classes);
}

}  // namespace rn50
