// SPDX-License-Identifier: Apache-2.0
#include "object/keyval.h"

#include <fmt/format.h>

#include <algorithm>

namespace holdfast::object {
namespace {

// Takes a value off the front of `text`, up to a single comma, and that comma too.
std::string TakeValue(std::string_view& text) {
  std::string value;
  std::size_t i = 0;
  while (i < text.size()) {
    if (text[i] == ',') {
      if (i + 1 >= text.size() || text[i + 1] != ',') break;
      ++i;
    }
    value += text[i++];
  }
  text.remove_prefix(std::min(text.size(), i + 1));
  return value;
}

bool IsLetter(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

}  // namespace

Result<KeyValues> ParseKeyValues(std::string_view text, std::string_view implied_key) {
  KeyValues values;
  bool first = true;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find_first_of("=,"), text.size());
    const bool has_value = end < text.size() && text[end] == '=';
    if (!has_value && first && !implied_key.empty()) {
      values.push_back(
          {.key = std::string(implied_key), .value = TakeValue(text), .implied = true});
    } else if (end == 0) {
      return Fail(Errc::kInvalidArgument,
                  fmt::format("Expected a parameter name before '{}'", text.substr(0, 16)),
                  "Parameters are written name=value, with a comma between two of them.");
    } else {
      KeyValue entry{.key = std::string(text.substr(0, end))};
      text.remove_prefix(std::min(text.size(), end + 1));
      if (has_value) {
        entry.value = TakeValue(text);
      } else {
        entry.value = "on";
        entry.bare = true;
      }
      values.push_back(std::move(entry));
    }
    first = false;
  }
  return values;
}

bool WantsHelp(const KeyValues& values) noexcept {
  return std::any_of(values.begin(), values.end(), [](const KeyValue& entry) {
    const std::string& word = entry.implied ? entry.value : entry.key;
    return (entry.implied || entry.bare) && (word == "help" || word == "?");
  });
}

const std::string* FindValue(const KeyValues& values, std::string_view key) noexcept {
  const auto found = std::find_if(values.rbegin(), values.rend(),
                                  [&](const KeyValue& entry) { return entry.key == key; });
  return found == values.rend() ? nullptr : &found->value;
}

bool IsWellFormedId(std::string_view id) noexcept {
  return !id.empty() && IsLetter(id.front()) && std::all_of(id.begin(), id.end(), [](char c) {
    return IsLetter(c) || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
  });
}

}  // namespace holdfast::object
