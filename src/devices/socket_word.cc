// SPDX-License-Identifier: Apache-2.0
// QEMU's words for sockets: unix:PATH,server=on,wait=off and tcp:HOST:PORT,….
#include <fmt/format.h>

#include <algorithm>

#include "devices/stream_socket.h"

namespace holdfast::devices {
namespace {

// Takes the next item off a QEMU option list, where ",," is a comma inside an item.
std::string TakeItem(std::string_view& rest) {
  std::string item;
  while (!rest.empty()) {
    const char c = rest.front();
    rest.remove_prefix(1);
    if (c == ',') {
      if (rest.empty() || rest.front() != ',') return item;
      rest.remove_prefix(1);
    }
    item += c;
  }
  return item;
}

tl::unexpected<Error> Bad(std::string_view word, std::string_view what) {
  return Fail(Errc::kInvalidArgument, fmt::format("character device '{}': {}", word, what),
              "Write unix:PATH or tcp:[HOST]:PORT, then [,server=on|off][,wait=on|off].");
}

Status ReadSwitches(std::string_view word, std::string_view rest, SocketSpec& spec) {
  std::optional<bool> wait;
  while (!rest.empty()) {
    const std::string item = TakeItem(rest);
    const std::size_t equals = item.find('=');
    std::string name = item.substr(0, equals);
    // A word alone is QEMU's old form of WORD=on, and noWORD of WORD=off.
    std::string value = equals == std::string::npos ? "on" : item.substr(equals + 1);
    if (equals == std::string::npos && (name == "noserver" || name == "nowait")) {
      name.erase(0, 2);
      value = "off";
    }
    if (name != "server" && name != "wait") {
      return Bad(word, fmt::format("no option '{}' here", name));
    }
    if (value != "on" && value != "off") {
      return Bad(word, fmt::format("{} must be on or off, not '{}'", name, value));
    }
    if (name == "server") spec.server = value == "on";
    if (name == "wait") wait = value == "on";
  }
  if (wait && !spec.server) {
    return Bad(word, "wait is for a server, and without server=on this is a client");
  }
  spec.wait = wait.value_or(spec.server);
  return {};
}

}  // namespace

std::optional<SocketAddress> ParseHostPort(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return std::nullopt;
  }
  const auto is_name = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-';
  };
  if (port.empty() || !std::all_of(port.begin(), port.end(), is_name)) return std::nullopt;
  return SocketAddress{.host = std::string(host), .port = std::string(port)};
}

Result<std::optional<SocketSpec>> ParseSocketWord(std::string_view word) {
  const std::size_t colon = word.find(':');
  if (colon == std::string_view::npos) return std::nullopt;
  const std::string_view kind = word.substr(0, colon);
  std::string_view rest = word.substr(colon + 1);
  SocketSpec spec;
  if (kind == "unix") {
    std::string path = TakeItem(rest);
    if (path.starts_with("path=")) path.erase(0, 5);
    if (path.empty()) return Bad(word, "no path");
    spec.address.path = std::move(path);
  } else if (kind == "tcp") {
    const std::optional<SocketAddress> address = ParseHostPort(TakeItem(rest));
    if (!address) return Bad(word, "no HOST:PORT");
    spec.address = *address;
  } else {
    return std::nullopt;
  }
  HF_TRY_STATUS(ReadSwitches(word, rest, spec));
  return spec;
}

}  // namespace holdfast::devices
