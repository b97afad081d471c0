// The samples of a WebDataset shard: members of one key put together.
#include <algorithm>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/math.h"
#include "pipeline/source.h"
#include "pipeline/tar.h"

namespace rn50 {

namespace {

constexpr int64_t max_text = 1 << 20;  ///< of a label, a JSON text, a pax header or a long name

/// Small reads that lie close together: headers, labels and padding.
class Window {
  public:
    explicit Window(const RandomBytes& bytes) : bytes_(bytes) {}
    /// `n` bytes at `offset`, n <= max_text, valid until the next call; null: the file ends before.
    const uint8_t* get(int64_t offset, int64_t n) {
        if (offset < begin_ || offset + n > begin_ + filled_) {
            if (offset > bytes_.size - n) return nullptr;
            buffer_.resize(static_cast<size_t>(std::max(n, ahead)));
            begin_ = offset;
            filled_ = bytes_.read(offset, buffer_.data(), static_cast<int64_t>(buffer_.size()));
            if (filled_ < n) return nullptr;
        }
        return buffer_.data() + (offset - begin_);
    }

  private:
    static constexpr int64_t ahead = 4096;
    const RandomBytes& bytes_;
    std::vector<uint8_t> buffer_;
    int64_t begin_ = 0, filled_ = 0;
};

/// Where the class of a sample stands.
struct Label {
    int64_t number = ShardIndex::no_label;
    std::string name;
    bool empty() const { return number == ShardIndex::no_label && name.empty(); }
};

/// A text that is a whole number, or any other as a name.
void set_label(Label& label, std::string text) {
    const char* const blanks = " \t\r\n";
    text.erase(0, std::min(text.find_first_not_of(blanks), text.size()));
    text.erase(text.find_last_not_of(blanks) + 1);
    int64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error == std::errc() && end == text.data() + text.size() && number != ShardIndex::no_label)
        label.number = number;
    else
        label.name = text;
}

void set_label(Label& label, const nlohmann::json& value) {
    if (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX) return;
    if (value.is_number_integer()) label.number = value.get<int64_t>();
    if (value.is_string()) set_label(label, value.get<std::string>());
}

class Gatherer {
  public:
    Gatherer(const RandomBytes& bytes, const std::string& name) : window_(bytes), bytes_(bytes), name_(name) {}

    ShardIndex run() {
        int64_t at = 0;
        int zeros = 0;
        while (zeros < 2 && at < bytes_.size) {
            const uint8_t* const block = window_.get(at, tar_block);
            if (!block) throw cut_short(at);
            TarHeader header;
            switch (parse_tar_header(block, header)) {
                case TarBlock::zero:
                    ++zeros;
                    at += tar_block;
                    continue;
                case TarBlock::damaged:
                    throw Error(Exit::data,
                                at == 0 ? cat(name_, ": is not a tar archive")
                                        : cat(name_, ": the tar header at byte ", at, " is damaged"),
                                "copy or make the shard again (tar -tf lists what can still be read)");
                case TarBlock::header:
                    break;
            }
            zeros = 0;
            at = member(at + tar_block, header);
        }
        finish_sample();
        // Shards that a copy cut off at the border of two members look whole but for this.
        if (zeros == 0 && bytes_.size > 0) index_.leave_out("the end mark of the archive is missing", name_);
        return std::move(index_);
    }

  private:
    Error cut_short(int64_t at) const {
        return Error(Exit::data,
                     cat(name_, ": the tar archive is cut short at byte ", bytes_.size, ", within what begins at ", at),
                     "copy or make the shard again");
    }

