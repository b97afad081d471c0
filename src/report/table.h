// Aligned columns for the terminal.
#pragma once

#include <string>
#include <vector>

namespace rn50::report {

/// Columns that a terminal needs for UTF-8 text: wide East Asian characters take two, combining ones none.
int display_width(const std::string& text);

/// A table: text columns to the left, number columns to the right.
class Table {
  public:
    /// `columns`: headings; one that starts with '>' is a number column (the sign is not shown).
    explicit Table(std::vector<std::string> columns);
    /// As many cells as there are columns.
    void row(std::vector<std::string> cells);
    /// Heading and rows, each line with a two-space indent and a line end.
    std::string str() const;

  private:
    std::vector<bool> right_;
    std::vector<std::vector<std::string>> rows_;
};

/// "93.25" with `digits` decimals; "-" for NaN and infinities.
std::string fixed(double value, int digits);
/// "4 min 05 s", "2 h 03 min", "12.3 s".
std::string duration(double seconds);

}  // namespace rn50::report
