// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <nlohmann/json_fwd.hpp>

// Members of JSON that a server has sent: what is absent or of another type reads as absent.
namespace holdfast::apps {

/// The member `name` of an object, or null.
const nlohmann::ordered_json* FindMember(const nlohmann::ordered_json& object, const char* name);
/// A string, printable (qmp_client.h); empty if there is none.
std::string TextMember(const nlohmann::ordered_json& object, const char* name);
/// A number from 0 to 2^64 - 1.
std::optional<std::uint64_t> CountMember(const nlohmann::ordered_json& object, const char* name);
std::optional<bool> FlagMember(const nlohmann::ordered_json& object, const char* name);
/// An array; an empty one if there is none.
const nlohmann::ordered_json& ListMember(const nlohmann::ordered_json& object, const char* name);
/// `value` as a list to go through: an empty one if it is no array.
const nlohmann::ordered_json& AsList(const nlohmann::ordered_json& value);

}  // namespace holdfast::apps
