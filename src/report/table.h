// Aligned columns for the terminal, and how names and numbers are shown everywhere.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace rn50::report {

/// A name that others chose (a class, a file) made fit to be shown: bytes that are no UTF-8 and control characters,
/// which could steer a terminal, become U+FFFD.
std::string shown(const std::string& text);
/// Columns that a terminal needs for UTF-8 text: wide East Asian characters take two, combining ones none.
int display_width(const std::string& text);
/// `text`, cut to `columns` columns with an ellipsis at its end when it is wider.
std::string shortened(const std::string& text, int columns);

/// A table: text columns to the left, number columns to the right.
class Table {
  public:
    /// `columns`: headings; one that starts with '>' is a number column (the sign is not shown).
    explicit Table(std::vector<std::string> columns);
    /// As many cells as there are columns; each is passed through shown().
    void row(std::vector<std::string> cells);
    /// Heading and rows, each line with a two-space indent and a line end.
    std::string str() const;

  private:
    std::vector<bool> right_;
    std::vector<std::vector<std::string>> rows_;
};

/// "93.25" with `digits` decimals; "-" for NaN and infinities.
std::string fixed(double value, int digits);
/// "1,281,167"
std::string grouped(int64_t value);
/// "12.3 s", "4 min 05 s", "2 h 03 min", "3 d 04 h".
std::string duration(double seconds);

}  // namespace rn50::report
