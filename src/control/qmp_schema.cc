// SPDX-License-Identifier: Apache-2.0
#include "control/qmp_schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace holdfast::control {
namespace {

Error BadType(const std::string& path, std::string_view expected) {
  return Error(Errc::kInvalidArgument,
               fmt::format("Invalid parameter type for '{}', expected: {}", path, expected));
}

Error BadValue(const std::string& path, std::string_view expected) {
  return Error(Errc::kInvalidArgument, fmt::format("Parameter '{}' expects {}", path, expected));
}

std::string Inside(const std::string& path, std::string_view member) {
  return path.empty() ? std::string(member) : fmt::format("{}.{}", path, member);
}

std::string_view ElementOf(std::string_view type) {
  return type.substr(1, type.size() - 2);
}

}  // namespace

std::string_view QmpErrorClassName(QmpErrorClass error_class) noexcept {
  switch (error_class) {
    case QmpErrorClass::kGenericError:
      return "GenericError";
    case QmpErrorClass::kCommandNotFound:
      return "CommandNotFound";
    case QmpErrorClass::kDeviceNotActive:
      return "DeviceNotActive";
    case QmpErrorClass::kDeviceNotFound:
      return "DeviceNotFound";
    case QmpErrorClass::kKvmMissingCap:
      break;
  }
  return "KVMMissingCap";
}

bool Schema::Type::HasWord(std::string_view word) const {
  return std::find(words.begin(), words.end(), word) != words.end();
}

std::string_view Schema::Type::NameOf(const Member& member) {
  std::string_view name = member.name;
  if (Optional(member)) name.remove_suffix(1);
  return name;
}

Schema::Schema() {
  using enum Type::Kind;
  constexpr auto kMax64 = std::numeric_limits<std::uint64_t>::max();
  constexpr auto kMin64 = std::numeric_limits<std::int64_t>::min();
  constexpr auto kMaxInt64 = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  const auto simple = [this](std::string name, Type::Kind kind) {
    Define(std::move(name)).kind = kind;
  };
  const auto integer = [this](std::string name, std::int64_t min, std::uint64_t max,
                              std::string_view range) {
    Type& type = Define(std::move(name));
    type.kind = kInteger;
    type.min = min;
    type.max = max;
    type.range = range;
  };
  simple("str", kString);
  simple("number", kNumber);
  simple("bool", kBool);
  simple("null", kNull);
  simple("any", kAny);
  integer("int", kMin64, kMaxInt64, "");
  integer("int8", -0x80, 0x7f, "int8_t");
  integer("int16", -0x8000, 0x7fff, "int16_t");
  integer("int32", -0x80000000LL, 0x7fffffff, "int32_t");
  integer("uint8", 0, 0xff, "uint8_t");
  integer("uint16", 0, 0xffff, "uint16_t");
  integer("uint32", 0, 0xffffffff, "uint32_t");
  integer("uint64", 0, kMax64, "uint64");
  integer("size", 0, kMax64, "uint64");
  Struct(std::string(kEmptyObject), {});
}

Schema::Type& Schema::Define(std::string name) {
  Type& type = types_[name];
  type.name = std::move(name);
  return type;
}

void Schema::Enum(std::string name, std::vector<std::string> values) {
  Type& type = Define(std::move(name));
  type.kind = Type::Kind::kEnum;
  type.words = std::move(values);
}

void Schema::Struct(std::string name, std::vector<Member> members) {
  Define(std::move(name)).members = std::move(members);
}

void Schema::Union(std::string name, std::vector<Member> members, std::string tag,
                   std::vector<Case> cases) {
  Type& type = Define(std::move(name));
  type.members = std::move(members);
  type.tag = std::move(tag);
  type.cases = std::move(cases);
}

void Schema::Alternate(std::string name, std::vector<std::string> types) {
  Type& type = Define(std::move(name));
  type.kind = Type::Kind::kAlternate;
  type.words = std::move(types);
}

void Schema::AddCommand(std::string name, CommandOptions options) {
  if (options.arguments.empty()) options.arguments = kEmptyObject;
  if (options.result.empty()) options.result = kEmptyObject;
  Command command{std::move(options), name};
  commands_.emplace(std::move(name), std::move(command));
}

void Schema::AddEvent(std::string name, std::string data) {
  events_.emplace(std::move(name), data.empty() ? std::string(kEmptyObject) : std::move(data));
}

const Schema::Type* Schema::Find(std::string_view name) const {
  const auto found = types_.find(name);
  return found == types_.end() ? nullptr : &found->second;
}

Status Schema::Check() const {
  std::vector<std::pair<std::string, std::string>> uses;  // type, who uses it
  for (const auto& [name, command] : commands_) {
    uses.emplace_back(command.arguments, name);
    uses.emplace_back(command.result, name);
  }
  for (const auto& [name, data] : events_) uses.emplace_back(data, name);
  for (const auto& [name, type] : types_) {
    for (const Member& member : type.members) uses.emplace_back(member.type, name);
    for (const Case& one : type.cases) uses.emplace_back(one.type, name);
    if (type.kind == Type::Kind::kAlternate) {
      for (const std::string& word : type.words) uses.emplace_back(word, name);
    }
  }
  for (const auto& [type, user] : uses) {
    std::string_view name = type;
    while (name.starts_with('[')) name = ElementOf(name);
    if (Find(name) == nullptr) {
      return Fail(Errc::kNotFound, fmt::format("'{}' uses the unknown type '{}'", user, name));
    }
  }
  return {};
}

const Schema::Command* Schema::FindCommand(std::string_view name) const noexcept {
  const auto found = commands_.find(name);
  return found == commands_.end() ? nullptr : &found->second;
}

