// SPDX-License-Identifier: Apache-2.0
#include "devices/net/netdev_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "devices/net/netdev_words.h"
#include "devices/net/tap_config.h"
#include "object/suggest.h"

namespace holdfast::devices::net {
namespace {

using object::KeyValues;
using object::Property;
using object::PropertyType;
using object::PropertyValue;

constexpr std::string_view kAddressTypes[] = {"inet", "unix", "fd"};

// The words of an address. `type` is empty where none was given.
struct AddressWords {
  std::optional<std::uint64_t> type;  // of kAddressTypes
  std::string path, host, port, str;
};

// A property of a member of Owner that is an AddressWords.
template <typename Owner, AddressWords Owner::* Address, std::string AddressWords::* Member>
Status SetAddress(Owner& owner, const PropertyValue& value) {
  owner.*Address.*Member = std::get<std::string>(value);
  return {};
}
template <typename Owner, AddressWords Owner::* Address>
Status SetAddressType(Owner& owner, const PropertyValue& value) {
  (owner.*Address).type = std::get<std::uint64_t>(value);
  return {};
}

Result<std::optional<NetAddress>> ReadAddress(std::string_view name, const AddressWords& words) {
  if (!words.type) {
    if (words.path.empty() && words.host.empty() && words.port.empty() && words.str.empty()) {
      return std::nullopt;
    }
    return Fail(Errc::kInvalidArgument, fmt::format("Parameter '{}.type' is missing", name),
                "It is inet, unix or fd.");
  }
  const auto need = [&](std::string_view member, const std::string& value) -> Status {
    if (!value.empty()) return {};
    return Fail(Errc::kInvalidArgument, fmt::format("Parameter '{}.{}' is missing", name, member),
                fmt::format("{}.type={} needs it.", name, kAddressTypes[*words.type]));
  };
  NetAddress address;
  if (kAddressTypes[*words.type] == "inet") {
    HF_TRY_STATUS(need("host", words.host));
    HF_TRY_STATUS(need("port", words.port));
    address.socket.host = words.host;
    address.socket.port = words.port;
  } else if (kAddressTypes[*words.type] == "unix") {
    HF_TRY_STATUS(need("path", words.path));
    address.socket.path = words.path;
  } else {
    HF_TRY_STATUS(need("str", words.str));
    HF_TRY(address.fd, ReadFd(fmt::format("{}.str", name), words.str));
  }
  return address;
}

constexpr object::PropertyInfo TypeInfo(std::string_view name) {
  return {.name = name,
          .type = PropertyType::kEnum,
          .description = "kind of address",
          .choices = kAddressTypes};
}

// ---- stream ----

struct StreamWords {
  AddressWords address;
  bool server = false;
  std::optional<std::uint64_t> reconnect_s, reconnect_ms;
};
template <std::optional<std::uint64_t> StreamWords::* Member>
Status SetReconnect(StreamWords& words, const PropertyValue& value) {
  words.*Member = std::get<std::uint64_t>(value);
  return {};
}

constexpr Property<StreamWords> kStream[] = {
    {TypeInfo("addr.type"), SetAddressType<StreamWords, &StreamWords::address>},
    {Info("addr.path", PropertyType::kString, "", "unix: the socket's path"),
     SetAddress<StreamWords, &StreamWords::address, &AddressWords::path>},
    {Info("addr.host", PropertyType::kString, "", "inet: name or address"),
     SetAddress<StreamWords, &StreamWords::address, &AddressWords::host>},
    {Info("addr.port", PropertyType::kString, "", "inet: port"),
     SetAddress<StreamWords, &StreamWords::address, &AddressWords::port>},
    {Info("addr.str", PropertyType::kString, "", "fd: number of an open socket"),
     SetAddress<StreamWords, &StreamWords::address, &AddressWords::str>},
    {Info("server", PropertyType::kBool, "off", "wait for the other side to connect"),
     object::SetField<&StreamWords::server>},
    {{.name = "reconnect",
      .type = PropertyType::kUint,
      .default_text = "0",
      .description = "a client tries again after so many seconds",
      .max = 86400},
     SetReconnect<&StreamWords::reconnect_s>},
    {{.name = "reconnect-ms",
      .type = PropertyType::kUint,
      .default_text = "0",
      .description = "the same in milliseconds",
      .max = 86400000},
     SetReconnect<&StreamWords::reconnect_ms>},
};
constexpr std::string_view kAddressQemuOnly[] = {
    "addr.ipv4",     "addr.ipv6",    "addr.to",        "addr.keep-alive", "addr.mptcp",
    "addr.abstract", "addr.tight",   "addr.numeric",   "local.ipv4",      "local.ipv6",
    "local.to",      "local.tight",  "local.abstract", "remote.ipv4",     "remote.ipv6",
    "remote.to",     "remote.tight", "remote.abstract"};

Status ReadStream(const KeyValues& values, NetdevConfig& config) {
  StreamWords words;
  HF_TRY_STATUS(object::SetProperties<StreamWords>(kStream, kAddressQemuOnly, words, values));
  HF_TRY(std::optional<NetAddress> address, ReadAddress("addr", words.address));
  if (!address) {
    return Fail(
        Errc::kInvalidArgument, "Parameter 'addr.type' is missing",
        "Write addr.type=unix,addr.path=PATH or addr.type=inet,addr.host=HOST,addr.port=N.");
  }
  if (words.reconnect_s && words.reconnect_ms) {
    return Fail(Errc::kInvalidArgument, "'reconnect' and 'reconnect-ms' are mutually exclusive",
                "Leave one out.");
  }
  StreamConfig stream{.address = *std::move(address), .server = words.server};
  stream.reconnect =
      std::chrono::milliseconds(words.reconnect_ms.value_or(words.reconnect_s.value_or(0) * 1000));
  if (stream.reconnect.count() != 0 && (stream.server || stream.address.fd)) {
    return Fail(Errc::kInvalidArgument, "'reconnect' is only for clients that know an address",
                "Leave it out: a server takes the next client anyway.");
  }
  config.what = std::move(stream);
  return {};
}

// ---- dgram ----

struct DgramWords {
  AddressWords local, remote;
};
template <AddressWords DgramWords::* Address, std::string AddressWords::* Member>
constexpr auto kSetDgram = SetAddress<DgramWords, Address, Member>;

constexpr Property<DgramWords> kDgram[] = {
    {TypeInfo("local.type"), SetAddressType<DgramWords, &DgramWords::local>},
    {Info("local.path", PropertyType::kString, "", "unix: our socket's path"),
     kSetDgram<&DgramWords::local, &AddressWords::path>},
    {Info("local.host", PropertyType::kString, "", "inet: our address"),
     kSetDgram<&DgramWords::local, &AddressWords::host>},
    {Info("local.port", PropertyType::kString, "", "inet: our port"),
     kSetDgram<&DgramWords::local, &AddressWords::port>},
    {Info("local.str", PropertyType::kString, "", "fd: number of an open socket"),
     kSetDgram<&DgramWords::local, &AddressWords::str>},
    {TypeInfo("remote.type"), SetAddressType<DgramWords, &DgramWords::remote>},
    {Info("remote.path", PropertyType::kString, "", "unix: the other side's path"),
     kSetDgram<&DgramWords::remote, &AddressWords::path>},
    {Info("remote.host", PropertyType::kString, "", "inet: the other side's address"),
     kSetDgram<&DgramWords::remote, &AddressWords::host>},
    {Info("remote.port", PropertyType::kString, "", "inet: the other side's port"),
     kSetDgram<&DgramWords::remote, &AddressWords::port>},
    {Info("remote.str", PropertyType::kString, "", "fd: not for this side"),
     kSetDgram<&DgramWords::remote, &AddressWords::str>},
};

Status CheckDgram(const DgramConfig& dgram) {
  if (dgram.local && dgram.local->fd) {
    if (!dgram.remote) return {};
    return Fail(Errc::kInvalidArgument, "don't set remote with local.fd",
                "An inherited socket knows where it sends to.");
  }
  if (!dgram.remote || dgram.remote->fd) {
    return Fail(Errc::kInvalidArgument, "dgram requires remote= or local.type=fd",
                "Write remote.type=unix,remote.path=PATH or "
                "remote.type=inet,remote.host=HOST,remote.port=N.");
  }
  if (dgram.local && dgram.local->socket.path.empty() != dgram.remote->socket.path.empty()) {
    return Fail(Errc::kInvalidArgument, "type of local and remote must be the same",
                "Make both unix or both inet.");
  }
  if (!dgram.local && !dgram.remote->socket.path.empty()) {
    return Fail(Errc::kInvalidArgument, "dgram with unix addresses requires local=",
                "Write local.type=unix,local.path=PATH: the other side answers to it.");
  }
  return {};
}

Status ReadDgram(const KeyValues& values, NetdevConfig& config) {
  DgramWords words;
  HF_TRY_STATUS(object::SetProperties<DgramWords>(kDgram, kAddressQemuOnly, words, values));
  DgramConfig dgram;
  HF_TRY(dgram.local, ReadAddress("local", words.local));
  HF_TRY(dgram.remote, ReadAddress("remote", words.remote));
  HF_TRY_STATUS(CheckDgram(dgram));
  config.what = std::move(dgram);
  return {};
}

// ---- socket: QEMU's older words for the two ----

struct SocketWords {
  std::string listen, connect, udp, localaddr, fd;
};
constexpr Property<SocketWords> kSocket[] = {
    {Info("listen", PropertyType::kString, "", "[host]:port to wait for the other side at"),
     object::SetField<&SocketWords::listen>},
    {Info("connect", PropertyType::kString, "", "host:port to connect to"),
     object::SetField<&SocketWords::connect>},
    {Info("udp", PropertyType::kString, "", "host:port to send datagrams to"),
     object::SetField<&SocketWords::udp>},
    {Info("localaddr", PropertyType::kString, "", "udp: our own host:port"),
     object::SetField<&SocketWords::localaddr>},
    {Info("fd", PropertyType::kString, "", "number of an open stream socket"),
     object::SetField<&SocketWords::fd>},
};
constexpr std::string_view kSocketQemuOnly[] = {"mcast"};

Result<NetAddress> ReadHostPort(std::string_view name, std::string_view text, bool any) {
  const std::optional<SocketAddress> address = ParseHostPort(text);
  if (!address || address->port.empty()) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Parameter '{}' expects host:port, not '{}'", name, text),
                "An IPv6 address stands in brackets.");
  }
  NetAddress read{.socket = *address};
  if (read.socket.host.empty()) read.socket.host = any ? "0.0.0.0" : "127.0.0.1";
  return read;
}

