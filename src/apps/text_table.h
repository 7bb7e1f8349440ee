// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::apps {

/// A table for people: columns as wide as their longest cell, two blanks between them.
class TextTable {
 public:
  /// A letter for each column: 'l' to the left, 'r' to the right.
  explicit TextTable(std::string_view alignment) : alignment_(alignment) {}
  /// A row; cells beyond the last column are dropped, missing ones empty.
  void Add(std::vector<std::string> cells);
  /// All rows, each with a line end, none with blanks before it.
  std::string ToString() const;

 private:
  std::string alignment_;
  std::vector<std::vector<std::string>> rows_;
};

/// "50 %", "0.3 %", "-" of nothing.
std::string FormatPercent(double part, double whole);

/// `[####....]`, `width` characters with the brackets.
std::string FormatBar(double part, double whole, std::size_t width);

}  // namespace holdfast::apps