std::vector<std::string> Schema::CommandNames() const {
  std::vector<std::string> names;
  for (const auto& [name, command] : commands_) names.push_back(name);
  return names;
}

Status Schema::CheckArguments(const Command& command, const Json& arguments) const {
  if (!command.more_arguments) return Validate(command.arguments, arguments, "");
  Json known = Json::object();
  for (const Member& member : Find(command.arguments)->members) {
    const auto found = arguments.find(Type::NameOf(member));
    if (found != arguments.end()) known[std::string(Type::NameOf(member))] = *found;
  }
  return Validate(command.arguments, known, "");
}

Status Schema::CheckResult(const Command& command, const Json& result) const {
  return Validate(command.result, result, "return");
}

Status Schema::CheckEvent(std::string_view name, const Json& data) const {
  const auto found = events_.find(name);
  if (found == events_.end()) {
    return Fail(Errc::kNotFound, fmt::format("there is no event '{}'", name));
  }
  return Validate(found->second, data, "data");
}

Status Schema::Validate(std::string_view name, const Json& value, const std::string& path) const {
  if (name.starts_with('[')) {
    if (!value.is_array()) return Fail(BadType(path, "array"));
    std::size_t index = 0;
    for (const Json& element : value) {
      HF_TRY_STATUS(Validate(ElementOf(name), element, fmt::format("{}[{}]", path, index++)));
    }
    return {};
  }
  const Type* const type = Find(name);
  if (type == nullptr) return Fail(Errc::kNotFound, fmt::format("unknown type '{}'", name));
  const auto require = [&path](bool right, std::string_view expected) -> Status {
    if (!right) return Fail(BadType(path, expected));
    return {};
  };
  using enum Type::Kind;
  switch (type->kind) {
    case kString:
      return require(value.is_string(), "string");
    case kNumber:
      return require(value.is_number(), "number");
    case kBool:
      return require(value.is_boolean(), "boolean");
    case kNull:
      return require(value.is_null(), "null");
    case kInteger:
      return ValidateInteger(*type, value, path);
    case kEnum:
      return ValidateEnum(*type, value, path);
    case kObject:
      return ValidateObject(*type, value, path);
    case kAlternate:
      return ValidateAlternate(*type, value, path);
    case kAny:
      break;
  }
  return {};
}

Status Schema::ValidateInteger(const Type& type, const Json& value, const std::string& path) const {
  const bool is_signed = type.min < 0;
  bool fits = false;
  if (value.is_number_unsigned()) {
    fits = value.get<std::uint64_t>() <= type.max;
  } else if (value.is_number_integer()) {
    // Also where a positive number of ours is stored as a signed one.
    const auto number = value.get<std::int64_t>();
    fits = number >= type.min && (number < 0 || static_cast<std::uint64_t>(number) <= type.max);
  } else if (is_signed) {
    return Fail(BadType(path, "integer"));
  } else {
    return Fail(BadValue(path, "uint64"));
  }
  if (fits) return {};
  if (type.range.empty()) return Fail(BadType(path, "integer"));
  return Fail(BadValue(path, type.range));
}

Status Schema::ValidateEnum(const Type& type, const Json& value, const std::string& path) const {
  if (!value.is_string()) return Fail(BadType(path, "string"));
  const auto& word = value.get_ref<const std::string&>();
  if (type.HasWord(word)) return {};
  return Fail(Errc::kInvalidArgument,
              fmt::format("Parameter '{}' does not accept value '{}'", path, word),
              fmt::format("It accepts: {}.", fmt::join(type.words, ", ")));
}

Status Schema::ValidateObject(const Type& type, const Json& value, const std::string& path) const {
  if (!value.is_object()) return Fail(BadType(path, "object"));
  std::size_t known = 0;
  HF_TRY_STATUS(ValidateMembers(type, value, path, known));
  // The object that a tag brings in may itself have one.
  std::vector<const Type*> parts = {&type};
  while (!parts.back()->tag.empty()) {
    const Type& last = *parts.back();
    const auto& word = value.at(last.tag).get_ref<const std::string&>();
    const auto chosen = std::ranges::find(last.cases, word, &Case::value);
    const Type* const more = chosen == last.cases.end() ? nullptr : Find(chosen->type);
    if (more == nullptr) break;
    HF_TRY_STATUS(ValidateMembers(*more, value, path, known));
    parts.push_back(more);
  }
  if (known == value.size()) return {};
  const auto has = [](const Type& in, std::string_view name) {
    return std::any_of(in.members.begin(), in.members.end(),
                       [&](const Member& member) { return Type::NameOf(member) == name; });
  };
  for (const auto& [name, member] : value.items()) {
    if (std::ranges::any_of(parts, [&](const Type* part) { return has(*part, name); })) continue;
    return Fail(Errc::kInvalidArgument,
                fmt::format("Parameter '{}' is unexpected", Inside(path, name)));
  }
  return {};
}

// Adds to `known` how many members of `value` belong to the type.
Status Schema::ValidateMembers(const Type& type, const Json& value, const std::string& path,
                               std::size_t& known) const {
  for (const Member& member : type.members) {
    const std::string_view name = Type::NameOf(member);
    const auto found = value.find(name);
    if (found == value.end()) {
      if (Type::Optional(member)) continue;
      return Fail(Errc::kInvalidArgument,
                  fmt::format("Parameter '{}' is missing", Inside(path, name)));
    }
    HF_TRY_STATUS(Validate(member.type, *found, Inside(path, name)));
    ++known;
  }
  return {};
}

Status Schema::ValidateAlternate(const Type& type, const Json& value,
                                 const std::string& path) const {
  for (const std::string& word : type.words) {
    if (Validate(word, value, path)) return {};
  }
  return Fail(BadType(path, type.name));
}

}  // namespace holdfast::control
