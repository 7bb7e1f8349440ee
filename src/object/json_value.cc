// SPDX-License-Identifier: Apache-2.0
#include "object/json_value.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include <optional>

namespace holdfast::object {
namespace {

Error WrongType(const PropertyInfo& property, std::string_view expected) {
  return Error(Errc::kInvalidArgument, fmt::format("Invalid parameter type for '{}', expected: {}",
                                                   property.name, expected));
}

Error NotANumber(const PropertyInfo& property) {
  return Error(Errc::kInvalidArgument, fmt::format("Parameter '{}' expects uint64", property.name),
               "Give it as a JSON integer from 0 to 2^64 - 1, without quotes or suffix.");
}

// Empty: not an integer that fits. is_number_unsigned() alone would turn down a 5 that a program
// made as a signed number.
std::optional<std::uint64_t> Unsigned(const nlohmann::json& value) {
  if (value.is_number_unsigned()) return value.get<std::uint64_t>();
  if (value.is_number_integer() && value.get<std::int64_t>() >= 0)
    return static_cast<std::uint64_t>(value.get<std::int64_t>());
  return std::nullopt;
}

Result<PropertyValue> ListFromJson(const PropertyInfo& property, const nlohmann::json& value) {
  if (!value.is_array()) return Fail(WrongType(property, "array"));
  if (value.size() > kLargestListNumber + 1) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Parameter '{}' has {} members", property.name, value.size()),
                fmt::format("A list has at most {}.", kLargestListNumber + 1));
  }
  std::vector<std::uint64_t> numbers;
  for (const nlohmann::json& member : value) {
    const auto number = Unsigned(member);
    if (!number) return Fail(NotANumber(property));
    if (*number > kLargestListNumber) return Fail(ListNumberTooLarge(property, *number));
    numbers.push_back(*number);
  }
  return PropertyValue(std::move(numbers));
}

}  // namespace

Result<PropertyValue> PropertyFromJson(const PropertyInfo& property, const nlohmann::json& value) {
  switch (property.type) {
    case PropertyType::kBool:
      if (!value.is_boolean()) return Fail(WrongType(property, "boolean"));
      return PropertyValue(value.get<bool>());
    case PropertyType::kSize:
    case PropertyType::kUint: {
      const auto number = Unsigned(value);
      if (!number) return Fail(NotANumber(property));
      // One place judges the range of numbers, whatever form they come in.
      return ParseProperty(property, fmt::format("{}", *number));
    }
    case PropertyType::kUint16List:
      return ListFromJson(property, value);
    case PropertyType::kEnum:
    case PropertyType::kString:
      break;
  }
  if (!value.is_string()) return Fail(WrongType(property, "string"));
  return ParseProperty(property, value.get<std::string>());
}

nlohmann::json PropertyToJson(const PropertyInfo& property, const PropertyValue& value) {
  if (property.type == PropertyType::kEnum) return FormatProperty(property, value);
  return std::visit([](const auto& plain) { return nlohmann::json(plain); }, value);
}

}  // namespace holdfast::object
