// SPDX-License-Identifier: Apache-2.0
#include "apps/qmp_types.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <utility>

#include <nlohmann/json.hpp>

#include "apps/json_read.h"
#include "apps/qmp_client.h"

namespace holdfast::apps {
namespace {

using Json = nlohmann::ordered_json;
using Kind = QmpTypes::Kind;

Kind KindOfBuiltin(std::string_view json_type) {
  if (json_type == "string") return Kind::kString;
  if (json_type == "int") return Kind::kInteger;
  if (json_type == "number") return Kind::kNumber;
  if (json_type == "boolean") return Kind::kBool;
  return Kind::kUnknown;
}

std::vector<QmpTypes::Member> Members(const Json& entry) {
  std::vector<QmpTypes::Member> members;
  for (const Json& member : ListMember(entry, "members")) {
    const std::string name = TextMember(member, "name");
    if (name.empty()) continue;
    members.push_back(
        {.name = name, .type = TextMember(member, "type"), .optional = member.contains("default")});
  }
  return members;
}

}  // namespace

QmpTypes QmpTypes::Ask(QmpClient& client) {
  if (const auto schema = client.Execute("query-qmp-schema")) return FromSchema(*schema);
  if (const auto commands = client.Execute("query-commands")) return FromCommands(*commands);
  return {};
}

QmpTypes QmpTypes::FromCommands(const Json& commands) {
  QmpTypes types;
  if (!commands.is_array()) return types;
  for (const Json& command : commands) {
    if (const std::string name = TextMember(command, "name"); !name.empty())
      types.commands_[name] = "";
  }
  return types;
}

QmpTypes QmpTypes::FromSchema(const Json& schema) {
  QmpTypes types;
  if (!schema.is_array()) return types;
  for (const Json& entry : schema) {
    const std::string name = TextMember(entry, "name");
    const std::string meta = TextMember(entry, "meta-type");
    if (name.empty()) continue;
    if (meta == "command") {
      types.commands_[name] = TextMember(entry, "arg-type");
      continue;
    }
    Type type;
    if (meta == "builtin") {
      type.kind = KindOfBuiltin(TextMember(entry, "json-type"));
    } else if (meta == "enum") {
      type.kind = Kind::kEnum;
      for (const Json& value : ListMember(entry, "values"))
        if (value.is_string()) type.words.push_back(Printable(value.get<std::string>()));
      // Newer servers say it this way only.
      if (type.words.empty()) {
        for (Member& member : Members(entry)) type.words.push_back(std::move(member.name));
      }
    } else if (meta == "array") {
      type.kind = Kind::kArray;
      type.element = TextMember(entry, "element-type");
    } else if (meta == "object") {
      type.kind = Kind::kObject;
      type.members = Members(entry);
      type.tag = TextMember(entry, "tag");
      for (const Json& variant : ListMember(entry, "variants"))
        type.variants[TextMember(variant, "case")] = TextMember(variant, "type");
    }
    types.types_[name] = std::move(type);
  }
  return types;
}

std::vector<std::string> QmpTypes::Commands() const {
  std::vector<std::string> names;
  names.reserve(commands_.size());
  for (const auto& [name, type] : commands_) names.push_back(name);
  return names;
}

const QmpTypes::Type* QmpTypes::Find(std::string_view type) const {
  const auto found = types_.find(type);
  return found == types_.end() ? nullptr : &found->second;
}

std::vector<QmpTypes::Member> QmpTypes::MembersOf(std::string_view name, const Given& given) const {
  const Type* type = Find(name);
  if (type == nullptr) return {};
  std::vector<Member> members = type->members;
  const auto value = given.find(type->tag);
  if (type->tag.empty() || value == given.end()) return members;
  const auto variant = type->variants.find(value->second);
  if (variant == type->variants.end()) return members;
  // Only one step: a variant is a plain object, and a hostile schema shall not send us in circles.
  if (const Type* more = Find(variant->second))
    members.insert(members.end(), more->members.begin(), more->members.end());
  return members;
}

std::vector<QmpTypes::Member> QmpTypes::Arguments(std::string_view command,
                                                  const Given& given) const {
  const auto found = commands_.find(command);
  return found == commands_.end() ? std::vector<Member>() : MembersOf(found->second, given);
}

std::string QmpTypes::TypeOf(std::string_view command, std::string_view key,
                             const Given& given) const {
  std::vector<Member> members = Arguments(command, given);
  for (;;) {
    const std::string_view first = key.substr(0, key.find('.'));
    std::string type;
    for (Member& member : members)
      if (member.name == first) type = std::move(member.type);
    if (type.empty() || first.size() == key.size()) return type;
    key.remove_prefix(first.size() + 1);
    members = MembersOf(type, {});
  }
}

Kind QmpTypes::KindOf(std::string_view type) const {
  const Type* found = Find(type);
  return found == nullptr ? Kind::kUnknown : found->kind;
}

std::vector<std::string> QmpTypes::Values(std::string_view type) const {
  const Type* found = Find(type);
  if (found == nullptr) return {};
  if (found->kind == Kind::kBool) return {"true", "false"};
  return found->words;
}

std::string QmpTypes::ElementType(std::string_view type) const {
  const Type* found = Find(type);
  return found == nullptr ? std::string() : found->element;
}

std::string QmpTypes::Describe(std::string_view type) const {
  return DescribeTo(type, 0);
}

std::string QmpTypes::DescribeTo(std::string_view name, int depth) const {
  const Type* type = Find(name);
  switch (type == nullptr ? Kind::kUnknown : type->kind) {
    case Kind::kString:
      return "string";
    case Kind::kInteger:
      return "integer";
    case Kind::kNumber:
      return "number";
    case Kind::kBool:
      return "true|false";
    case Kind::kObject:
      return "object";
    case Kind::kEnum:
      return fmt::format("{}", fmt::join(type->words, "|"));
    case Kind::kArray:
      return depth > 3 ? "list" : "list of " + DescribeTo(type->element, depth + 1);
    case Kind::kUnknown:
      break;
  }
  return "value";
}

}  // namespace holdfast::apps