Status ReadSocket(const KeyValues& values, NetdevConfig& config) {
  SocketWords words;
  HF_TRY_STATUS(object::SetProperties<SocketWords>(kSocket, kSocketQemuOnly, words, values));
  const int given = (words.listen.empty() ? 0 : 1) + (words.connect.empty() ? 0 : 1) +
                    (words.udp.empty() ? 0 : 1) + (words.fd.empty() ? 0 : 1);
  if (given != 1) {
    return Fail(Errc::kInvalidArgument, "exactly one of listen=, connect=, udp= or fd= is required",
                "Leave the others out, or use -netdev stream or dgram.");
  }
  if (words.udp.empty() != words.localaddr.empty()) {
    return Fail(Errc::kInvalidArgument,
                words.udp.empty() ? "localaddr= is only valid with udp="
                                  : "localaddr= is mandatory with udp=",
                "Write udp=HOST:PORT,localaddr=HOST:PORT.");
  }
  if (!words.udp.empty()) {
    DgramConfig dgram;
    HF_TRY(dgram.remote, ReadHostPort("udp", words.udp, false));
    HF_TRY(dgram.local, ReadHostPort("localaddr", words.localaddr, false));
    config.what = std::move(dgram);
    return {};
  }
  StreamConfig stream;
  stream.server = !words.listen.empty();
  if (!words.fd.empty()) {
    HF_TRY(stream.address.fd, ReadFd("fd", words.fd));
  } else if (stream.server) {
    HF_TRY(stream.address, ReadHostPort("listen", words.listen, true));
  } else {
    HF_TRY(stream.address, ReadHostPort("connect", words.connect, false));
  }
  config.what = std::move(stream);
  return {};
}

