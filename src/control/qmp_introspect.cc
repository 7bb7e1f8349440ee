// SPDX-License-Identifier: Apache-2.0
// `query-qmp-schema`: the schema as clients see it.
#include <fmt/format.h>

#include <set>

#include "control/qmp_schema.h"

namespace holdfast::control {

// All integers are one type to clients: their ranges are not part of the interface.
std::string Schema::PublicName(std::string_view name) const {
  if (name.starts_with('[')) {
    return fmt::format("[{}]", PublicName(name.substr(1, name.size() - 2)));
  }
  const Type* const type = Find(name);
  return type != nullptr && type->kind == Type::Kind::kInteger ? "int" : std::string(name);
}

Json Schema::Introspect() const {
  Json list = Json::array();
  std::vector<std::string> open;  // types still to be described
  std::set<std::string> seen;
  for (const auto& [name, command] : commands_) {
    Json info = {{"name", name},
                 {"meta-type", "command"},
                 {"arg-type", PublicName(command.arguments)},
                 {"ret-type", PublicName(command.result)}};
    if (command.allow_oob) info["allow-oob"] = true;
    list.push_back(std::move(info));
    open.push_back(PublicName(command.arguments));
    open.push_back(PublicName(command.result));
  }
  for (const auto& [name, data] : events_) {
    list.push_back({{"name", name}, {"meta-type", "event"}, {"arg-type", PublicName(data)}});
    open.push_back(PublicName(data));
  }
  while (!open.empty()) {
    const std::string name = std::move(open.back());
    open.pop_back();
    if (!seen.insert(name).second) continue;
    if (name.starts_with('[')) {
      open.push_back(name.substr(1, name.size() - 2));
      list.push_back({{"name", name}, {"meta-type", "array"}, {"element-type", open.back()}});
    } else if (const Type* const type = Find(name); type != nullptr) {
      list.push_back(Describe(*type, open));
    }
  }
  return list;
}

// Describes one type and adds the types it uses to `used`.
Json Schema::Describe(const Type& type, std::vector<std::string>& used) const {
  Json info = {{"name", type.name}};
  const auto builtin = [&](std::string_view json_type) {
    info["meta-type"] = "builtin";
    info["json-type"] = json_type;
  };
  const auto use = [&](std::string_view name) {
    used.push_back(PublicName(name));
    return used.back();
  };
  using enum Type::Kind;
  switch (type.kind) {
    case kString:
      builtin("string");
      break;
    case kInteger:
      builtin("int");
      break;
    case kNumber:
      builtin("number");
      break;
    case kBool:
      builtin("boolean");
      break;
    case kNull:
      builtin("null");
      break;
    case kAny:
      builtin("value");
      break;
    case kEnum:
      info["meta-type"] = "enum";
      info["values"] = type.words;
      info["members"] = Json::array();
      for (const std::string& word : type.words) info["members"].push_back({{"name", word}});
      break;
    case kAlternate:
      info["meta-type"] = "alternate";
      info["members"] = Json::array();
      for (const std::string& word : type.words) info["members"].push_back({{"type", use(word)}});
      break;
    case kObject:
      info["meta-type"] = "object";
      info["members"] = Json::array();
      for (const Member& member : type.members) {
        Json one = {{"name", Type::NameOf(member)}, {"type", use(member.type)}};
        // QEMU's way to say "optional": a default that is null, since no member's default is known.
        if (Type::Optional(member)) one["default"] = nullptr;
        info["members"].push_back(std::move(one));
      }
      if (type.tag.empty()) break;
      info["tag"] = type.tag;
      info["variants"] = Json::array();
      // Every value of the tag has a case, if only the empty one.
      for (const Member& member : type.members) {
        if (Type::NameOf(member) != type.tag) continue;
        for (const std::string& word : Find(member.type)->words) {
          std::string_view variant = kEmptyObject;
          for (const Case& one : type.cases) {
            if (one.value == word) variant = one.type;
          }
          info["variants"].push_back({{"case", word}, {"type", use(variant)}});
        }
      }
      break;
  }
  return info;
}

}  // namespace holdfast::control
