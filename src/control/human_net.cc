// SPDX-License-Identifier: Apache-2.0
// Networks: info network, info usernet, hostfwd_add, hostfwd_remove, set_link, netdev_add,
// netdev_del, announce_self.
#include <fmt/format.h>

#include "control/context.h"
#include "control/human_commands.h"
#include "control/words.h"
#include "devices/net/network.h"
#include "devices/net/user_backend.h"
#include "migration/announce.h"
#include "migration/settings.h"

namespace holdfast::control {
namespace {

using devices::net::UserBackend;

// "[netdev_id] rule": the rule is the last word.
std::string_view TakeId(std::string_view& arguments) {
  std::string_view rest = arguments;
  const std::string_view first = TakeWord(rest);
  if (rest.empty()) return {};
  arguments = rest;
  return first;
}

}  // namespace

Result<std::string> HumanCommands::InfoNetwork(std::string_view) {
  return context_.network->Describe();
}

Result<std::string> HumanCommands::InfoUsernet(std::string_view) {
  std::string text;
  for (const devices::net::Network::Entry& entry : context_.network->backends()) {
    const auto* const user = dynamic_cast<const UserBackend*>(entry.backend.get());
    if (user == nullptr) continue;
    // -1: it is on no hub, and never is.
    text += fmt::format("Hub -1 ({}):\n{}", user->id(), user->ConnectionInfo());
  }
  return text;
}

Result<std::string> HumanCommands::HostForwardAdd(std::string_view arguments) {
  const std::string_view id = TakeId(arguments);
  HF_TRY(const devices::net::HostForward rule, devices::net::ParseHostForward(arguments));
  HF_TRY(UserBackend* const user, context_.network->FindUser(id));
  HF_TRY_STATUS(user->AddForward(rule));
  return std::string();
}

Result<std::string> HumanCommands::HostForwardRemove(std::string_view arguments) {
  const std::string_view id = TakeId(arguments);
  HF_TRY(const devices::net::HostForward rule, devices::net::ParseHostForwardName(arguments));
  HF_TRY(UserBackend* const user, context_.network->FindUser(id));
  return fmt::format("host forwarding rule for {} {}\n", arguments,
                     user->RemoveForward(rule) ? "removed" : "not found");
}

Result<std::string> HumanCommands::SetLink(std::string_view arguments) {
  const std::string_view name = TakeWord(arguments);
  if (name.empty() || (arguments != "on" && arguments != "off")) {
    return Fail(Errc::kInvalidArgument, "set_link expects a name, and 'on' or 'off'",
                "'info network' shows the names.");
  }
  devices::net::Nic* const nic = context_.network->FindNic(name);
  if (nic == nullptr) {
    return Fail(Errc::kNotFound, fmt::format("Device '{}' not found", name),
                "'info network' shows the names.");
  }
  nic->SetLink(arguments == "on");
  return std::string();
}

Result<std::string> HumanCommands::NetdevAdd(std::string_view arguments) {
  HF_TRY(const object::KeyValues values, object::ParseKeyValues(arguments, "type"));
  HF_TRY(const devices::net::NetdevConfig config, devices::net::ParseNetdev(values));
  HF_TRY_STATUS(context_.network->Add(config));
  return std::string();
}

Result<std::string> HumanCommands::NetdevDel(std::string_view arguments) {
  HF_TRY_STATUS(context_.network->Remove(arguments));
  return std::string();
}

Result<std::string> HumanCommands::AnnounceSelf(std::string_view arguments) {
  auto times = migration::AnnounceTimesOf(context_.migration_settings->parameters());
  // Names with commas between.
  std::string_view names = TakeWord(arguments);
  while (!names.empty()) {
    const std::size_t end = names.find(',');
    if (end != 0) times.cards.emplace_back(names.substr(0, end));
    names.remove_prefix(end == std::string_view::npos ? names.size() : end + 1);
  }
  times.id = arguments;
  HF_TRY_STATUS(context_.network->Announce(std::move(times)));
  return std::string();
}

}  // namespace holdfast::control