// ---- vhost-user ----

constexpr std::uint64_t kMostVhostUserQueues = 1024;  // QEMU's limit

struct VhostUserWords {
  std::string chardev;
  std::uint64_t queues = 1;
  bool force = false;
};
constexpr Property<VhostUserWords> kVhostUser[] = {
    {Info("chardev", PropertyType::kString, "", "id of a -chardev socket that it listens on"),
     object::SetField<&VhostUserWords::chardev>},
    {Info("queues", PropertyType::kUint, "1", "pairs of queues"),
     object::SetField<&VhostUserWords::queues>},
    {Info("vhostforce", PropertyType::kBool, "off", "accepted; it changes nothing"),
     object::SetField<&VhostUserWords::force>},
};

Status ReadVhostUser(const KeyValues& values, NetdevConfig& config) {
  VhostUserWords words;
  HF_TRY_STATUS(object::SetProperties<VhostUserWords>(kVhostUser, {}, words, values));
  if (words.chardev.empty()) {
    return Fail(Errc::kInvalidArgument, "Parameter 'chardev' is missing",
                "Make one with -chardev socket,id=ID,path=PATH and write chardev=ID.");
  }
  if (words.queues < 1 || words.queues > kMostVhostUserQueues) {
    return Fail(
        Errc::kInvalidArgument,
        fmt::format("vhost-user number of queues must be in range [1, {}]", kMostVhostUserQueues),
        "Leave queues= out for 1.");
  }
  config.what = VhostUserConfig{.chardev = std::move(words.chardev),
                                .queues = static_cast<unsigned>(words.queues)};
  return {};
}

