// SPDX-License-Identifier: Apache-2.0
#include "migration/address.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <type_traits>

#include <nlohmann/json.hpp>

#include "devices/stream_socket.h"
#include "object/property.h"

namespace holdfast::migration {
namespace {

using Json = nlohmann::json;

constexpr const char* kForms =
    "Write tcp:HOST:PORT, unix:PATH, fd:NAME, exec:COMMAND or file:PATH[,offset=BYTES].";

tl::unexpected<Error> Bad(std::string message, std::string hint = kForms) {
  return Fail(Errc::kInvalidArgument, std::move(message), std::move(hint));
}

Result<Address> ParseTcp(std::string_view text) {
  std::optional<devices::SocketAddress> parsed = devices::ParseHostPort(text);
  if (!parsed) {
    return Bad(fmt::format("error parsing address '{}'", text),
               "Write tcp:HOST:PORT, an IPv6 address in brackets: tcp:[::1]:4444.");
  }
  return TcpAddress{.host = std::move(parsed->host), .port = std::move(parsed->port)};
}

Result<Address> ParseFile(std::string_view text) {
  constexpr std::string_view kOffset = ",offset=";
  FileAddress file;
  const std::size_t comma = text.find(kOffset);
  file.path = text.substr(0, comma);
  if (comma != std::string_view::npos) {
    const std::string_view number = text.substr(comma + kOffset.size());
    const auto value =
        object::ParseProperty({.name = "offset", .type = object::PropertyType::kSize}, number);
    if (!value) {
      return Bad(fmt::format("file URI has bad offset {}", number),
                 "Write a number of bytes, 1M for instance.");
    }
    file.offset = std::get<std::uint64_t>(*value);
  }
  return file;
}

Result<Address> Checked(Address address) {
  // What follows hands these to the system as strings that end at a zero byte.
  const auto ends_early = [](const std::string& text) {
    return text.find('\0') != std::string::npos;
  };
  const bool bad = std::visit(
      [&](const auto& is) {
        using T = std::decay_t<decltype(is)>;
        if constexpr (std::is_same_v<T, TcpAddress>)
          return ends_early(is.host) || ends_early(is.port);
        else if constexpr (std::is_same_v<T, FdAddress>)
          return ends_early(is.name);
        else if constexpr (std::is_same_v<T, ExecAddress>)
          return std::ranges::any_of(is.arguments, ends_early);
        else
          return ends_early(is.path);
      },
      address);
  if (bad) return Bad("a migration address cannot have a zero byte in it", "");
  // The empty name of a socket would be one that the kernel chooses.
  const auto* unix_address = std::get_if<UnixAddress>(&address);
  const auto* file = std::get_if<FileAddress>(&address);
  const auto* fd = std::get_if<FdAddress>(&address);
  const auto* exec = std::get_if<ExecAddress>(&address);
  if ((unix_address != nullptr && unix_address->path.empty()) ||
      (file != nullptr && file->path.empty()))
    return Bad(fmt::format("the path in '{}' is empty", Describe(address)));
  if (fd != nullptr && fd->name.empty()) return Bad("the name in 'fd:' is empty");
  if (exec != nullptr && (exec->arguments.empty() || exec->arguments.front().empty()))
    return Bad("the command in 'exec:' is empty");
  if (file != nullptr && file->offset > std::uint64_t{INT64_MAX})
    return Bad(fmt::format("file URI has bad offset {}", file->offset), "Write a smaller number.");
  return address;
}

// The members of an object, each of which has one type.
Result<std::string> Text(const Json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end()) return Bad(fmt::format("Parameter '{}' is missing", name), "");
  if (!found->is_string())
    return Bad(fmt::format("Invalid parameter type for '{}', expected: string", name), "");
  return found->get<std::string>();
}

Result<Address> InetFromJson(const Json& address) {
  // Without these the connection is the same; with others it would be another.
  constexpr std::array<std::string_view, 6> kKnown = {"transport", "type",    "host",
                                                      "port",      "numeric", "keep-alive"};
  for (const auto& [name, value] : address.items()) {
    if (std::ranges::find(kKnown, name) != kKnown.end()) continue;
    return Bad(fmt::format("Parameter '{}' of a migration address is not available", name),
               "Leave it out: host and port are enough.");
  }
  TcpAddress tcp;
  HF_TRY(tcp.host, Text(address, "host"));
  HF_TRY(tcp.port, Text(address, "port"));
  return tcp;
}

Result<Address> SocketFromJson(const Json& address) {
  HF_TRY(const std::string type, Text(address, "type"));
  if (type == "inet") return InetFromJson(address);
  if (type == "unix") {
    HF_TRY(std::string path, Text(address, "path"));
    return UnixAddress{std::move(path)};
  }
  if (type == "fd") {
    HF_TRY(std::string name, Text(address, "str"));
    return FdAddress{std::move(name)};
  }
  return Bad(fmt::format("Parameter 'type' does not accept value '{}'", type),
             "It is inet, unix or fd.");
}

Result<Address> FileFromJson(const Json& address) {
  FileAddress file;
  HF_TRY(file.path, Text(address, "filename"));
  const auto offset = address.find("offset");
  if (offset == address.end() || !offset->is_number_unsigned())
    return Bad("Parameter 'offset' expects uint64", "Write a number of bytes.");
  file.offset = offset->get<std::uint64_t>();
  return file;
}

Result<Address> ExecFromJson(const Json& address) {
  const auto list = address.find("args");
  if (list == address.end() || !list->is_array())
    return Bad("Parameter 'args' expects a list of strings", "The program is the first of them.");
  ExecAddress exec;
  for (const Json& one : *list) {
    if (!one.is_string())
      return Bad("Invalid parameter type for 'args', expected: array of strings", "");
    exec.arguments.push_back(one.get<std::string>());
  }
  return exec;
}

}  // namespace

