// SPDX-License-Identifier: Apache-2.0
// What the options of several network back ends have in common.
#pragma once

#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <optional>
#include <string_view>

#include <holdfast/error.h>

#include "object/property.h"

namespace holdfast::devices::net {

/// A whole text as a number; nothing if it is none.
template <typename Value>
std::optional<Value> ReadNumber(std::string_view text) {
  Value value{};
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || rest != text.data() + text.size()) return std::nullopt;
  return value;
}

/// The number of a descriptor that the process was started with. @param name  of the parameter
inline Result<int> ReadFd(std::string_view name, std::string_view text) {
  const std::optional<int> fd = ReadNumber<int>(text);
  if (fd && *fd > STDERR_FILENO) return *fd;
  return Fail(Errc::kInvalidArgument,
              fmt::format("Parameter '{}' expects a file descriptor, not '{}'", name, text),
              "Write the number, from 3 on, under which holdfast was started with it.");
}

/// A property without more than these.
constexpr object::PropertyInfo Info(std::string_view name, object::PropertyType type,
                                    std::string_view standard, std::string_view description) {
  return {.name = name, .type = type, .default_text = standard, .description = description};
}

}  // namespace holdfast::devices::net
