// rn50 inspect: what a data set holds.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/machine.h"
#include "cli/commands.h"
#include "cli/picture_options.h"
#include "cli/training_setup.h"
#include "pipeline/decode.h"
#include "pipeline/ordered_work.h"
#include "pipeline/patience.h"
#include "report/table.h"

namespace rn50 {

namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t names_shown = 3;
constexpr size_t bad_shown = 10;

struct Inspection {
    std::string split;
    const Source* source;
    int64_t bytes = 0, smallest = 0, median = 0, largest = 0;  ///< stored, of the pictures
    std::vector<int64_t> by_class;
    int64_t verified = 0, bad = 0;
    std::vector<std::string> bad_ones;  ///< the first few: "NAME: reason"
};

Inspection inspect(const NamedSource& split) {
    Inspection found{split.name, split.source.get(), 0, 0, 0, 0, {}, 0, 0, {}};
    const Source& source = *split.source;
    found.by_class.resize(source.classes().size());
    std::vector<int64_t> sizes(static_cast<size_t>(source.size()));
    for (int64_t i = 0; i < source.size(); ++i) {
        sizes[static_cast<size_t>(i)] = source.stored_bytes(i);
        found.bytes += sizes[static_cast<size_t>(i)];
        ++found.by_class[static_cast<size_t>(source.label(i))];
    }
    if (sizes.empty()) return found;
    const auto middle = sizes.begin() + static_cast<std::ptrdiff_t>(sizes.size() / 2);
    std::nth_element(sizes.begin(), middle, sizes.end());
    found.median = *middle;
    const auto [least, most] = std::minmax_element(sizes.begin(), sizes.end());
    found.smallest = *least;
    found.largest = *most;
    return found;
}

/// Reads and decodes every picture. False: stopped by a signal.
bool verify(Inspection& found, int wanted_workers) {
    struct Hand {
        std::vector<uint8_t> bytes;
        Decoder decoder;
        Picture picture;
    };
    const Source& source = *found.source;
    const int workers = wanted_workers > 0 ? wanted_workers : cores_of_process().usable();
    std::vector<Hand> hands(static_cast<size_t>(workers));
    const ReadPatience patience{30, false};
    OrderedWork<std::string> work(0, source.size(), workers, [&](int64_t i, int worker, std::string& fault) {
        Hand& hand = hands[static_cast<size_t>(worker)];
        fault.clear();
        try {
            with_patience(patience, [&] {
                source.read(i, hand.bytes);
                hand.decoder.decode(hand.bytes.data(), hand.bytes.size(), source.name(i), DecodeLimits(), hand.picture);
            });
        } catch (const Error& error) {
            // A disk or a network that fails tells nothing about the pictures.
            const auto* const unread = dynamic_cast<const ReadError*>(&error);
            if (error.code() != Exit::data || (unread != nullptr && !unread->gone())) throw;
            fault = error.what();
        }
    });
    for (int64_t i = 0; i < source.size(); ++i) {
        if (interrupt_requested() != 0) return false;
        const std::string& fault = work.next();
        ++found.verified;
        if (!fault.empty()) {
            ++found.bad;
            if (found.bad_ones.size() < bad_shown) found.bad_ones.push_back(fault);
        }
        if (i % 100 == 0) log::progress(cat(found.split, "  ", i, "/", source.size(), " pictures verified"));
    }
    log::progress_done();
    return true;
}

/// One picture, as far as it can be read.
Json describe_sample(const Source& source, int64_t i) {
    if (i >= source.size()) return {{"index", i}, {"error", cat("there are only ", source.size(), " pictures")}};
    Json json{{"index", i},
              {"name", source.name(i)},
              {"path", source.path_inside(i)},
              {"label", source.label(i)},
              {"class", source.classes()[static_cast<size_t>(source.label(i))]},
              {"stored_bytes", source.stored_bytes(i)}};
    try {
        std::vector<uint8_t> bytes;
        source.read(i, bytes);
        json["bytes"] = bytes.size();
        const Picture picture = decode(bytes.data(), bytes.size(), source.name(i));
        json["width"] = picture.width;
        json["height"] = picture.height;
    } catch (const Error& error) {
        json["error"] = error.what();
    }
    return json;
}

Json to_json(const Inspection& found, const Options& options) {
    const Source& source = *found.source;
    Json classes = Json::object(), names = Json::array();
    for (size_t c = 0; c < found.by_class.size(); ++c)
        classes[source.classes()[c]] = found.by_class[c];
    for (int64_t i = 0; i < std::min(names_shown, source.size()); ++i)
        names.push_back(source.name(i));
    Json json{{"split", found.split},         {"format", source.format()},      {"shards", source.shards().size()},
              {"pictures", source.size()},    {"bytes", found.bytes},           {"bytes_smallest", found.smallest},
              {"bytes_median", found.median}, {"bytes_largest", found.largest}, {"classes", std::move(classes)},
              {"first", std::move(names)}};
    if (options.sample >= 0) json["sample"] = describe_sample(source, options.sample);
    if (options.verify) {
        json["verified"] = found.verified;
        json["bad"] = found.bad;
        json["bad_first"] = found.bad_ones;
    }
    return json;
}

std::string dump(const Json& json, int indent) {
    return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

void print_tables(const std::vector<Inspection>& splits, const Options& options) {
    report::Table table({"split", "format", ">shards", ">pictures", ">bytes", ">smallest", ">median", ">largest"});
    for (const Inspection& found : splits) {
        const size_t shards = found.source->shards().size();
        table.row({found.split, found.source->format(), shards ? report::grouped(static_cast<int64_t>(shards)) : "-",
                   report::grouped(found.source->size()), show_bytes(found.bytes), report::grouped(found.smallest),
                   report::grouped(found.median), report::grouped(found.largest)});
    }
    std::fputs(table.str().c_str(), stdout);

    std::vector<std::string> head{">label", "class"};
    for (const Inspection& found : splits)
        head.push_back(">" + found.split);
    report::Table classes(head);
    const std::vector<std::string>& names = splits.front().source->classes();
    for (size_t c = 0; c < names.size(); ++c) {
        std::vector<std::string> row{std::to_string(c), names[c]};
        for (const Inspection& found : splits)
            row.push_back(report::grouped(found.by_class[c]));
        classes.row(row);
    }
    std::printf("\n%s\n", classes.str().c_str());
    for (const Inspection& found : splits) {
        for (int64_t i = 0; i < std::min(names_shown, found.source->size()); ++i)
            std::printf("  %s %lld: %s\n", found.split.c_str(), static_cast<long long>(i),
                        report::shown(found.source->name(i)).c_str());
        if (options.sample >= 0) std::printf("%s\n", dump(describe_sample(*found.source, options.sample), 2).c_str());
        if (!options.verify) continue;
        std::printf("  %s: %s pictures read and decoded, %s bad\n", found.split.c_str(),
                    report::grouped(found.verified).c_str(), report::grouped(found.bad).c_str());
        for (const std::string& one : found.bad_ones)
            std::printf("    %s\n", report::shown(one).c_str());
    }
}

}  // namespace

int run_inspect(const Options& options) {
    catch_interrupts();
    std::vector<std::string> warnings;
    const std::vector<NamedSource> splits = open_splits(options.data, data_options(options), warnings);
    for (const std::string& warning : warnings)
        log::warn(warning);
    std::vector<Inspection> found;
    bool any_bad = false;
    for (const NamedSource& split : splits) {
        found.push_back(inspect(split));
        if (options.verify && !verify(found.back(), static_cast<int>(options.workers)))
            return exit_code_of_signal(interrupt_requested());
        any_bad = any_bad || found.back().bad > 0;
    }
    if (options.json) {
        Json all = Json::array();
        for (const Inspection& one : found)
            all.push_back(to_json(one, options));
        std::puts(dump({{"data", options.data}, {"splits", std::move(all)}}, -1).c_str());
    } else {
        print_tables(found, options);
    }
    return static_cast<int>(any_bad ? Exit::data : Exit::ok);
}

}  // namespace rn50
