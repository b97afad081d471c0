#include "pipeline/pack.h"

#include <algorithm>
#include <deque>
#include <filesystem>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "base/files.h"
#include "base/interrupt.h"
#include "base/machine.h"
#include "pipeline/decode.h"
#include "pipeline/encode.h"
#include "pipeline/folder.h"
#include "pipeline/ordered_work.h"
#include "pipeline/pack_manifest.h"
#include "pipeline/patience.h"

namespace rn50 {

namespace fs = std::filesystem;

namespace {

/// What each picture of a source is called in the packed set: CLASS/FILE, safe and each once, a function of the source
/// alone. A name that comes again gets the picture's number.
class Names {
  public:
    explicit Names(const Source& source) : source_(source) {
        std::unordered_map<std::string, std::string> class_of_folder;
        for (const std::string& name : source.classes()) {
            require_one_line(name);
            std::string flat = name;
            std::replace(flat.begin(), flat.end(), '/', '_');
            folders_.push_back(safe_path(flat));
            const auto [other, is_new] = class_of_folder.emplace(folders_.back(), name);
            if (folders_.back().empty() || !is_new)
                throw Error(Exit::data,
                            cat("class \"", name, "\" cannot be the name of a folder",
                                is_new ? "" : cat(" beside class \"", other->second, "\"")),
                            "rename it, e.g. in classes.txt");
        }
        std::unordered_set<size_t> taken;
        for (int64_t i = 0; i < source.size(); ++i) {
            std::string name = plain(i);
            if (!taken.insert(std::hash<std::string>()(name)).second) {
                const size_t dot = name.rfind('.'), slash = name.rfind('/');
                name.insert(dot == std::string::npos || dot < slash ? name.size() : dot, cat("-", i));
                taken.insert(std::hash<std::string>()(name));
                again_[i] = name;
            }
            fingerprint_.add(name, source.label(i));
        }
    }
    std::string name(int64_t i) const {
        const auto found = again_.find(i);
        return found == again_.end() ? plain(i) : found->second;
    }
    uint32_t fingerprint() const { return fingerprint_.value(); }

