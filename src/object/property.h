// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include <holdfast/error.h>

#include "object/keyval.h"

namespace holdfast::object {

enum class PropertyType : std::uint8_t { kBool, kSize, kUint, kString, kEnum, kUint16List };

/// What a property tells about itself; help texts, man pages and introspection print it.
struct PropertyInfo {
  std::string_view name;
  PropertyType type = PropertyType::kString;
  std::string_view default_text = {};  ///< empty: none
  std::string_view description = {};
  std::span<const std::string_view> choices = {};                 ///< kEnum: the words
  std::uint64_t max = std::numeric_limits<std::uint64_t>::max();  ///< kUint
  std::string_view qom_type = {};  ///< kEnum: what QEMU's introspection calls the type
};

/// A value of its property's type: kSize, kUint and kEnum (index into choices) are integers, a
/// kUint16List is a vector.
using PropertyValue = std::variant<bool, std::uint64_t, std::string, std::vector<std::uint64_t>>;

/// "bool", "size", "uint", "str", "uint16 list", or the words of an enum: for help texts.
std::string TypeName(const PropertyInfo& property);
/// What QEMU's introspection (qom-list-properties) calls the type: "bool", "int", "string", ….
std::string_view QomTypeName(const PropertyInfo& property) noexcept;

/// Reads `text` as QEMU does for this type; of a list it is one part, "2" or "0-3". The error
/// names property and value.
Result<PropertyValue> ParseProperty(const PropertyInfo& property, std::string_view text);

/// The largest member of a kUint16List, and the error for a larger one.
inline constexpr std::uint64_t kLargestListNumber = 0xffff;
Error ListNumberTooLarge(const PropertyInfo& property, std::uint64_t value);

/// The value as its words on a command line: "on", "4096", "bind", "0,2".
std::string FormatProperty(const PropertyInfo& property, const PropertyValue& value);

/// A property of an Owner.
template <typename Owner>
struct Property : PropertyInfo {
  /// Stores a value of the right type; may refuse what only the owner can judge. Null: the value
  /// is only checked (`choices` of one word are how a machine says "this is how it is").
  Status (*set)(Owner& owner, const PropertyValue& value) = nullptr;
  /// The value as it is now. Null: the property cannot be read.
  PropertyValue (*get)(const Owner& owner) = nullptr;
};

namespace internal {
template <typename Owner, typename Field>
Owner OwnerOf(Field Owner::*);
template <typename Field>
void Store(Field& field, const PropertyValue& value) {
  if constexpr (std::is_same_v<Field, bool>) {
    field = std::get<bool>(value);
  } else if constexpr (std::is_integral_v<Field> || std::is_enum_v<Field>) {
    field = static_cast<Field>(std::get<std::uint64_t>(value));
  } else if constexpr (std::is_same_v<Field, std::vector<std::uint64_t>>) {
    field = std::get<std::vector<std::uint64_t>>(value);
  } else {
    field = std::get<std::string>(value);
  }
}
template <typename Field>
PropertyValue Load(const Field& field) {
  if constexpr (std::is_same_v<Field, bool> || std::is_same_v<Field, std::vector<std::uint64_t>>) {
    return field;
  } else if constexpr (std::is_integral_v<Field> || std::is_enum_v<Field>) {
    return static_cast<std::uint64_t>(field);
  } else {
    return std::string(field);
  }
}
}  // namespace internal

/// A setter that stores into a data member (bool, integer, enum in the order of the choices, list,
/// string, or a class assignable from std::string).
template <auto Member>
Status SetField(decltype(internal::OwnerOf(Member))& owner, const PropertyValue& value) {
  internal::Store(owner.*Member, value);
  return {};
}
/// The same for a table of Base whose owners are really the member's class.
template <typename Base, auto Member>
Status SetFieldOf(Base& owner, const PropertyValue& value) {
  return SetField<Member>(static_cast<decltype(internal::OwnerOf(Member))&>(owner), value);
}

/// The getter that belongs to SetField, for members that a value can be made from.
template <auto Member>
PropertyValue GetField(const decltype(internal::OwnerOf(Member))& owner) {
  return internal::Load(owner.*Member);
}
/// The getter that belongs to SetFieldOf.
template <typename Base, auto Member>
PropertyValue GetFieldOf(const Base& owner) {
  return GetField<Member>(static_cast<const decltype(internal::OwnerOf(Member))&>(owner));
}

/// The error for a key that is not in the table. `qemu_only` are keys that QEMU has here and
/// Holdfast has not; they get a sentence that says so.
Error UnknownProperty(std::string_view key, std::span<const std::string_view> known,
                      std::span<const std::string_view> qemu_only);

/// Applies one `key=value` by the table.
template <typename Owner>
Status SetProperty(std::span<const Property<Owner>> table,
                   std::span<const std::string_view> qemu_only, Owner& owner,
                   const KeyValue& entry) {
  for (const Property<Owner>& property : table) {
    if (property.name != entry.key) continue;
    if (entry.bare && property.type != PropertyType::kBool) {
      return Fail(Errc::kInvalidArgument, "Expected '=' after parameter '" + entry.key + "'");
    }
    HF_TRY(const PropertyValue value, ParseProperty(property, entry.value));
    return property.set == nullptr ? Status{} : property.set(owner, value);
  }
  std::vector<std::string_view> known;
  for (const Property<Owner>& property : table) known.push_back(property.name);
  return Fail(UnknownProperty(entry.key, known, qemu_only));
}

/// Applies all, in order; stops at the first error.
template <typename Owner>
Status SetProperties(std::span<const Property<Owner>> table,
                     std::span<const std::string_view> qemu_only, Owner& owner,
                     const KeyValues& values) {
  for (const KeyValue& entry : values) {
    HF_TRY_STATUS(SetProperty(table, qemu_only, owner, entry));
  }
  return {};
}

/// One line of help: "  size=<size>             - how large …".
std::string DescribeProperty(const PropertyInfo& property);

/// "TITLE options:" and a line for each property.
template <typename Owner>
std::string DescribeProperties(std::string_view title, std::span<const Property<Owner>> table) {
  std::string text = std::string(title) + " options:\n";
  for (const Property<Owner>& property : table) text += DescribeProperty(property);
  return text;
}

}  // namespace holdfast::object
