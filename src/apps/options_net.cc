// SPDX-License-Identifier: Apache-2.0
// -netdev, -nic and -net.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "apps/options_parse.h"
#include "devices/device_request.h"
#include "object/property.h"

namespace holdfast::apps {
namespace {

using devices::net::NetdevConfig;
using object::KeyValue;
using object::KeyValues;

constexpr std::string_view kCard = "virtio-net-pci";

std::string TypesHelp() {
  std::string text = "Available netdev backend types:\n";
  for (const std::string_view type : devices::net::NetdevTypes()) {
    text += fmt::format("{}\n", type);
  }
  return text;
}

// Whether the argument asks for help, which is then what is printed.
bool PrintsHelp(Options& options, const KeyValues& values) {
  if (values.empty()) return false;
  if (values[0].implied && (values[0].value == "help" || values[0].value == "?")) {
    options.print = TypesHelp();
    return true;
  }
  const std::string* const type = object::FindValue(values, "type");
  if (type == nullptr || !object::WantsHelp(values)) return false;
  std::string text = fmt::format("{} options:\n", *type);
  for (const object::PropertyInfo& property : devices::net::NetdevProperties(*type)) {
    text += object::DescribeProperty(property);
  }
  options.print = std::move(text);
  return true;
}

// Takes the last value of `key` out of the list.
std::optional<std::string> Take(KeyValues& values, std::string_view key) {
  std::optional<std::string> found;
  std::erase_if(values, [&](const KeyValue& entry) {
    if (entry.key != key) return false;
    found = entry.value;
    return true;
  });
  return found;
}

// Takes what belongs to the card out of `values` and makes its words of it.
Result<KeyValues> TakeCard(KeyValues& values) {
  KeyValues card;
  const std::string model = Take(values, "model").value_or(std::string(kCard));
  if (model != kCard && model != "virtio" && model != "virtio-net") {
    return Fail(
        Errc::kUnsupported,
        fmt::format("QEMU may have the network card '{}', Holdfast does not have it", model),
        fmt::format("Write model={}, or leave it out.", kCard));
  }
  // -net says macaddr.
  for (const std::string_view key : {"mac", "macaddr"}) {
    if (auto mac = Take(values, key)) card.push_back({.key = "mac", .value = *std::move(mac)});
  }
  for (const std::string_view key : {"addr", "vectors"}) {
    if (auto word = Take(values, key)) {
      card.push_back({.key = std::string(key), .value = *std::move(word)});
    }
  }
  return card;
}

Result<NetdevConfig> ReadHidden(KeyValues values, std::string id) {
  // Those of QEMU have ids that users cannot write.
  const bool named = object::FindValue(values, "id") != nullptr;
  if (!named) values.push_back({.key = "id", .value = "hidden"});
  HF_TRY(NetdevConfig config, devices::net::ParseNetdev(values));
  if (!named) config.id = std::move(id);
  return config;
}

Status AddCard(Options& options, const NicRequest& nic) {
  const devices::DeviceModel* const model = devices::FindDeviceModel(kCard);
  auto request = devices::ParseDeviceRequest(*model, nic.values);
  if (!request) return Fail(std::move(request).error().Wrap(nic.option));
  options.machine.devices.push_back(*std::move(request));
  return {};
}

// A card and a back end of -net belong together; QEMU puts more of them onto a hub.
Status JoinOld(Options& options) {
  NetOptions& net = options.net;
  if (net.old_nics.size() > 1 || net.old_netdevs.size() > 1) {
    return Fail(Errc::kUnsupported, "QEMU joins several -net by a hub, Holdfast has no such hub",
                "Write a -netdev and a -device virtio-net-pci,netdev=ID for each card.");
  }
  for (NicRequest& nic : net.old_nics) {
    if (!net.old_netdevs.empty() && object::FindValue(nic.values, "netdev") == nullptr) {
      nic.values.push_back({.key = "netdev", .value = net.old_netdevs[0].config.id});
    }
    net.nics.push_back(std::move(nic));
  }
  for (NetdevRequest& netdev : net.old_netdevs) net.netdevs.push_back(std::move(netdev));
  return {};
}

}  // namespace

Status ParseNetdev(Options& options, std::string_view argument) {
  KeyValues values;
  if (argument.starts_with('{')) {
    HF_TRY(const nlohmann::json json, object::ParseJsonObject(argument));
    HF_TRY(values, devices::net::NetdevValues(json));
  } else {
    HF_TRY(values, object::ParseKeyValues(argument, "type"));
  }
  if (PrintsHelp(options, values)) return {};
  HF_TRY(NetdevConfig config, devices::net::ParseNetdev(values));
  options.net.netdevs.push_back({fmt::format("-netdev {}", argument), std::move(config)});
  return {};
}

Status ParseNic(Options& options, std::string_view argument) {
  if (argument == "none") return {};
  HF_TRY(KeyValues values, object::ParseKeyValues(argument, "type"));
  if (PrintsHelp(options, values)) return {};
  NicRequest nic{fmt::format("-nic {}", argument), {}};
  HF_TRY(nic.values, TakeCard(values));
  HF_TRY(NetdevConfig config,
         ReadHidden(std::move(values), fmt::format("__org.qemu.nic{}", options.net.nics.size())));
  nic.values.push_back({.key = "netdev", .value = config.id});
  options.net.netdevs.push_back({nic.option, std::move(config)});
  options.net.nics.push_back(std::move(nic));
  return {};
}

Status ParseNet(Options& options, std::string_view argument) {
  if (argument == "none") return {};
  HF_TRY(KeyValues values, object::ParseKeyValues(argument, "type"));
  if (PrintsHelp(options, values)) return {};
  const std::string* const type = object::FindValue(values, "type");
  const std::string option = fmt::format("-net {}", argument);
  if (type == nullptr || *type != "nic") {
    HF_TRY(NetdevConfig config, ReadHidden(std::move(values), "__org.qemu.net0"));
    options.net.old_netdevs.push_back({option, std::move(config)});
    return {};
  }
  NicRequest nic{option, {}};
  HF_TRY(nic.values, TakeCard(values));
  static_cast<void>(Take(values, "type"));
  nic.values.insert(nic.values.end(), values.begin(), values.end());
  options.net.old_nics.push_back(std::move(nic));
  return {};
}

Status FinishNet(Options& options) {
  HF_TRY_STATUS(JoinOld(options));
  const std::vector<NetdevRequest>& netdevs = options.net.netdevs;
  for (auto it = netdevs.begin(); it != netdevs.end(); ++it) {
    const bool again = std::any_of(netdevs.begin(), it, [&](const NetdevRequest& other) {
      return other.config.id == it->config.id;
    });
    if (!again) continue;
    return Fail(Errc::kInvalidArgument,
                fmt::format("{}: Duplicate ID '{}' for netdev", it->option, it->config.id),
                "Give each network back end an id of its own.");
  }
  for (const NicRequest& nic : options.net.nics) HF_TRY_STATUS(AddCard(options, nic));
  return {};
}

}  // namespace holdfast::apps