  private:
    /// classes.txt holds a name a line, and so do the lists of other programs: none of them knows a way to write a line
    /// end within a name, and every class behind it would get the label of the one before.
    static void require_one_line(const std::string& name) {
        std::string shown;
        bool fits = true;
        for (const char c : name) {
            const bool is_control = static_cast<unsigned char>(c) < 32 || c == 127;
            fits = fits && !is_control;
            shown += is_control ? '?' : c;
        }
        if (!fits)
            throw Error(Exit::data,
                        cat("class \"", shown,
                            "\" has a control character (here a ?) in its name, which cannot be "
                            "written into a list of classes"),
                        "rename its folder, or the class where the shards name it");
    }
    std::string plain(int64_t i) const {
        const auto label = static_cast<size_t>(source_.label(i));
        std::string path = source_.path_inside(i);
        const std::string above = source_.classes()[label] + "/";
        if (path.compare(0, above.size(), above) == 0) path.erase(0, above.size());
        path = safe_path(path);
        return folders_[label] + "/" + (path.empty() ? "picture" : path);
    }
    const Source& source_;
    std::vector<std::string> folders_;  ///< by class
    std::unordered_map<int64_t, std::string> again_;
    Fingerprint fingerprint_;
};

/// A picture on its way from the source to the writer.
struct Item {
    std::vector<uint8_t> bytes;
    int64_t bytes_read = 0, height = 0, width = 0;
    const char* encoded_anew = nullptr;  ///< the extension of what it was encoded as
    bool made_lossy = false;             ///< it was not a JPEG, and is one now
    bool unmarked = false;               ///< a JPEG that could not be given restart markers
    std::string fault;                   ///< why it is left out
};

/// What one worker owns.
struct Hand {
    Decoder decoder;
    Picture picture, smaller, again;
    std::vector<uint8_t> marked;
};

bool is_jpeg(const std::vector<uint8_t>& bytes) {
    return bytes.size() > 2 && bytes[0] == 0xFF && bytes[1] == 0xD8 && bytes[2] == 0xFF;
}

/// Gives the item's JPEG restart markers. False: not without changing a pixel of hand.picture, so it stays as it is.
bool mark(const std::string& name, Hand& hand, Item& item) {
    try {
        add_restart_markers(item.bytes, hand.marked);
        hand.decoder.decode(hand.marked.data(), hand.marked.size(), name, DecodeLimits(), hand.again);
    } catch (const ReadError&) {  // memory does not do
        throw;
    } catch (const Error& error) {
        if (error.code() != Exit::data) throw;
        return false;
    }
    if (hand.again.height != hand.picture.height || hand.again.rgb != hand.picture.rgb) return false;
    item.bytes.swap(hand.marked);
    return true;
}

/// Writes `picture` to the item. `was_jpeg`: what it was.
void encode(const Picture& picture, const PackOptions& options, bool was_jpeg, Item& item) {
    if (options.encode == PackEncode::png) {
        encode_png(picture, item.bytes);
        item.encoded_anew = ".png";
    } else {
        encode_jpeg(picture, options.quality, item.bytes);
        item.encoded_anew = ".jpg";
        item.made_lossy = !was_jpeg;
    }
}

void prepare(const Source& source, int64_t i, const PackOptions& options, const ReadPatience& patience, Hand& hand,
             Item& item) {
    item.fault.clear();
    item.encoded_anew = nullptr;
    item.made_lossy = item.unmarked = false;
    const Picture* result = &hand.picture;
    const std::string name = source.name(i);
    try {
        with_patience(patience, [&] {
            source.read(i, item.bytes);
            item.bytes_read = static_cast<int64_t>(item.bytes.size());
            hand.decoder.decode(item.bytes.data(), item.bytes.size(), name, DecodeLimits(), hand.picture, options.bits);
        });
        const bool was_jpeg = is_jpeg(item.bytes);
        if (shrink(hand.picture, options.longest, options.shortest, hand.smaller)) result = &hand.smaller;
        if (result == &hand.smaller || options.encode == PackEncode::png ||
            (options.encode == PackEncode::jpeg && !was_jpeg))
            encode(*result, options, was_jpeg, item);
        else if (options.restart_markers && was_jpeg)
            item.unmarked = !mark(name, hand, item);
    } catch (const ReadError&) {
        throw;  // no fault of the picture
    } catch (const Error& error) {
        if (error.code() != Exit::data) throw;
        const std::string text = error.what();
        item.fault = text.compare(0, name.size() + 2, name + ": ") == 0 ? text.substr(name.size() + 2) : text;
    }
    item.height = result->height;
    item.width = result->width;
}

/// The name with an extension that a folder source knows and that fits what was encoded anew.
std::string with_extension(std::string name, const Item& item) {
    const ByteView picture{item.bytes.data(), item.bytes.size()};
    if (!is_picture_name(name)) return name + extension_of_picture(picture);
    const size_t dot = name.rfind('.');
    std::string end = name.substr(dot);
    std::transform(end.begin(), end.end(), end.begin(), [](unsigned char c) { return std::tolower(c); });
    const bool fits = !item.encoded_anew || end == item.encoded_anew || (end == ".jpeg" && item.encoded_anew[1] == 'j');
    return fits ? name : name + item.encoded_anew;
}

class Packing {
  public:
    Packing(const std::vector<NamedSource>& splits, const std::string& out, const PackOptions& options,
            const std::function<void(const PackState&)>& show)
        : splits_(splits), out_(out), options_(options), show_(show) {
        for (const NamedSource& split : splits) {
            names_.push_back(std::make_unique<Names>(*split.source));
            manifest_.splits.push_back(
                {split.name, split.source->size(), names_.back()->fingerprint(), 0, false, {}, {}});
            state_.total += split.source->size();
        }
        manifest_.format = name_of(options.format);
        manifest_.encode = name_of(options.encode);
        manifest_.longest = options.longest;
        manifest_.shortest = options.shortest;
        manifest_.quality = options.quality;
        manifest_.part_bytes = options.part_bytes;
        manifest_.restart_markers = options.restart_markers;
        manifest_.bits = options.bits;
    }

