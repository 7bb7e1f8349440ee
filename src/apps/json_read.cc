// SPDX-License-Identifier: Apache-2.0
#include "apps/json_read.h"

#include <nlohmann/json.hpp>

#include "apps/qmp_client.h"

namespace holdfast::apps {

using Json = nlohmann::ordered_json;

const Json* FindMember(const Json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(name);
  return found == object.end() ? nullptr : &*found;
}

std::string TextMember(const Json& object, const char* name) {
  const Json* found = FindMember(object, name);
  return found != nullptr && found->is_string() ? Printable(found->get<std::string>())
                                                : std::string();
}

std::optional<std::uint64_t> CountMember(const Json& object, const char* name) {
  const Json* found = FindMember(object, name);
  if (found == nullptr || !found->is_number_unsigned()) return std::nullopt;
  return found->get<std::uint64_t>();
}

std::optional<bool> FlagMember(const Json& object, const char* name) {
  const Json* found = FindMember(object, name);
  if (found == nullptr || !found->is_boolean()) return std::nullopt;
  return found->get<bool>();
}

const Json& AsList(const Json& value) {
  static const Json kNone = Json::array();
  return value.is_array() ? value : kNone;
}

const Json& ListMember(const Json& object, const char* name) {
  static const Json kNone = Json::array();
  const Json* found = FindMember(object, name);
  return found == nullptr ? kNone : AsList(*found);
}

}  // namespace holdfast::apps
