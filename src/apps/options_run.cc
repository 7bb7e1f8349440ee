// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "apps/help.h"
#include "apps/options_parse.h"
#include "base/log.h"
#include "base/trace.h"
#include "object/property.h"
#include "object/suggest.h"

namespace holdfast::apps {
namespace {

using object::KeyValues;
using object::Property;
using object::PropertyType;
using object::PropertyValue;

constexpr std::array<std::string_view, 2> kRebootActions = {"reset", "shutdown"};
constexpr std::array<std::string_view, 2> kShutdownActions = {"poweroff", "pause"};

Status SetReboot(Options& options, const PropertyValue& value) {
  options.machine.no_reboot = std::get<std::uint64_t>(value) == 1;
  return {};
}
Status SetShutdown(Options& options, const PropertyValue& value) {
  options.machine.no_shutdown = std::get<std::uint64_t>(value) == 1;
  return {};
}

Status SetPanic(Options& options, const PropertyValue& value) {
  options.machine.panic = static_cast<machine::PanicPolicy>(std::get<std::uint64_t>(value));
  return {};
}
Status SetWatchdog(Options& options, const PropertyValue& value) {
  options.machine.watchdog = static_cast<machine::WatchdogAction>(std::get<std::uint64_t>(value));
  return {};
}

constexpr Property<Options> kActionProperties[] = {
    {{.name = "reboot",
      .type = PropertyType::kEnum,
      .default_text = "reset",
      .description = "when the guest reboots; shutdown is -no-reboot",
      .choices = kRebootActions},
     SetReboot},
    {{.name = "shutdown",
      .type = PropertyType::kEnum,
      .default_text = "poweroff",
      .description = "when the guest powers off; pause is -no-shutdown",
      .choices = kShutdownActions},
     SetShutdown},
    {{.name = "panic",
      .type = PropertyType::kEnum,
      .default_text = "shutdown",
      .description = "when the guest reports a panic",
      .choices = machine::kPanicPolicyNames},
     SetPanic},
    {{.name = "watchdog",
      .type = PropertyType::kEnum,
      .default_text = "reset",
      .description = "when a watchdog runs out",
      .choices = machine::kWatchdogActionNames},
     SetWatchdog},
};

Status IgnoreDebugThreads(Options&, const PropertyValue&) {
  return {};  // threads always have names
}
constexpr Property<Options> kNameProperties[] = {
    {{.name = "guest", .description = "the guest's name"}, object::SetField<&Options::guest_name>},
    {{.name = "process", .description = "the process's name in ps and top"},
     object::SetField<&Options::process_name>},
    {{.name = "debug-threads",
      .type = PropertyType::kBool,
      .description = "name the threads; they always have names"},
     IgnoreDebugThreads},
};

constexpr Property<Options> kMsgProperties[] = {
    {{.name = "timestamp",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "put the time in front of messages"},
     object::SetField<&Options::timestamps>},
    {{.name = "guest-name",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "put the guest's name in front of messages"},
     object::SetField<&Options::guest_name_in_messages>},
};

constexpr Property<TraceRequest> kTraceProperties[] = {
    {{.name = "enable", .description = "an event's name, with * and ? for any characters"},
     object::SetField<&TraceRequest::pattern>},
    {{.name = "events", .description = "a file with such a name on each line"},
     object::SetField<&TraceRequest::events_file>},
    {{.name = "file", .description = "where the log goes, instead of stderr"},
     object::SetField<&TraceRequest::file>},
};

// Log items of QEMU that only its TCG accelerator or devices we lack have something to say about.
constexpr std::array<std::string_view, 18> kQemuLogItems = {
    "out_asm", "in_asm", "op",    "op_opt",    "op_ind", "op_plugin", "int",    "exec",   "cpu",
    "fpu",     "mmu",    "pcall", "cpu_reset", "page",   "nochain",   "plugin", "strace", "tid"};

std::string TraceHelp() {
  std::string text;
  for (const trace::Event* event : trace::Events()) text += fmt::format("{}\n", event->name());
  return text;
}

std::string LogItemHelp() {
  std::string text = "Log items (comma separated):\n";
  for (const log::ItemInfo& item : log::Items()) {
    text += fmt::format("{:<15} {}\n", item.name, item.description);
  }
  return text +
         "trace:PATTERN   enable trace events\n\n"
         "Use \"-d trace:help\" to get a list of trace events.\n";
}

Status ParseLogItem(Options& options, std::string_view word) {
  constexpr std::string_view kTracePrefix = "trace:";
  if (word.starts_with(kTracePrefix)) {
    const std::string pattern(word.substr(kTracePrefix.size()));
    if (pattern == "help") {
      options.print = TraceHelp();
    } else {
      options.traces.push_back({.pattern = pattern, .events_file = {}, .file = {}});
    }
    return {};
  }
  std::vector<std::string_view> names;
  for (const log::ItemInfo& item : log::Items()) {
    if (word == item.name || word == "all") {
      options.log_items |= static_cast<std::uint32_t>(item.item);
      if (word != "all") return {};
    }
    names.push_back(item.name);
  }
  if (word == "all") return {};
  if (std::find(kQemuLogItems.begin(), kQemuLogItems.end(), word) != kQemuLogItems.end()) {
    return Fail(Errc::kUnsupported,
                fmt::format("QEMU has the log item '{}', Holdfast does not have it", word),
                "-d help lists the items there are; -trace help the events.");
  }
  const std::string_view nearest = object::Nearest(word, names);
  return Fail(Errc::kInvalidArgument, fmt::format("invalid log item '{}'", word),
              nearest.empty() ? "-d help lists the items there are."
                              : fmt::format("Did you mean '{}'?", nearest));
}

}  // namespace

Status ParseAction(Options& options, std::string_view argument) {
  HF_TRY(const KeyValues values, object::ParseKeyValues(argument));
  if (object::WantsHelp(values)) {
    options.print = object::DescribeProperties<Options>("action", kActionProperties);
    return {};
  }
  return object::SetProperties<Options>(kActionProperties, {}, options, values);
}

Status ParseWatchdogAction(Options& options, std::string_view argument) {
  return object::SetProperties<Options>(kActionProperties, {}, options,
                                        {{.key = "watchdog", .value = std::string(argument)}});
}

Status ParseName(Options& options, std::string_view argument) {
  HF_TRY(const KeyValues values, object::ParseKeyValues(argument, "guest"));
  return object::SetProperties<Options>(kNameProperties, {}, options, values);
}

Result<std::string> ReadUuid(std::string_view argument) {
  constexpr std::string_view kForm = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
  bool good = argument.size() == kForm.size();
  for (std::size_t i = 0; good && i < kForm.size(); ++i) {
    const std::string_view allowed = kForm[i] == '-' ? "-" : "0123456789abcdefABCDEF";
    good = allowed.find(argument[i]) != std::string_view::npos;
  }
  if (!good) {
    return Fail(Errc::kInvalidArgument, "failed to parse UUID string: wrong format",
                fmt::format("Its form is {}, each x a hexadecimal digit.", kForm));
  }
  std::string uuid(argument);
  std::transform(uuid.begin(), uuid.end(), uuid.begin(), [](char c) {
    return c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return uuid;
}

Status ParseUuid(Options& options, std::string_view argument) {
  HF_TRY(options.uuid, ReadUuid(argument));
  options.machine.smbios.system.uuid = options.uuid;
  return {};
}

Status ParseMsg(Options& options, std::string_view argument) {
  HF_TRY(const KeyValues values, object::ParseKeyValues(argument));
  if (object::WantsHelp(values)) {
    options.print = object::DescribeProperties<Options>("msg", kMsgProperties);
    return {};
  }
  for (const object::KeyValue& entry : values) {
    HF_TRY_STATUS(object::SetProperty<Options>(kMsgProperties, {}, options, entry));
    if (entry.bare) {
      options.warnings.push_back(
          fmt::format("-msg {}: short-form boolean option '{}' deprecated. Please use {}=on "
                      "instead",
                      argument, entry.key, entry.key));
    }
  }
  return {};
}

Status ParseLogItems(Options& options, std::string_view argument) {
  if (argument == "help" || argument == "?") {
    options.print = LogItemHelp();
    return {};
  }
  while (!argument.empty()) {
    const std::size_t end = std::min(argument.find(','), argument.size());
    HF_TRY_STATUS(ParseLogItem(options, argument.substr(0, end)));
    argument.remove_prefix(std::min(argument.size(), end + 1));
  }
  return {};
}

Status ParseTrace(Options& options, std::string_view argument) {
  HF_TRY(const KeyValues values, object::ParseKeyValues(argument, "enable"));
  if (object::WantsHelp(values)) {
    options.print = TraceHelp();
    return {};
  }
  TraceRequest request;
  HF_TRY_STATUS(object::SetProperties<TraceRequest>(kTraceProperties, {}, request, values));
  options.traces.push_back(std::move(request));
  return {};
}

Status ParseHelp(Options& options, std::string_view) {
  options.print = FormatHelp(HoldfastHelp());
  return {};
}

Status ParseVersion(Options& options, std::string_view) {
  options.print = fmt::format("Holdfast version {}\n", kVersion);
  return {};
}

}  // namespace holdfast::apps
