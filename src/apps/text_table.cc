// SPDX-License-Identifier: Apache-2.0
#include "apps/text_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace holdfast::apps {

void TextTable::Add(std::vector<std::string> cells) {
  cells.resize(alignment_.size());
  rows_.push_back(std::move(cells));
}

std::string TextTable::ToString() const {
  std::vector<std::size_t> widths(alignment_.size(), 0);
  for (const auto& row : rows_)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string text;
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (i > 0) line += "  ";
      line += alignment_[i] == 'r' ? fmt::format("{:>{}}", row[i], widths[i])
                                   : fmt::format("{:<{}}", row[i], widths[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string FormatPercent(double part, double whole) {
  if (!(whole > 0)) return "-";
  const double percent = 100 * part / whole;
  if (percent > 0 && percent < 0.05) return "<0.1 %";
  return fmt::format("{:.{}f} %", percent, percent > 0 && percent < 9.95 ? 1 : 0);
}

std::string FormatBar(double part, double whole, std::size_t width) {
  const std::size_t room = width < 2 ? 0 : width - 2;
  const double filled = whole > 0 ? std::clamp(part / whole, 0.0, 1.0) : 0;
  const auto marks = static_cast<std::size_t>(std::lround(filled * static_cast<double>(room)));
  return fmt::format("[{}{}]", std::string(marks, '#'), std::string(room - marks, '.'));
}

}  // namespace holdfast::apps
