// SPDX-License-Identifier: Apache-2.0
#include "object/property.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include <holdfast/units.h>

#include "object/suggest.h"

namespace holdfast::object {
namespace {

std::string Join(std::span<const std::string_view> words, std::string_view separator) {
  return fmt::format("{}", fmt::join(words.begin(), words.end(), separator));
}

Result<PropertyValue> ParseBool(const PropertyInfo& property, std::string_view text) {
  static constexpr std::array<std::string_view, 4> kOn = {"on", "yes", "true", "y"};
  static constexpr std::array<std::string_view, 4> kOff = {"off", "no", "false", "n"};
  if (std::find(kOn.begin(), kOn.end(), text) != kOn.end()) return PropertyValue(true);
  if (std::find(kOff.begin(), kOff.end(), text) != kOff.end()) return PropertyValue(false);
  return Fail(Errc::kInvalidArgument,
              fmt::format("Parameter '{}' expects 'on' or 'off'", property.name),
              fmt::format("It got '{}'.", text));
}

Result<PropertyValue> ParseSizeProperty(const PropertyInfo& property, std::string_view text) {
  if (const auto size = ParseSize(text)) return PropertyValue(*size);
  return Fail(Errc::kInvalidArgument,
              fmt::format("Parameter '{}' expects a size value", property.name),
              fmt::format("It got '{}'; a size is a number below 2^64, optionally with a suffix k, "
                          "M, G, T, P or E.",
                          text));
}

Result<PropertyValue> ParseUint(const PropertyInfo& property, std::string_view text) {
  std::string_view digits = text;
  int base = 10;
  if (digits.starts_with("0x") || digits.starts_with("0X")) {
    digits.remove_prefix(2);
    base = 16;
  }
  std::uint64_t value = 0;
  const char* const begin = digits.data();  // NOLINT(bugprone-suspicious-stringview-data-usage)
  const char* const end = begin + digits.size();
  const auto [rest, error] = std::from_chars(begin, end, value, base);
  if (digits.empty() || rest != end || error != std::errc{}) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Parameter '{}' expects a uint64 value", property.name),
                fmt::format("It got '{}'.", text));
  }
  if (value > property.max) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Value '{}' is out of range for parameter '{}'", text, property.name),
                fmt::format("The largest is {}.", property.max));
  }
  return PropertyValue(value);
}

Result<PropertyValue> ParseEnum(const PropertyInfo& property, std::string_view text) {
  const auto found = std::find(property.choices.begin(), property.choices.end(), text);
  if (found == property.choices.end()) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Parameter '{}' does not accept value '{}'", property.name, text),
                fmt::format("Holdfast accepts here: {}.", Join(property.choices, ", ")));
  }
  return PropertyValue(static_cast<std::uint64_t>(found - property.choices.begin()));
}

// One number or an inclusive range. QEMU ends ranges at 64 Ki numbers, and so at uint16 here too.
Result<PropertyValue> ParseList(const PropertyInfo& property, std::string_view text) {
  const auto number = [](std::string_view digits) -> std::optional<std::uint64_t> {
    std::uint64_t value = 0;
    const char* const begin = digits.data();  // NOLINT(bugprone-suspicious-stringview-data-usage)
    const char* const end = begin + digits.size();
    const auto [rest, error] = std::from_chars(begin, end, value);
    if (digits.empty() || rest != end || error != std::errc{}) return std::nullopt;
    return value;
  };
  const std::size_t dash = text.find('-');
  const auto first = number(text.substr(0, dash));
  const auto last = dash == std::string_view::npos ? first : number(text.substr(dash + 1));
  if (!first || !last || *last < *first) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Parameter '{}' expects a uint64 value or range", property.name),
                fmt::format("It got '{}'; write a number or a range such as 0-3.", text));
  }
  if (*last > kLargestListNumber) return Fail(ListNumberTooLarge(property, *last));
  std::vector<std::uint64_t> values;
  for (std::uint64_t value = *first; value <= *last; ++value) values.push_back(value);
  return PropertyValue(std::move(values));
}

}  // namespace

// QEMU's visitor has no name for the members of a list, hence its 'null'.
Error ListNumberTooLarge(const PropertyInfo& property, std::uint64_t value) {
  return Error(
      Errc::kInvalidArgument, "Parameter 'null' expects uint16_t",
      fmt::format("{} in '{}' is larger than {}.", value, property.name, kLargestListNumber));
}

std::string_view QomTypeName(const PropertyInfo& property) noexcept {
  switch (property.type) {
    case PropertyType::kBool:
      return "bool";
    case PropertyType::kSize:
    case PropertyType::kUint:
    case PropertyType::kUint16List:
      return "int";
    case PropertyType::kEnum:
      return property.qom_type;
    case PropertyType::kString:
      break;
  }
  return "string";
}

std::string TypeName(const PropertyInfo& property) {
  switch (property.type) {
    case PropertyType::kBool:
      return "bool";
    case PropertyType::kSize:
      return "size";
    case PropertyType::kUint:
      return "uint";
    case PropertyType::kUint16List:
      return "uint16 list";
    case PropertyType::kEnum:
      return Join(property.choices, "|");
    case PropertyType::kString:
      break;
  }
  return "str";
}

Result<PropertyValue> ParseProperty(const PropertyInfo& property, std::string_view text) {
  switch (property.type) {
    case PropertyType::kBool:
      return ParseBool(property, text);
    case PropertyType::kSize:
      return ParseSizeProperty(property, text);
    case PropertyType::kUint:
      return ParseUint(property, text);
    case PropertyType::kEnum:
      return ParseEnum(property, text);
    case PropertyType::kUint16List:
      return ParseList(property, text);
    case PropertyType::kString:
      break;
  }
  return PropertyValue(std::string(text));
}

std::string FormatProperty(const PropertyInfo& property, const PropertyValue& value) {
  switch (property.type) {
    case PropertyType::kBool:
      return std::get<bool>(value) ? "on" : "off";
    case PropertyType::kEnum:
      return std::string(property.choices[std::get<std::uint64_t>(value)]);
    case PropertyType::kSize:
    case PropertyType::kUint:
      return fmt::format("{}", std::get<std::uint64_t>(value));
    case PropertyType::kUint16List:
      return fmt::format("{}", fmt::join(std::get<std::vector<std::uint64_t>>(value), ","));
    case PropertyType::kString:
      break;
  }
  return std::get<std::string>(value);
}

Error UnknownProperty(std::string_view key, std::span<const std::string_view> known,
                      std::span<const std::string_view> qemu_only) {
  const std::string accepted = fmt::format("Holdfast accepts here: {}.", Join(known, ", "));
  if (std::find(qemu_only.begin(), qemu_only.end(), key) != qemu_only.end()) {
    return Error(Errc::kUnsupported,
                 fmt::format("QEMU has the parameter '{}', Holdfast does not have it yet", key),
                 "Leave it out. " + accepted);
  }
  const std::string_view nearest = Nearest(key, known);
  return Error(Errc::kInvalidArgument, fmt::format("Invalid parameter '{}'", key),
               nearest.empty() ? accepted : fmt::format("Did you mean '{}'?", nearest));
}

std::string DescribeProperty(const PropertyInfo& property) {
  const std::string head = fmt::format("{}=<{}>", property.name, TypeName(property));
  std::string text = fmt::format("  {:<24} - {}", head, property.description);
  if (!property.default_text.empty()) {
    text += fmt::format(" (default: {})", property.default_text);
  }
  text += '\n';
  return text;
}

}  // namespace holdfast::object
