// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "object/keyval.h"

namespace holdfast::object {

Result<nlohmann::json> ParseJsonObject(std::string_view text) {
  auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object()) {
    return Fail(Errc::kInvalidArgument, "JSON parse error, the argument is not a JSON object",
                "Write {\"qom-type\": \"TYPE\", \"id\": \"ID\", ...} or TYPE,id=ID,...");
  }
  return json;
}

Result<KeyValues> ParseJsonKeyValues(std::string_view text) {
  HF_TRY(const nlohmann::json json, ParseJsonObject(text));
  KeyValues values;
  for (const auto& [key, value] : json.items()) {
    std::string word;
    if (value.is_boolean()) {
      word = value.get<bool>() ? "on" : "off";
    } else if (value.is_string()) {
      word = value.get<std::string>();
    } else if (value.is_number_integer()) {
      word = value.dump();
    } else {
      return Fail(Errc::kInvalidArgument,
                  fmt::format("Invalid parameter type for '{}', expected: string, integer or "
                              "boolean",
                              key));
    }
    values.push_back({.key = key, .value = std::move(word)});
  }
  return values;
}

}  // namespace holdfast::object