Result<Address> ParseAddress(std::string_view uri) {
  const std::size_t colon = uri.find(':');
  const std::string_view scheme = uri.substr(0, colon);
  const std::string_view rest =
      colon == std::string_view::npos ? std::string_view{} : uri.substr(colon + 1);
  Result<Address> address = Bad(fmt::format("unknown migration protocol: {}", uri));
  if (colon == std::string_view::npos) return address;
  if (scheme == "tcp") address = ParseTcp(rest);
  if (scheme == "unix") address = UnixAddress{std::string(rest)};
  if (scheme == "fd") address = FdAddress{std::string(rest)};
  if (scheme == "exec" && rest.empty()) return Bad("the command in 'exec:' is empty");
  if (scheme == "exec") address = ExecAddress{{"/bin/sh", "-c", std::string(rest)}};
  if (scheme == "file") address = ParseFile(rest);
  if (!address) return address;
  return Checked(*std::move(address));
}

Result<Address> AddressFromJson(const Json& address) {
  if (!address.is_object()) return Bad("Invalid parameter type for 'addr', expected: object", "");
  HF_TRY(const std::string transport, Text(address, "transport"));
  Result<Address> read =
      Bad(fmt::format("Parameter 'transport' does not accept value '{}'", transport),
          "It is socket, exec or file.");
  if (transport == "socket") read = SocketFromJson(address);
  if (transport == "exec") read = ExecFromJson(address);
  if (transport == "file") read = FileFromJson(address);
  if (!read) return read;
  return Checked(*std::move(read));
}

Result<ChannelAddresses> ChannelsFromJson(const Json& channels) {
  if (!channels.is_array())
    return Bad("Invalid parameter type for 'channels', expected: array", "");
  std::optional<Address> main;
  std::optional<Address> cpr;
  for (const Json& channel : channels) {
    if (!channel.is_object() || !channel.contains("addr"))
      return Bad("Parameter 'addr' is missing", "Each channel has one.");
    HF_TRY(const std::string type, Text(channel, "channel-type"));
    if (type != "main" && type != "cpr") {
      return Bad(fmt::format("Parameter 'channel-type' does not accept value '{}'", type),
                 "It is main or cpr.");
    }
    std::optional<Address>& which = type == "main" ? main : cpr;
    if (which) {
      return Bad(fmt::format("Channel list has more than one {} entry", type),
                 "Name each channel once.");
    }
    HF_TRY(which, AddressFromJson(channel["addr"]));
  }
  if (!main) return Bad("Channel list has no main entry", "Name where the migration goes.");
  return ChannelAddresses{.main = *std::move(main), .cpr = std::move(cpr)};
}

std::string Describe(const Address& address) {
  return std::visit(
      [](const auto& is) -> std::string {
        using T = std::decay_t<decltype(is)>;
        if constexpr (std::is_same_v<T, TcpAddress>) {
          const bool brackets = is.host.find(':') != std::string::npos;
          return fmt::format("tcp:{}{}{}:{}", brackets ? "[" : "", is.host, brackets ? "]" : "",
                             is.port);
        } else if constexpr (std::is_same_v<T, UnixAddress>) {
          return fmt::format("unix:{}", is.path);
        } else if constexpr (std::is_same_v<T, FdAddress>) {
          return fmt::format("fd:{}", is.name);
        } else if constexpr (std::is_same_v<T, ExecAddress>) {
          const auto& words = is.arguments;
          // The shell is how exec: runs a command, not part of what was written.
          if (words.size() == 3 && words[0] == "/bin/sh" && words[1] == "-c")
            return fmt::format("exec:{}", words[2]);
          return fmt::format("exec:{}", fmt::join(words, " "));
        } else {
          return is.offset == 0 ? fmt::format("file:{}", is.path)
                                : fmt::format("file:{},offset={}", is.path, is.offset);
        }
      },
      address);
}

}  // namespace holdfast::migration
