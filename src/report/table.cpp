#include "report/table.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/error.h"

namespace rn50::report {

namespace {

constexpr char32_t invalid = 0xFFFFFFFF;

/// The character that starts at `at`, which moves behind it; `invalid`, one byte further, where there is none.
char32_t next_character(const std::string& text, size_t& at) {
    const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
    const unsigned first = byte(at);
    const size_t length = first < 0x80 ? 1 : first >> 5 == 6 ? 2 : first >> 4 == 14 ? 3 : first >> 3 == 30 ? 4 : 0;
    const size_t begin = at++;
    if (length == 0) return invalid;
    char32_t character = length == 1 ? first : first & (0x7Fu >> length);
    for (size_t i = 1; i < length; ++i) {
        if (byte(begin + i) >> 6 != 2) return invalid;
        character = character << 6 | (byte(begin + i) & 0x3F);
    }
    constexpr char32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    const bool surrogate = character >= 0xD800 && character < 0xE000;
    if (character < smallest[length] || character > 0x10FFFF || surrogate) return invalid;
    at = begin + length;
    return character;
}

bool is_control(char32_t c) {
    return c < 0x20 || (c >= 0x7F && c < 0xA0) || (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
}

int width_of(char32_t c) {
    const auto within = [c](char32_t low, char32_t high) { return c >= low && c <= high; };
    if (within(0x300, 0x36F) || within(0x200B, 0x200F) || within(0xFE00, 0xFE0F)) return 0;
    const bool wide = within(0x1100, 0x115F) || within(0x2E80, 0xA4CF) || within(0xAC00, 0xD7A3) ||
                      within(0xF900, 0xFAFF) || within(0xFE30, 0xFE6F) || within(0xFF00, 0xFF60) ||
                      within(0xFFE0, 0xFFE6) || within(0x1F300, 0x1FAFF) || within(0x20000, 0x3FFFD);
    return wide ? 2 : 1;
}

}  // namespace

std::string shown(const std::string& text) {
    std::string clean;
    for (size_t at = 0; at < text.size();) {
        const size_t begin = at;
        const char32_t character = next_character(text, at);
        clean += character == invalid || is_control(character) ? "\xEF\xBF\xBD" : text.substr(begin, at - begin);
    }
    return clean;
}

int display_width(const std::string& text) {
    int width = 0;
    for (size_t at = 0; at < text.size();)
        width += width_of(next_character(text, at));
    return width;
}

std::string shortened(const std::string& text, int columns) {
    if (display_width(text) <= columns) return text;
    int width = 1;  // of the ellipsis
    for (size_t at = 0; at < text.size();) {
        const size_t begin = at;
        width += width_of(next_character(text, at));
        if (width > columns) return text.substr(0, begin) + "…";
    }
    return text;
}

Table::Table(std::vector<std::string> columns) {
    for (std::string& heading : columns) {
        right_.push_back(!heading.empty() && heading[0] == '>');
        if (right_.back()) heading.erase(0, 1);
    }
    rows_.push_back(std::move(columns));
}

void Table::row(std::vector<std::string> cells) {
    RN50_REQUIRE(cells.size() == right_.size(), cells.size(), " cells for ", right_.size(), " columns");
    for (std::string& cell : cells)
        cell = shown(cell);
    rows_.push_back(std::move(cells));
}

std::string Table::str() const {
    std::vector<int> widths(right_.size());
    for (const auto& row : rows_)
        for (size_t column = 0; column < row.size(); ++column)
            widths[column] = std::max(widths[column], display_width(row[column]));
    std::string text;
    for (const auto& row : rows_) {
        std::string line;
        for (size_t column = 0; column < row.size(); ++column) {
            const std::string gap(static_cast<size_t>(widths[column] - display_width(row[column])), ' ');
            line += "  ";
            line += right_[column] ? gap + row[column] : row[column] + gap;
        }
        line.erase(line.find_last_not_of(' ') + 1);
        text += line + '\n';
    }
    return text;
}

std::string fixed(double value, int digits) {
    if (!std::isfinite(value)) return "-";
    char text[400];
    std::snprintf(text, sizeof text, "%.*f", digits, value);
    return text;
}

std::string grouped(int64_t value) {
    std::string text = std::to_string(value);
    for (size_t at = text.size(); at > (value < 0 ? 4u : 3u);)
        text.insert(at -= 3, ",");
    return text;
}

std::string duration(double seconds) {
    if (!std::isfinite(seconds) || seconds < 0) return "-";
    if (seconds < 59.95) return fixed(seconds, 1) + " s";
    const auto whole = static_cast<long long>(std::llround(seconds));
    char text[64];
    if (whole < 3600)
        std::snprintf(text, sizeof text, "%lld min %02lld s", whole / 60, whole % 60);
    else if (whole < 86400)
        std::snprintf(text, sizeof text, "%lld h %02lld min", whole / 3600, whole / 60 % 60);
    else
        std::snprintf(text, sizeof text, "%lld d %02lld h", whole / 86400, whole / 3600 % 24);
    return text;
}

}  // namespace rn50::report