// ---- all types ----

Status ReadTap(const KeyValues& values, NetdevConfig& config) {
  HF_TRY(config.what, ParseTapConfig(values));
  return {};
}

Status ReadUser(const KeyValues& values, NetdevConfig& config) {
  HF_TRY(config.what, ParseUserConfig(values));
  return {};
}

template <typename Owner>
std::vector<object::PropertyInfo> InfoOf(std::span<const Property<Owner>> table) {
  return {table.begin(), table.end()};
}

struct NetdevType {
  std::string_view name;
  Status (*read)(const KeyValues& values, NetdevConfig& config);
  std::vector<object::PropertyInfo> (*properties)();
};
constexpr NetdevType kTypes[] = {
    {"dgram", ReadDgram, [] { return InfoOf<DgramWords>(kDgram); }},
    {"socket", ReadSocket, [] { return InfoOf<SocketWords>(kSocket); }},
    {"stream", ReadStream, [] { return InfoOf<StreamWords>(kStream); }},
    {"tap", ReadTap, TapProperties},
    {"user", ReadUser, UserProperties},
    {"vhost-user", ReadVhostUser, [] { return InfoOf<VhostUserWords>(kVhostUser); }},
};
constexpr std::string_view kQemuOnlyTypes[] = {
    "af-xdp", "bridge",     "hubport",       "l2tpv3",     "netmap",      "passt",
    "vde",    "vhost-vdpa", "vmnet-bridged", "vmnet-host", "vmnet-shared"};

Error UnknownType(const std::string& type) {
  if (std::find(std::begin(kQemuOnlyTypes), std::end(kQemuOnlyTypes), type) !=
      std::end(kQemuOnlyTypes)) {
    return Error(Errc::kUnsupported,
                 fmt::format("QEMU has the network backend '{}', Holdfast does not have it", type),
                 "-netdev help lists those there are.");
  }
  const std::vector<std::string_view> names = NetdevTypes();
  const std::string_view nearest = object::Nearest(type, names);
  return Error(Errc::kInvalidArgument,
               fmt::format("Parameter 'type' does not accept value '{}'", type),
               nearest.empty() ? "-netdev help lists the network backends."
                               : fmt::format("Did you mean {}?", nearest));
}

}  // namespace

Result<NetdevConfig> ParseNetdev(const KeyValues& values) {
  NetdevConfig config;
  KeyValues rest;
  for (const object::KeyValue& entry : values) {
    if (entry.key == "type") {
      config.type = entry.value;
    } else if (entry.key == "id") {
      config.id = entry.value;
    } else {
      rest.push_back(entry);
    }
  }
  if (config.type.empty()) {
    return Fail(Errc::kInvalidArgument, "Parameter 'type' is missing",
                "The argument starts with it: user, tap, stream …; -netdev help lists them.");
  }
  const auto* const type = std::find_if(std::begin(kTypes), std::end(kTypes),
                                        [&](const auto& one) { return one.name == config.type; });
  if (type == std::end(kTypes)) return Fail(UnknownType(config.type));
  if (config.id.empty()) {
    return Fail(Errc::kInvalidArgument, "Parameter 'id' is missing",
                "Devices name it: -device virtio-net-pci,netdev=ID.");
  }
  if (!object::IsWellFormedId(config.id)) {
    return Fail(Errc::kInvalidArgument, "Parameter 'id' expects an identifier",
                "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.");
  }
  HF_TRY_STATUS(type->read(rest, config));
  return config;
}

std::vector<std::string_view> NetdevTypes() {
  std::vector<std::string_view> names;
  for (const NetdevType& type : kTypes) names.push_back(type.name);
  return names;
}

std::vector<object::PropertyInfo> NetdevProperties(std::string_view type) {
  for (const NetdevType& one : kTypes) {
    if (one.name == type) return one.properties();
  }
  return {};
}

}  // namespace holdfast::devices::net
