// SPDX-License-Identifier: Apache-2.0
// -incoming and -loadvm: a machine that goes on where a saved one stood, or that comes from another
// monitor.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "apps/options_parse.h"
#include "migration/address.h"
#include "migration/snapshot_path.h"
#include "object/keyval.h"
#include "object/property.h"

namespace holdfast::apps {
namespace {

using object::Property;
using object::PropertyType;

constexpr std::string_view kRemedy =
    "Write defer, tcp:HOST:PORT, unix:PATH, fd:NUMBER or exec:COMMAND for a guest that another "
    "monitor sends, or file:PATH for a snapshot that 'holdfastctl snapshot create' has written.";

constexpr Property<IncomingOptions> kIncomingProperties[] = {
    {{.name = "file", .description = "the snapshot"}, object::SetField<&IncomingOptions::path>},
    {{.name = "prefault",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "read all memory before the guest runs, instead of when it is needed"},
     object::SetField<&IncomingOptions::prefault>},
    {{.name = "bandwidth",
      .type = PropertyType::kSize,
      .default_text = "0",
      .description = "bytes a second that are read in the background; 0: as fast as it goes"},
     object::SetField<&IncomingOptions::bandwidth>},
    {{.name = "new-mac",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "give network cards new addresses: the machine that was saved goes on, too"},
     object::SetField<&IncomingOptions::new_mac>},
};

Status Take(Options& options, IncomingOptions incoming) {
  options.incoming = std::move(incoming);
  options.machine.incoming = true;
  return {};
}

// -incoming as a channel in JSON.
Status ParseIncomingChannel(Options& options, std::string_view argument) {
  const auto channel = nlohmann::json::parse(argument, nullptr, false);
  if (!channel.is_object() || !channel.contains("addr")) {
    return Fail(
        Errc::kInvalidArgument, "this is no channel in JSON",
        R"(Write {"channel-type":"cpr","addr":{"transport":"socket","type":"unix","path":…}}.)");
  }
  HF_TRY(migration::Address address, migration::AddressFromJson(channel["addr"]));
  const auto type = channel.find("channel-type");
  const bool main = type != channel.end() && *type == "main";
  if (!main && (type == channel.end() || *type != "cpr")) {
    return Fail(Errc::kInvalidArgument, "the channel-type of a channel in JSON is main or cpr",
                R"(Write "channel-type":"cpr" for a guest of this host, "main" otherwise.)");
  }
  if (main) {
    const auto* const file = std::get_if<migration::FileAddress>(&address);
    if (file != nullptr) return Take(options, {.path = file->path});
    return Take(options, {.address = std::move(address)});
  }
  const auto* const socket = std::get_if<migration::UnixAddress>(&address);
  if (socket == nullptr) {
    return Fail(Errc::kInvalidArgument, "a channel of the type cpr needs a Unix socket",
                R"(Its addr is {"transport":"socket","type":"unix","path":…}.)");
  }
  options.cpr_path = socket->path;
  options.machine.incoming = true;
  return {};
}

}  // namespace

Status ParseIncoming(Options& options, std::string_view argument) {
  if (argument.starts_with('{')) return ParseIncomingChannel(options, argument);
  constexpr std::string_view kFile = "file:";
  if (argument == "help" || argument == "?") {
    options.print = object::DescribeProperties<IncomingOptions>("incoming", kIncomingProperties);
    return {};
  }
  if (!argument.starts_with(kFile)) {
    IncomingOptions incoming;
    if (argument != "defer") {
      auto address = migration::ParseAddress(argument);
      if (!address)
        return Fail(address.error().code(), address.error().message(), std::string(kRemedy));
      incoming.address = *std::move(address);
    }
    return Take(options, std::move(incoming));
  }
  // A name with a comma has it twice, as everywhere on the command line.
  HF_TRY(const object::KeyValues values,
         object::ParseKeyValues(fmt::format("file={}", argument.substr(kFile.size()))));
  IncomingOptions incoming;
  HF_TRY_STATUS(object::SetProperties<IncomingOptions>(kIncomingProperties, {}, incoming, values));
  if (incoming.path.empty())
    return Fail(Errc::kInvalidArgument, "the name of the snapshot is missing",
                std::string(kRemedy));
  return Take(options, std::move(incoming));
}

Status ParseLoadvm(Options& options, std::string_view argument) {
  if (argument.empty())
    return Fail(Errc::kInvalidArgument, "the name of the snapshot is missing",
                "Write the NAME that savevm was given.");
  return Take(options, {.path = migration::SnapshotPath(argument)});
}

}  // namespace holdfast::apps