    PackSummary run() {
        go_on_or_begin();
        summary_.was_complete = manifest_.complete();
        for (size_t i = 0; i < splits_.size() && !summary_.stopped; ++i) {
            state_.split = splits_[i].name;
            try {
                if (!manifest_.splits[i].complete) pack_split(i);
            } catch (const Interrupted&) {
                summary_.stopped = true;
            }
        }
        write_bad({});
        for (const PackManifest::Split& split : manifest_.splits) {
            summary_.bad += static_cast<int64_t>(split.bad.size());
            summary_.shards += static_cast<int64_t>(split.parts.size());
            for (const WrittenPart& part : split.parts) {
                summary_.pictures += part.pictures;
                summary_.bytes += part.bytes;
            }
        }
        return summary_;
    }

  private:
    void go_on_or_begin() {
        PackManifest found;
        if (PackManifest::read(out_, found)) {
            found.require_same(manifest_, out_);
            manifest_ = std::move(found);
            for (const PackManifest::Split& split : manifest_.splits)
                state_.done += split.complete ? split.pictures : split.next;
            return;
        }
        make_folders(out_);
        const Listing listing = list_folder(out_);
        if (!listing.files.empty() || !listing.folders.empty())
            throw Error(Exit::data, cat(out_, ": is not empty, and what is in it was not packed by rn50"),
                        "name a new folder");
        if (options_.format != PackFormat::folder) {
            std::string classes;
            for (const std::string& name : splits_.front().source->classes())
                classes += name + "\n";
            write_file_atomic(join(out_, "classes.txt"), classes);
        }
        manifest_.write(out_);
    }

    void pack_split(size_t number) {
        const Source& source = *splits_[number].source;
        PackManifest::Split& split = manifest_.splits[number];
        WriterOptions writing{options_.format,
                              out_,
                              split.name,
                              options_.part_bytes,
                              0,
                              source.size(),
                              split.parts,
                              splits_.front().source->classes()};
        if (options_.format == PackFormat::lmdb)
            for (int64_t i = 0; i < source.size(); ++i)
                writing.expected_bytes += source.stored_bytes(i);
        const std::unique_ptr<SampleWriter> writer = make_writer(writing);
        const int workers = options_.workers > 0 ? options_.workers : cores_of_process().usable();
        std::vector<Hand> hands(static_cast<size_t>(workers));
        const ReadPatience patience{options_.read_patience_s};
        OrderedWork<Item> work(split.next, source.size(), workers, [&](int64_t i, int worker, Item& item) {
            prepare(source, i, options_, patience, hands[static_cast<size_t>(worker)], item);
        });
        std::vector<PackManifest::Bad> bad;  // found, their part is not finished yet
        std::deque<PartEnd> ends;            // of parts that are not finished yet
        for (int64_t i = split.next; i < source.size(); ++i) {
            stop_if_interrupted();
            const Item& item = next_of(work);
            if (!item.fault.empty()) {
                bad.push_back({source.name(i), item.fault});
                check_bad(bad);
            } else if (writer->add(sample_of(number, i, item))) {
                ends.push_back({i, bad.size()});
            }
            note_finished(split, *writer, ends, bad);
            if (item.unmarked) ++summary_.unmarked;
            if (item.made_lossy && item.fault.empty()) ++summary_.made_lossy;
            summary_.bytes_read += item.bytes_read;
            ++state_.done;
            ++state_.done_now;
            show_(state_);
        }
        writer->finish();
        split.complete = true;
        finish_part(split, writer->parts(), {source.size(), bad.size()}, bad);
    }

    /// Where a part ends: before picture `next`, and behind so many of the bad ones that are not in the manifest yet.
    struct PartEnd {
        int64_t next;
        size_t bad;
    };

    static const Item& next_of(OrderedWork<Item>& work) {
        try {
            return work.next();
        } catch (const ReadError& error) {
            throw Error(Exit::data, error.what(),
                        cat(error.remedy(), "; then the same command goes on behind the last finished part"));
        }
    }

    PackedSample sample_of(size_t number, int64_t i, const Item& item) const {
        const Source& source = *splits_[number].source;
        const int32_t label = source.label(i);
        return {{item.bytes.data(), item.bytes.size()},
                i,
                label,
                source.classes()[static_cast<size_t>(label)],
                with_extension(names_[number]->name(i), item),
                item.height,
                item.width};
    }

