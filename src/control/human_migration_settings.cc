// SPDX-License-Identifier: Apache-2.0
// migrate_set_parameter, migrate_set_capability, info migrate_parameters and migrate_capabilities.
#include <fmt/format.h>

#include <array>
#include <string>

#include "control/context.h"
#include "control/human_commands.h"
#include "control/words.h"
#include "migration/settings.h"

namespace holdfast::control {

using migration::ParameterInfo;
using migration::Settings;

Result<std::string> HumanCommands::MigrateSetParameter(std::string_view arguments) {
  const std::string_view name = TakeWord(arguments);
  const ParameterInfo* const info = migration::FindParameter(name);
  if (info == nullptr) {
    return Fail(Errc::kInvalidArgument, fmt::format("Invalid parameter '{}'", name),
                "'info migrate_parameters' lists them.");
  }
  HF_TRY(migration::ParameterValue value, migration::ParseParameter(*info, arguments));
  const std::array<Settings::ParameterChange, 1> changes = {{{info, std::move(value)}}};
  HF_TRY_STATUS(context_.migration_settings->SetParameters(changes));
  return std::string();
}

Result<std::string> HumanCommands::MigrateSetCapability(std::string_view arguments) {
  const std::string_view name = TakeWord(arguments);
  const auto capability = migration::FindCapability(name);
  if (!capability) {
    return Fail(Errc::kInvalidArgument, fmt::format("Invalid parameter '{}'", name),
                "'info migrate_capabilities' lists them.");
  }
  if (arguments != "on" && arguments != "off") {
    return Fail(Errc::kInvalidArgument, fmt::format("migrate_set_capability {}: on or off?", name),
                "Write migrate_set_capability NAME on, or off.");
  }
  const std::array<Settings::CapabilityChange, 1> changes = {{{*capability, arguments == "on"}}};
  HF_TRY_STATUS(context_.migration_settings->SetCapabilities(changes));
  return std::string();
}

Result<std::string> HumanCommands::InfoMigrateParameters(std::string_view) {
  std::string text;
  for (const ParameterInfo& info : migration::ParameterTable()) {
    if (!info.refused.empty()) continue;
    const auto value = info.get(context_.migration_settings->parameters());
    text += fmt::format("{}: {}\n", info.name, migration::FormatParameter(info, value));
  }
  return text;
}

Result<std::string> HumanCommands::InfoMigrateCapabilities(std::string_view) {
  std::string text;
  for (const migration::CapabilityInfo& info : migration::CapabilityTable()) {
    const bool on = context_.migration_settings->capabilities()[info.capability];
    text += fmt::format("{}: {}\n", info.name, on ? "on" : "off");
  }
  return text;
}

}  // namespace holdfast::control
