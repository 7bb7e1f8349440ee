// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include <holdfast/error.h>

namespace holdfast::object {

/// One `key=value` of an option's argument.
struct KeyValue {
  std::string key = {};
  std::string value = {};
  bool bare = false;     ///< the key stood alone, value is "on"
  bool implied = false;  ///< the value stood alone, the key is the option's implied one
};
using KeyValues = std::vector<KeyValue>;

/// Splits QEMU's `key=value,key=value`. A comma inside a value is written twice. A first part
/// without `=` is the value of `implied_key`, where there is one; any other part without `=` is a
/// flag that is on. A comma at the end is allowed. A key may come several times; order is kept.
/// @return kInvalidArgument for a part without a key.
Result<KeyValues> ParseKeyValues(std::string_view text, std::string_view implied_key = {});

/// Reads the JSON form, `{"qom-type": "…", "size": 4096}`, into the same list: true and false
/// become on and off. @return kInvalidArgument for text that is not one flat JSON object.
Result<KeyValues> ParseJsonKeyValues(std::string_view text);

/// Reads text that must be one JSON object, and nothing else.
Result<nlohmann::json> ParseJsonObject(std::string_view text);

/// Whether a part asks for help: `help` or `?`.
bool WantsHelp(const KeyValues& values) noexcept;

/// The last value given for `key`, or nullptr.
const std::string* FindValue(const KeyValues& values, std::string_view key) noexcept;

/// Whether `id` is well formed: a letter, then letters, digits, '-', '.', '_'.
bool IsWellFormedId(std::string_view id) noexcept;

}  // namespace holdfast::object