    void note_finished(PackManifest::Split& split, const SampleWriter& writer, std::deque<PartEnd>& ends,
                       std::vector<PackManifest::Bad>& bad) {
        while (writer.parts().size() > split.parts.size() && !ends.empty()) {
            const PartEnd end = ends.front();
            ends.pop_front();
            for (PartEnd& later : ends)
                later.bad -= end.bad;
            std::vector<WrittenPart> parts = split.parts;
            parts.push_back(writer.parts()[parts.size()]);
            finish_part(split, std::move(parts), end, bad);
        }
    }

    /// What comes before the part's end is on the disk: so says the manifest from now on.
    void finish_part(PackManifest::Split& split, std::vector<WrittenPart> parts, PartEnd end,
                     std::vector<PackManifest::Bad>& bad) {
        split.parts = std::move(parts);
        split.next = end.next;
        const auto behind = bad.begin() + static_cast<std::ptrdiff_t>(end.bad);
        split.bad.insert(split.bad.end(), bad.begin(), behind);
        bad.erase(bad.begin(), behind);
        manifest_.write(out_);
    }

    /// `pending`: those whose part is not finished yet.
    void check_bad(const std::vector<PackManifest::Bad>& pending) const {
        auto count = static_cast<int64_t>(pending.size());
        for (const PackManifest::Split& split : manifest_.splits)
            count += static_cast<int64_t>(split.bad.size());
        if (static_cast<double>(count) <= options_.max_bad * static_cast<double>(state_.total) + 1e-6) return;
        write_bad(pending);
        throw Error(Exit::data,
                    cat(count, " of ", state_.total, " pictures cannot be used, more than the ", options_.max_bad * 100,
                        "% that are allowed, e.g. ", pending.back().name, ": ", pending.back().reason),
                    cat("see ", join(out_, "bad.txt"), "; mend or remove them, or allow more, e.g. --max-bad 0.1"));
    }

    void write_bad(const std::vector<PackManifest::Bad>& pending) const {
        std::string text;
        const auto put = [&](const PackManifest::Bad& picture) {
            text += cat(picture.name, "\t", picture.reason, "\n");
        };
        for (const PackManifest::Split& split : manifest_.splits)
            std::for_each(split.bad.begin(), split.bad.end(), put);
        std::for_each(pending.begin(), pending.end(), put);
        if (!text.empty()) write_file_atomic(join(out_, "bad.txt"), text);
    }

    const std::vector<NamedSource>& splits_;
    const std::string& out_;
    const PackOptions& options_;
    const std::function<void(const PackState&)>& show_;
    std::vector<std::unique_ptr<Names>> names_;  ///< by split
    PackManifest manifest_;
    PackState state_;
    PackSummary summary_;
};

}  // namespace

PackSummary pack(const std::vector<NamedSource>& splits, const std::string& out, const PackOptions& options,
                 const std::function<void(const PackState&)>& show) {
    RN50_REQUIRE(!splits.empty() && options.part_bytes > 0 && (options.longest == 0 || options.shortest == 0),
                 splits.size(), " splits");
    return Packing(splits, out, options, show).run();
}

bool pack_is_unfinished(const std::string& folder) {
    try {
        PackManifest manifest;
        return PackManifest::read(folder, manifest) && !manifest.complete();
    } catch (const Error&) {  // a file of somebody else
        return false;
    }
}

const char* name_of(PackFormat format) {
    const char* const names[] = {"folder", "webdataset", "tfrecord", "lmdb"};
    return names[static_cast<size_t>(format)];
}

const char* name_of(PackEncode encode) {
    const char* const names[] = {"keep", "jpeg", "png"};
    return names[static_cast<size_t>(encode)];
}

PackEncode pack_encode_from(const std::string& name) {
    for (const PackEncode encode : {PackEncode::keep, PackEncode::jpeg, PackEncode::png})
        if (name == name_of(encode)) return encode;
    throw Error(Exit::usage, cat("--encode ", name, " is not known"), "keep|jpeg|png");
}

PackFormat pack_format_from(const std::string& name) {
    for (const PackFormat format : {PackFormat::folder, PackFormat::webdataset, PackFormat::tfrecord, PackFormat::lmdb})
        if (name == name_of(format)) return format;
    throw Error(Exit::usage, cat("--format ", name, " is not known"), "folder|webdataset|tfrecord|lmdb");
}

}  // namespace rn50
