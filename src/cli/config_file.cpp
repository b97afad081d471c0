#include "cli/config_file.h"

#include <fstream>
#include <map>
#include <sstream>

#include "base/error.h"

namespace rn50 {

namespace {

bool is_key_character(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/// One line, read from left to right.
class LineReader {
  public:
    LineReader(const std::string& text, std::string where) : text_(text), where_(std::move(where)) {}

    /// Whether nothing but blanks and a comment is left.
    bool at_end() {
        skip_blanks();
        return position_ >= text_.size() || text_[position_] == '#';
    }

    std::string key() {
        skip_blanks();
        if (peek() == '[')
            fail("sections are not used here", "write each option as `name = value`, without [sections]");
        std::string key;
        while (is_key_character(peek()))
            key += text_[position_++];
        if (key.empty())
            fail("no option's name at the start of the line", "write `name = value`, or # before a comment");
        if (!take('=')) fail(cat("no '=' behind ", key), cat("write `", key, " = value`"));
        return key;
    }

    void value(ConfigEntry& entry) {
        skip_blanks();
        if (take('[')) {
            entry.kind = ConfigEntry::Kind::array;
            while (!take(']')) {
                entry.parts.push_back(scalar(entry.key).first);
                if (!take(',') && peek() != ']')
                    fail(cat(entry.key, ": the list does not end on its line"),
                         cat("write `", entry.key, " = [a, b]`"));
            }
        } else {
            auto [text, quoted] = scalar(entry.key);
            entry.kind = quoted ? ConfigEntry::Kind::text : ConfigEntry::Kind::bare;
            entry.parts.push_back(std::move(text));
        }
        if (!at_end())
            fail(cat("something follows the value of ", entry.key), "one option a line; comments begin with #");
    }

    [[noreturn]] void fail(const std::string& what, const std::string& remedy) const {
        throw Error(Exit::usage, cat(where_, ": ", what), remedy);
    }

  private:
    char peek() const { return position_ < text_.size() ? text_[position_] : '\0'; }

    void skip_blanks() {
        while (peek() == ' ' || peek() == '\t')
            ++position_;
    }

    bool take(char c) {
        skip_blanks();
        if (peek() != c) return false;
        ++position_;
        return true;
    }

    /// A number or a word, or a string in quotes; and whether it had quotes.
    std::pair<std::string, bool> scalar(const std::string& key) {
        skip_blanks();
        if (take('"')) return {basic_string(key), true};
        if (take('\'')) return {literal_string(key), true};
        std::string text;
        while (is_key_character(peek()) || peek() == '.' || peek() == '+') {
            if (peek() != '_') text += peek();
            ++position_;
        }
        const bool path_like = peek() == '/' || peek() == '~';
        if (text.empty() || path_like)
            fail(cat(key, " has no value that can be read"), cat("text stands in quotes: ", key, " = \"...\""));
        return {text, false};
    }

    std::string basic_string(const std::string& key) {
        std::string text;
        while (peek() != '"') {
            if (position_ >= text_.size()) fail(cat(key, ": the closing quote is missing"), "end the text with \"");
            char c = text_[position_++];
            if (c == '\\') {
                static const std::map<char, char> escapes{
                    {'"', '"'}, {'\\', '\\'}, {'n', '\n'}, {'t', '\t'}, {'r', '\r'}};
                const auto escape = escapes.find(peek());
                if (escape == escapes.end())
                    fail(cat(key, ": '\\", peek(), "' means nothing"), "write \\\\ for a backslash, or use '...'");
                c = escape->second;
                ++position_;
            }
            text += c;
        }
        ++position_;
        return text;
    }

    std::string literal_string(const std::string& key) {
        const size_t end = text_.find('\'', position_);
        if (end == std::string::npos) fail(cat(key, ": the closing quote is missing"), "end the text with '");
        const std::string text = text_.substr(position_, end - position_);
        position_ = end + 1;
        return text;
    }

    const std::string& text_;
    std::string where_;
    size_t position_ = 0;
};

}  // namespace

std::vector<ConfigEntry> parse_config(const std::string& text, const std::string& file) {
    std::vector<ConfigEntry> entries;
    std::map<std::string, int> seen;
    std::istringstream lines(text.compare(0, 3, "\xEF\xBB\xBF") == 0 ? text.substr(3) : text);
    std::string line;
    for (int number = 1; std::getline(lines, line); ++number) {
        if (!line.empty() && line.back() == '\r') line.pop_back();
        LineReader reader(line, cat(file, ":", number));
        if (reader.at_end()) continue;
        ConfigEntry entry{reader.key(), {}, ConfigEntry::Kind::bare, number};
        reader.value(entry);
        const auto [earlier, is_new] = seen.emplace(entry.key, number);
        if (!is_new)
            reader.fail(cat(entry.key, " stands twice, first in line ", earlier->second), "remove one of them");
        entries.push_back(std::move(entry));
    }
    return entries;
}

std::vector<ConfigEntry> read_config(const std::string& file) {
    std::ifstream in(file, std::ios::binary);
    std::ostringstream text;
    // An empty file makes operator<< set failbit on `text`, so only `in` is asked.
    if (in) text << in.rdbuf();
    if (!in || in.bad())
        throw Error(Exit::data, with_errno("cannot read " + file), "check the path and its permissions");
    return parse_config(text.str(), file);
}

std::string toml_quote(const std::string& text) {
    static const std::map<char, std::string> escapes{
        {'"', "\\\""}, {'\\', "\\\\"}, {'\n', "\\n"}, {'\t', "\\t"}, {'\r', "\\r"}};
    std::string quoted = "\"";
    for (const char c : text) {
        const auto escape = escapes.find(c);
        if (escape == escapes.end()) {
            quoted += c;
        } else {
            quoted += escape->second;
        }
    }
    return quoted + '"';
}

}  // namespace rn50
