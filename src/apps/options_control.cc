// SPDX-License-Identifier: Apache-2.0
// -chardev, -mon, -qmp and -qmp-pretty: who talks to the monitors, and how.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "apps/options_parse.h"
#include "object/keyval.h"
#include "object/property.h"
#include "object/suggest.h"

namespace holdfast::apps {
namespace {

using object::KeyValue;
using object::KeyValues;
using object::Property;
using object::PropertyType;
using object::PropertyValue;

// What the words of one -chardev say, whatever its backend.
struct ChardevWords {
  std::string path;
  std::string host;
  std::string port;
  bool server = false;
  bool signals = true;
  std::optional<bool> wait;
  std::uint64_t reconnect_ms = 0;
};

Status SetReconnect(ChardevWords& words, const PropertyValue& value) {
  words.reconnect_ms = std::get<std::uint64_t>(value) * 1000;
  return {};
}
Status SetWait(ChardevWords& words, const PropertyValue& value) {
  words.wait = std::get<bool>(value);
  return {};
}

constexpr Property<ChardevWords> kSocketProperties[] = {
    {{.name = "path", .description = "of a Unix socket"}, object::SetField<&ChardevWords::path>},
    {{.name = "host", .description = "of a TCP socket"}, object::SetField<&ChardevWords::host>},
    {{.name = "port", .description = "of a TCP socket"}, object::SetField<&ChardevWords::port>},
    {{.name = "server",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "wait for clients instead of being one"},
     object::SetField<&ChardevWords::server>},
    {{.name = "wait",
      .type = PropertyType::kBool,
      .default_text = "on",
      .description = "of a server: hold the guest's start until a client has come"},
     SetWait},
    {{.name = "reconnect",
      .type = PropertyType::kUint,
      .default_text = "0",
      .description = "of a client: seconds after which it looks again for a server that has gone",
      .max = 1'000'000},
     SetReconnect},
    {{.name = "reconnect-ms",
      .type = PropertyType::kUint,
      .default_text = "0",
      .description = "the same in milliseconds",
      .max = 1'000'000'000},
     object::SetField<&ChardevWords::reconnect_ms>},
};
constexpr Property<ChardevWords> kFileProperties[] = {
    {{.name = "path", .description = "of the file"}, object::SetField<&ChardevWords::path>},
};
constexpr Property<ChardevWords> kStdioProperties[] = {
    {{.name = "signal",
      .type = PropertyType::kBool,
      .default_text = "on",
      .description = "Ctrl-C ends Holdfast instead of being sent"},
     object::SetField<&ChardevWords::signals>},
};
// What QEMU's backends have besides.
constexpr std::array<std::string_view, 19> kQemuOnly = {
    "abstract", "append",    "cols",      "fd",  "height",   "input-path", "ipv4",
    "ipv6",     "logappend", "logfile",   "mux", "nodelay",  "rows",       "telnet",
    "tight",    "tls-authz", "tls-creds", "to",  "websocket"};

struct Backend {
  std::string_view name;
  std::span<const Property<ChardevWords>> properties;
};
constexpr Backend kBackends[] = {
    {"socket", kSocketProperties},
    {"file", kFileProperties},
    {"stdio", kStdioProperties},
    {"pty", {}},
    {"null", {}},
};

constexpr std::array<std::string_view, 14> kQemuBackends = {
    "braille", "console",  "dbus",    "hub",    "memory",   "mux", "msmouse",
    "pipe",    "parallel", "ringbuf", "serial", "spicevmc", "udp", "vc"};

Result<const Backend*> FindBackend(std::string_view name) {
  std::vector<std::string_view> names;
  for (const Backend& backend : kBackends) {
    if (backend.name == name) return &backend;
    names.push_back(backend.name);
  }
  if (std::find(kQemuBackends.begin(), kQemuBackends.end(), name) != kQemuBackends.end()) {
    return Fail(Errc::kUnsupported,
                fmt::format("QEMU has the chardev backend '{}', Holdfast does not have it", name),
                fmt::format("Holdfast has: {}.", fmt::join(names, ", ")));
  }
  return Fail(Errc::kInvalidArgument, fmt::format("'{}' is not a valid char driver name", name),
              fmt::format("Holdfast has: {}.", fmt::join(names, ", ")));
}

Result<devices::SocketSpec> SocketOf(const ChardevWords& words) {
  const bool tcp = !words.host.empty() || !words.port.empty();
  if (tcp != words.path.empty()) {
    return Fail(Errc::kInvalidArgument, "None or one of 'path', 'fd' or 'host' option required.",
                "Write path=PATH for a Unix socket or host=HOST,port=PORT for TCP.");
  }
  if (tcp && words.port.empty()) {
    return Fail(Errc::kInvalidArgument, "chardev: socket: no port given",
                "Write port=PORT; a server with port=0 takes any that is free.");
  }
  devices::SocketSpec spec;
  spec.address = {.path = words.path, .host = words.host, .port = words.port};
  spec.server = words.server;
  if (words.wait && !words.server) {
    return Fail(Errc::kInvalidArgument,
                "'wait' option is incompatible with socket in client connect mode",
                "Leave wait= out, or write server=on.");
  }
  spec.wait = words.wait.value_or(words.server);
  if (words.reconnect_ms != 0) {
    if (words.server) {
      return Fail(Errc::kInvalidArgument,
                  "'reconnect' option is incompatible with socket in server listen mode",
                  "Leave reconnect= out: a server takes its next client at any time.");
    }
    spec.reconnect = std::chrono::milliseconds(words.reconnect_ms);
  }
  return spec;
}

bool HasChardev(const Options& options, std::string_view id) {
  return std::any_of(options.chardevs.begin(), options.chardevs.end(),
                     [&](const ChardevRequest& chardev) { return chardev.id == id; });
}

Result<std::string> ReadId(const Options& options, const KeyValues& values) {
  const std::string* const id = object::FindValue(values, "id");
  if (id == nullptr) {
    return Fail(Errc::kInvalidArgument, "chardev: no id specified",
                "Name it, for example id=mon0.");
  }
  if (!object::IsWellFormedId(*id)) {
    return Fail(Errc::kInvalidArgument, "Parameter 'id' expects an identifier",
                "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.");
  }
  if (HasChardev(options, *id)) {
    return Fail(Errc::kInvalidArgument, fmt::format("Duplicate ID '{}' for chardev", *id),
                "Give each its own.");
  }
  return *id;
}

std::string ChardevHelp() {
  std::string text = "Available chardev backend types:\n";
  for (const Backend& backend : kBackends) text += fmt::format("  {}\n", backend.name);
  return text;
}

// The words that -mon knows.
struct MonWords {
  std::string chardev;
  bool control = false;
  std::optional<bool> pretty;
};
constexpr std::array<std::string_view, 2> kModes = {"readline", "control"};
Status SetMode(MonWords& words, const PropertyValue& value) {
  words.control = std::get<std::uint64_t>(value) == 1;
  return {};
}
Status SetPretty(MonWords& words, const PropertyValue& value) {
  words.pretty = std::get<bool>(value);
  return {};
}
constexpr Property<MonWords> kMonProperties[] = {
    {{.name = "chardev", .description = "the id of a -chardev"},
     object::SetField<&MonWords::chardev>},
    {{.name = "mode",
      .type = PropertyType::kEnum,
      .default_text = "readline",
      .description = "readline is the human monitor, control is QMP",
      .choices = kModes},
     SetMode},
    {{.name = "pretty",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "QMP for people to read"},
     SetPretty},
};

Status AddQmp(Options& options, std::string_view word, bool pretty) {
  constexpr std::string_view kPrefix = "chardev:";
  const std::string option = fmt::format("-qmp{} {}", pretty ? "-pretty" : "", word);
  if (word.starts_with(kPrefix)) {
    options.monitors.push_back({.chardev = std::string(word.substr(kPrefix.size())),
                                .control = true,
                                .pretty = pretty,
                                .option = option});
    return {};
  }
  if (word == "none") return {};
  ChardevRequest chardev{.id = fmt::format("compat_monitor{}", options.monitors.size()),
                         .option = option};
  HF_TRY(chardev.socket, devices::ParseSocketWord(word));
  if (!chardev.socket) chardev.word = word;
  options.monitors.push_back(
      {.chardev = chardev.id, .control = true, .pretty = pretty, .option = option});
  options.chardevs.push_back(std::move(chardev));
  return {};
}

}  // namespace

Status ParseChardev(Options& options, std::string_view argument) {
  HF_TRY(const KeyValues values, object::ParseKeyValues(argument, "backend"));
  const std::string* const name = object::FindValue(values, "backend");
  if (name != nullptr && (*name == "help" || *name == "?")) {
    options.print = ChardevHelp();
    return {};
  }
  HF_TRY(const Backend* const backend, FindBackend(name == nullptr ? "" : *name));
  ChardevRequest chardev{.id = {}, .option = fmt::format("-chardev {}", argument)};
  HF_TRY(chardev.id, ReadId(options, values));
  ChardevWords words;
  for (const KeyValue& entry : values) {
    if (entry.key == "backend" || entry.key == "id") continue;
    HF_TRY_STATUS(object::SetProperty(backend->properties, kQemuOnly, words, entry));
  }
  chardev.signals = words.signals;
  if (backend->name == "socket") {
    HF_TRY(chardev.socket, SocketOf(words));
  } else if (backend->name == "file") {
    if (words.path.empty()) {
      return Fail(Errc::kInvalidArgument, "chardev: file: no filename given", "Write path=FILE.");
    }
    chardev.word = "file:" + words.path;
  } else {
    chardev.word = backend->name;
  }
  options.chardevs.push_back(std::move(chardev));
  return {};
}

Status ParseMon(Options& options, std::string_view argument) {
  HF_TRY(const KeyValues values, object::ParseKeyValues(argument, "chardev"));
  MonWords words;
  HF_TRY_STATUS(object::SetProperties<MonWords>(kMonProperties, {}, words, values));
  if (words.chardev.empty()) {
    return Fail(Errc::kInvalidArgument, "Parameter 'chardev' is missing",
                "Name a -chardev: -mon chardev=ID,mode=control.");
  }
  if (words.pretty && !words.control) {
    return Fail(Errc::kInvalidArgument, "'pretty' is not compatible with HMP monitors",
                "Leave pretty= out, or write mode=control.");
  }
  options.monitors.push_back({.chardev = words.chardev,
                              .control = words.control,
                              .pretty = words.pretty.value_or(false),
                              .option = fmt::format("-mon {}", argument)});
  return {};
}

Status ParseQmp(Options& options, std::string_view argument) {
  return AddQmp(options, argument, false);
}

Status ParseQmpPretty(Options& options, std::string_view argument) {
  return AddQmp(options, argument, true);
}

Status TakeChardev(Options& options, std::string_view id) {
  for (ChardevRequest& chardev : options.chardevs) {
    if (chardev.id != id) continue;
    if (std::exchange(chardev.taken, true)) {
      return Fail(Errc::kInvalidArgument, fmt::format("Device '{}' is in use", id),
                  "Give each user a -chardev of its own.");
    }
    return {};
  }
  return Fail(Errc::kInvalidArgument, fmt::format("chardev \"{}\" not found", id),
              fmt::format("Make one: -chardev BACKEND,id={}.", id));
}

Status FinishControl(Options& options) {
  for (const MonitorRequest& monitor : options.monitors) {
    if (Status taken = TakeChardev(options, monitor.chardev); !taken) {
      return Fail(std::move(taken).error().Wrap(monitor.option));
    }
  }
  return {};
}

}  // namespace holdfast::apps
