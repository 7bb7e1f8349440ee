// SPDX-License-Identifier: Apache-2.0
// The JSON form of -netdev and of netdev_add.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "devices/net/netdev_config.h"

namespace holdfast::devices::net {
namespace {

constexpr unsigned kDeepest = 3;  // {"addr": {…}} is two deep, a list of objects three

Status Add(const std::string& key, const nlohmann::json& value, unsigned depth,
           object::KeyValues& values) {
  if (value.is_boolean()) {
    values.push_back({.key = key, .value = value.get<bool>() ? "on" : "off"});
  } else if (value.is_string()) {
    values.push_back({.key = key, .value = value.get<std::string>()});
  } else if (value.is_number_integer()) {
    values.push_back({.key = key, .value = value.dump()});
  } else if (value.is_object() && depth < kDeepest) {
    for (const auto& [name, member] : value.items()) {
      HF_TRY_STATUS(Add(fmt::format("{}.{}", key, name), member, depth + 1, values));
    }
  } else if (value.is_array() && depth < kDeepest) {
    // QEMU's lists of words: ["a"] or [{"str": "a"}], which on the command line is key=a,key=b.
    for (const nlohmann::json& element : value) {
      const bool wrapped = element.is_object() && element.size() == 1 && element.contains("str");
      HF_TRY_STATUS(Add(key, wrapped ? element["str"] : element, depth + 1, values));
    }
  } else {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Invalid parameter type for '{}', expected: string, integer, boolean, "
                            "object or list",
                            key),
                "Null and fractions mean nothing here; leave the member out.");
  }
  return {};
}

}  // namespace

Result<object::KeyValues> NetdevValues(const nlohmann::json& object) {
  object::KeyValues values;
  for (const auto& [key, value] : object.items()) HF_TRY_STATUS(Add(key, value, 1, values));
  return values;
}

}  // namespace holdfast::devices::net
