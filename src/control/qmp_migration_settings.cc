// SPDX-License-Identifier: Apache-2.0
// What migrations may do and how: migrate-set-capabilities, migrate-set-parameters and what they
// show. Everything comes from the tables in src/migration.
#include <algorithm>

#include "control/qmp_commands.h"
#include "migration/settings.h"

namespace holdfast::control {
namespace {

using migration::ParameterInfo;
using migration::ParameterType;
using migration::ParameterValue;
using migration::Settings;

const char* SchemaType(ParameterType type) {
  switch (type) {
    case ParameterType::kBool:
      return "bool";
    case ParameterType::kUint8:
      return "uint8";
    case ParameterType::kUint64:
      return "uint64";
    case ParameterType::kSize:
      return "size";
    case ParameterType::kStrings:
      return "[str]";
    case ParameterType::kEnum:
    case ParameterType::kString:
      break;
  }
  return "StrOrNull";
}

std::vector<std::string> Strings(std::span<const std::string_view> words) {
  return {words.begin(), words.end()};
}

// The schema has checked the type.
ParameterValue FromJson(const ParameterInfo& info, const Json& value) {
  switch (info.type) {
    case ParameterType::kBool:
      return value.get<bool>();
    case ParameterType::kUint8:
    case ParameterType::kUint64:
    case ParameterType::kSize:
      return value.get<std::uint64_t>();
    case ParameterType::kEnum: {
      const auto word = std::ranges::find(info.words, value.get<std::string>());
      return static_cast<std::uint64_t>(word - info.words.begin());
    }
    case ParameterType::kStrings:
      return value.get<std::vector<std::string>>();
    case ParameterType::kString:
      break;
  }
  return value.is_null() ? std::string() : value.get<std::string>();
}

Json ToJson(const ParameterInfo& info, const ParameterValue& value) {
  if (info.type == ParameterType::kEnum) return info.words[std::get<std::uint64_t>(value)];
  return std::visit([](const auto& is) { return Json(is); }, value);
}

QmpResult SetParameters(VmContext& vm, const Json& arguments) {
  std::vector<Settings::ParameterChange> changes;
  for (const ParameterInfo& info : migration::ParameterTable()) {
    const auto found = arguments.find(info.name);
    if (found != arguments.end()) changes.push_back({&info, FromJson(info, *found)});
  }
  HF_QMP_TRY_STATUS(vm.migration_settings->SetParameters(changes));
  return Json::object();
}

QmpResult QueryParameters(VmContext& vm, const Json&) {
  Json all = Json::object();
  for (const ParameterInfo& info : migration::ParameterTable()) {
    if (!info.refused.empty()) continue;
    all[std::string(info.name)] = ToJson(info, info.get(vm.migration_settings->parameters()));
  }
  return all;
}

QmpResult SetCapabilities(VmContext& vm, const Json& arguments) {
  std::vector<Settings::CapabilityChange> changes;
  for (const Json& one : arguments["capabilities"]) {
    const auto capability = migration::FindCapability(one["capability"].get<std::string>());
    changes.push_back({*capability, one["state"].get<bool>()});
  }
  HF_QMP_TRY_STATUS(vm.migration_settings->SetCapabilities(changes));
  return Json::object();
}

QmpResult QueryCapabilities(VmContext& vm, const Json&) {
  Json all = Json::array();
  for (const migration::CapabilityInfo& info : migration::CapabilityTable()) {
    all.push_back({{"capability", info.name},
                   {"state", vm.migration_settings->capabilities()[info.capability]}});
  }
  return all;
}

}  // namespace

void DefineMigrationSettings(Schema& schema) {
  schema.Alternate("StrOrNull", {"str", "null"});
  std::vector<Schema::Member> settable;
  std::vector<Schema::Member> shown;
  for (const ParameterInfo& info : migration::ParameterTable()) {
    std::string type = SchemaType(info.type);
    if (info.type == ParameterType::kEnum) {
      type = info.enum_name;
      schema.Enum(type, Strings(info.words));
    }
    // What is refused gets a sentence that says why.
    settable.push_back({std::string(info.name) + '?', type});
    if (info.refused.empty()) shown.push_back(settable.back());
  }
  schema.Struct("MigrateSetParameters", std::move(settable));
  schema.AddCommand("migrate-set-parameters",
                    {.arguments = "MigrateSetParameters", .run = SetParameters});
  schema.Struct("MigrationParameters", std::move(shown));
  schema.AddCommand("query-migrate-parameters",
                    {.result = "MigrationParameters", .run = QueryParameters});

  std::vector<std::string> capabilities;
  for (const migration::CapabilityInfo& info : migration::CapabilityTable())
    capabilities.emplace_back(info.name);
  schema.Enum("MigrationCapability", std::move(capabilities));
  schema.Struct("MigrationCapabilityStatus",
                {{"capability", "MigrationCapability"}, {"state", "bool"}});
  schema.Struct("MigrateSetCapabilities", {{"capabilities", "[MigrationCapabilityStatus]"}});
  schema.AddCommand("migrate-set-capabilities",
                    {.arguments = "MigrateSetCapabilities", .run = SetCapabilities});
  schema.AddCommand("query-migrate-capabilities",
                    {.result = "[MigrationCapabilityStatus]", .run = QueryCapabilities});
}

}  // namespace holdfast::control
