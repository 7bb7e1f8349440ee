// SPDX-License-Identifier: Apache-2.0
#include "devices/net/tap_config.h"

#include <fmt/format.h>

#include <iterator>
#include <optional>
#include <string>
#include <utility>

#include "devices/net/netdev_words.h"

namespace holdfast::devices::net {
namespace {

using object::Property;
using object::PropertyType;
using object::PropertyValue;

constexpr std::string_view kDefaultScript = "/etc/qemu-ifup";
constexpr std::string_view kDefaultDownScript = "/etc/qemu-ifdown";
constexpr unsigned kMostQueues = 16;

struct TapWords {
  TapConfig config;
  std::optional<std::string> script, down_script;
  std::optional<std::uint64_t> queues;
  std::optional<bool> vhost;
  bool headers = true;
};
Status SetScript(TapWords& words, const PropertyValue& value) {
  words.script = std::get<std::string>(value);
  return {};
}
Status SetDownScript(TapWords& words, const PropertyValue& value) {
  words.down_script = std::get<std::string>(value);
  return {};
}
Status SetQueues(TapWords& words, const PropertyValue& value) {
  words.queues = std::get<std::uint64_t>(value);
  return {};
}
Status SetName(TapWords& words, const PropertyValue& value) {
  words.config.name = std::get<std::string>(value);
  return {};
}
Status SetVhost(TapWords& words, const PropertyValue& value) {
  words.vhost = std::get<bool>(value);
  return {};
}
Status ReadFds(std::string_view name, const PropertyValue& value, std::vector<int>& fds) {
  std::string_view rest = std::get<std::string>(value);
  while (!rest.empty()) {
    const std::size_t colon = rest.find(':');
    HF_TRY(const int fd, ReadFd(name, rest.substr(0, colon)));
    fds.push_back(fd);
    rest = colon == std::string_view::npos ? std::string_view() : rest.substr(colon + 1);
  }
  return {};
}
Status AddFds(TapWords& words, const PropertyValue& value) {
  return ReadFds("fds", value, words.config.fds);
}
Status AddVhostFds(TapWords& words, const PropertyValue& value) {
  return ReadFds("vhostfds", value, words.config.vhost_fds);
}

constexpr Property<TapWords> kTap[] = {
    {Info("ifname", PropertyType::kString, "", "the interface's name; the kernel chooses"),
     SetName},
    {Info("fd", PropertyType::kString, "", "number of an open tap"), AddFds},
    {Info("fds", PropertyType::kString, "", "several, x:y:..., a queue each"), AddFds},
    {{.name = "queues",
      .type = PropertyType::kUint,
      .default_text = "1",
      .description = "number of queues",
      .max = kMostQueues},
     SetQueues},
    {Info("script", PropertyType::kString, kDefaultScript,
          "run with the interface's name once it is there; no: nothing is run"),
     SetScript},
    {Info("downscript", PropertyType::kString, kDefaultDownScript,
          "run before the interface goes; no: nothing is run"),
     SetDownScript},
    {Info("vnet_hdr", PropertyType::kBool, "on", "offloads travel with the frames"),
     object::SetField<&TapWords::headers>},
    {Info("vhost", PropertyType::kBool, "off", "the kernel carries the frames (/dev/vhost-net)"),
     SetVhost},
    {Info("vhostfd", PropertyType::kString, "", "number of an open /dev/vhost-net"), AddVhostFds},
    {Info("vhostfds", PropertyType::kString, "", "several, x:y:..., a queue each"), AddVhostFds},
    {Info("vhostforce", PropertyType::kBool, "off", "the same as vhost"), SetVhost},
};
constexpr std::string_view kTapQemuOnly[] = {"br", "helper", "sndbuf", "poll-us"};

// A script nobody asked for is QEMU's, and may be missing.
std::string ScriptOrDefault(const std::optional<std::string>& word, std::string_view standard) {
  if (word) return *word == "no" ? std::string() : *word;
  return std::string(standard);
}

}  // namespace

Result<TapConfig> ParseTapConfig(const object::KeyValues& values) {
  TapWords words;
  HF_TRY_STATUS(object::SetProperties<TapWords>(kTap, kTapQemuOnly, words, values));
  if (!words.headers) {
    return Fail(Errc::kUnsupported, "vnet_hdr=off is not supported", "Leave it out.");
  }
  TapConfig& tap = words.config;
  if (!tap.fds.empty() &&
      (!tap.name.empty() || words.script || words.down_script || words.queues)) {
    return Fail(Errc::kInvalidArgument,
                "ifname=, script=, downscript= and queues= are invalid with fd= and fds=",
                "Leave them out: whoever opened the tap has settled that.");
  }
  if (tap.fds.size() > kMostQueues || words.queues == 0U) {
    return Fail(Errc::kInvalidArgument, "the number of queues is out of range",
                fmt::format("A tap has 1 to {} queues.", kMostQueues));
  }
  tap.queues = static_cast<unsigned>(words.queues.value_or(1));
  tap.vhost = words.vhost.value_or(!tap.vhost_fds.empty());
  const std::size_t queues = tap.fds.empty() ? tap.queues : tap.fds.size();
  if (!tap.vhost_fds.empty() && !tap.vhost) {
    return Fail(Errc::kInvalidArgument, "vhostfd= and vhostfds= are not valid without vhost=on",
                "Leave vhost=off out, or the descriptors.");
  }
  if (!tap.vhost_fds.empty() && tap.vhost_fds.size() != queues) {
    return Fail(
        Errc::kInvalidArgument,
        fmt::format("vhostfds= names {} descriptors for {} queues", tap.vhost_fds.size(), queues),
        "Give one for each queue.");
  }
  if (tap.fds.empty()) {
    tap.script = ScriptOrDefault(words.script, kDefaultScript);
    tap.down_script = ScriptOrDefault(words.down_script, kDefaultDownScript);
    tap.script_optional = !words.script;
    tap.down_script_optional = !words.down_script;
  }
  return std::move(tap);
}

std::vector<object::PropertyInfo> TapProperties() {
  return {std::begin(kTap), std::end(kTap)};
}

}  // namespace holdfast::devices::net