    /// Takes the member whose data begin at `at`; gives the place of the next header.
    int64_t member(int64_t at, TarHeader header) {
        // Long name, pax; long link and global pax, which say nothing about pictures.
        const bool describes_next = std::strchr("LxKg", header.type) != nullptr;
        if (!describes_next) {
            if (!next_name_.empty()) header.name = next_name_;
            if (next_size_ >= 0) header.size = next_size_;
            next_name_.clear();
            next_size_ = -1;
        }
        if (header.size > bytes_.size - at) throw cut_short(at - tar_block);
        if (header.type == 'L' || header.type == 'x')
            describe_next(at, header);
        else if (header.type == '0' || header.type == '7')
            file(at, header);
        return std::min(bytes_.size, at + align_up(header.size, tar_block));
    }

    void describe_next(int64_t at, const TarHeader& header) {
        const uint8_t* const text = header.size <= max_text ? window_.get(at, header.size) : nullptr;
        const ByteView view{text, static_cast<size_t>(header.size)};
        bool good = text != nullptr;
        if (good && header.type == 'L') next_name_ = std::string(view.str().c_str());  // up to the zero byte
        if (good && header.type == 'x') good = parse_pax(view, next_name_, next_size_);
        if (!good)
            throw Error(Exit::data, cat(name_, ": the extended tar header at byte ", at - tar_block, " is damaged"),
                        "copy or make the shard again");
    }

    void file(int64_t at, const TarHeader& header) {
        std::string key, extension;
        split_key(header.name, key, extension);
        const std::string last = key.substr(key.rfind('/') + 1);
        if (last.empty() || extension.empty()) return;  // .hidden or without an extension: part of no sample
        if (key != key_) finish_sample();
        key_ = key;
        static const std::vector<std::string> pictures{"jpg", "jpeg", "png", "bmp", "tga", "ppm", "pgm"};
        if (std::find(pictures.begin(), pictures.end(), extension) != pictures.end()) {
            if (has_picture_) return;
            has_picture_ = true;
            path_ = header.name;
            entry_.offset = at;
            entry_.bytes = header.size;
        } else if (extension == "cls" || extension == "json") {
            const uint8_t* const text = header.size <= max_text ? window_.get(at, header.size) : nullptr;
            if (!text) return;
            const ByteView view{text, static_cast<size_t>(header.size)};
            if (extension == "cls")
                set_label(cls_, view.str());
            else
                read_json(view);
        }
    }

    void read_json(ByteView text) {
        const auto value = nlohmann::json::parse(text.data, text.data + text.size, nullptr, false);
        if (!value.is_object()) return;
        for (const char* key : {"label", "cls", "class"})
            if (value.contains(key)) set_label(json_, value[key]);
        if (value.contains("path") && value["path"].is_string()) json_path_ = value["path"].get<std::string>();
    }

    void finish_sample() {
        if (!key_.empty()) {
            Label label = cls_;
            if (label.number == ShardIndex::no_label && cls_.name.empty()) label.number = json_.number;
            if (label.name.empty()) label.name = json_.name;
            if (!has_picture_) {
                index_.leave_out("no picture", key_);
            } else if (entry_.bytes > largest_picture) {
                index_.leave_out("larger than a gigabyte", path_);
            } else if (label.empty()) {
                index_.leave_out("no label (.cls or .json)", path_);
            } else {
                entry_.label = label.number;
                entry_.class_name = label.name.empty() ? -1 : index_.intern(label.name);
                index_.add(entry_, json_path_.empty() ? path_ : json_path_);
            }
        }
        key_.clear();
        path_.clear();
        json_path_.clear();
        cls_ = json_ = Label();
        entry_ = {};
        has_picture_ = false;
    }

    Window window_;
    const RandomBytes& bytes_;
    const std::string& name_;
    ShardIndex index_;
    std::string next_name_;  ///< of the member to come, from a long-name or pax header
    int64_t next_size_ = -1;
    // The sample at hand.
    std::string key_, path_, json_path_;
    Label cls_, json_;
    ShardIndex::Entry entry_;
    bool has_picture_ = false;
};

}  // namespace

ShardIndex index_tar(const RandomBytes& bytes, const std::string& name) {
    return Gatherer(bytes, name).run();
}

}  // namespace rn50
