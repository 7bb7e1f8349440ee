// SPDX-License-Identifier: Apache-2.0
#include "devices/net/user_config.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <bit>
#include <charconv>
#include <cstring>
#include <optional>
#include <span>

namespace holdfast::devices::net {
namespace {

using object::Property;
using object::PropertyType;
using object::PropertyValue;

constexpr std::size_t kLongestHostname = 32;  // what DHCP's answer has room for, as in QEMU

// The words as they were written.
struct UserWords {
  std::optional<bool> ipv4, ipv6;
  bool restricted = false;
  std::string net, host, dhcpstart, dns;
  std::string prefix6, host6, dns6;
  std::uint64_t prefix6_length = 0;  // 0: not given
  UserConfig config;
};

template <std::optional<bool> UserWords::* Member>
Status SetChoice(UserWords& words, const PropertyValue& value) {
  words.*Member = std::get<bool>(value);
  return {};
}
template <std::string UserConfig::* Member>
Status SetText(UserWords& words, const PropertyValue& value) {
  words.config.*Member = std::get<std::string>(value);
  return {};
}
Status SetHostname(UserWords& words, const PropertyValue& value) {
  const auto& name = std::get<std::string>(value);
  if (name.size() > kLongestHostname) {
    return Fail(Errc::kInvalidArgument, fmt::format("hostname '{}' is too long", name),
                fmt::format("It may have {} bytes.", kLongestHostname));
  }
  words.config.hostname = name;
  return {};
}
Status AddDnsSearch(UserWords& words, const PropertyValue& value) {
  words.config.dns_search.push_back(std::get<std::string>(value));
  return {};
}
Status AddForward(UserWords& words, const PropertyValue& value) {
  HF_TRY(const HostForward forward, ParseHostForward(std::get<std::string>(value)));
  words.config.forwards.push_back(forward);
  return {};
}
// "fec0::/64" in one word.
Status SetNet6(UserWords& words, const PropertyValue& value) {
  const auto& text = std::get<std::string>(value);
  const std::size_t slash = text.find('/');
  words.prefix6 = text.substr(0, slash);
  words.prefix6_length = 0;
  if (slash == std::string::npos) return {};
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data() + slash + 1, end, words.prefix6_length);
  if (error != std::errc{} || rest != end || words.prefix6_length == 0) {
    return Fail(Errc::kInvalidArgument, fmt::format("ipv6-net '{}' is no network", text),
                "Write PREFIX/LENGTH, for example fec0::/64.");
  }
  return {};
}

constexpr object::PropertyInfo Text(std::string_view name, std::string_view standard,
                                    std::string_view description) {
  return {.name = name, .default_text = standard, .description = description};
}

constexpr Property<UserWords> kProperties[] = {
    {{.name = "ipv4", .type = PropertyType::kBool, .default_text = "on", .description = "IPv4"},
     SetChoice<&UserWords::ipv4>},
    {Text("net", "10.0.2.0/24", "the guest's network: address, or address/mask"),
     object::SetField<&UserWords::net>},
    {Text("host", "10.0.2.2", "the host's address in it"), object::SetField<&UserWords::host>},
    {{.name = "ipv6", .type = PropertyType::kBool, .default_text = "on", .description = "IPv6"},
     SetChoice<&UserWords::ipv6>},
    {Text("ipv6-net", "fec0::/64", "the guest's IPv6 network"), SetNet6},
    {Text("ipv6-prefix", "fec0::", "its prefix alone"), object::SetField<&UserWords::prefix6>},
    {{.name = "ipv6-prefixlen",
      .type = PropertyType::kUint,
      .default_text = "64",
      .description = "its prefix's length",
      .max = 126},
     object::SetField<&UserWords::prefix6_length>},
    {Text("ipv6-host", "fec0::2", "the host's address in it"), object::SetField<&UserWords::host6>},
    {{.name = "restrict",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "the guest reaches neither host nor world; hostfwd still works"},
     object::SetField<&UserWords::restricted>},
    {Text("hostname", "", "the name that DHCP gives the guest"), SetHostname},
    {Text("dhcpstart", "10.0.2.15", "the first of 16 addresses that DHCP gives"),
     object::SetField<&UserWords::dhcpstart>},
    {Text("dns", "10.0.2.3", "the name server's address"), object::SetField<&UserWords::dns>},
    {Text("ipv6-dns", "fec0::3", "the name server's IPv6 address"),
     object::SetField<&UserWords::dns6>},
    {Text("dnssearch", "", "a domain to search names in; may come several times"), AddDnsSearch},
    {Text("domainname", "", "the domain that DHCP gives the guest"),
     SetText<&UserConfig::domain_name>},
    {Text("tftp", "", "a folder of the host, which TFTP shows the guest"),
     SetText<&UserConfig::tftp_folder>},
    {Text("tftp-server-name", "", "the TFTP server's name in DHCP's answer"),
     SetText<&UserConfig::tftp_server>},
    {Text("bootfile", "", "the boot file in DHCP's answer"), SetText<&UserConfig::boot_file>},
    {Text("hostfwd", "",
          "[tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport leads to the guest; may come "
          "several times"),
     AddForward},
};

constexpr std::string_view kQemuOnly[] = {"guestfwd", "smb", "smbserver"};

in_addr Ipv4(std::uint32_t address) {
  return {.s_addr = htonl(address)};
}

std::optional<in_addr> ReadIpv4(const std::string& text) {
  in_addr address{};
  if (::inet_pton(AF_INET, text.c_str(), &address) != 1) return std::nullopt;
  return address;
}

tl::unexpected<Error> BadAddress(std::string_view name, std::string_view text,
                                 std::string_view example) {
  return Fail(Errc::kInvalidArgument, fmt::format("{} '{}' is no address", name, text),
              fmt::format("Write one like {}.", example));
}

// The mask of a network that is given without one, by the classes of old and the private ranges.
std::uint32_t UsualMask(std::uint32_t network) {
  if ((network & 0x80000000) == 0) return 0xff000000;
  if ((network & 0xfff00000) == 0xac100000) return 0xfff00000;  // 172.16.0.0/12
  if ((network & 0xfffe0000) == 0xc6120000) return 0xfffe0000;  // 198.18.0.0/15
  if ((network & 0xc0000000) == 0x80000000) return 0xffff0000;
  if ((network & 0xffff0000) == 0xc0a80000) return 0xffff0000;  // 192.168.0.0/16
  return 0xffffff00;
}

Result<std::uint32_t> ReadMask(const std::string& text) {
  unsigned bits = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, bits);
  if (error == std::errc{} && rest == end && bits >= 4 && bits <= 32) {
    return static_cast<std::uint32_t>(~0ULL << (32 - bits));
  }
  const std::optional<in_addr> mask = ReadIpv4(text);
  const std::uint32_t value = mask ? ntohl(mask->s_addr) : 0;
  if (value < 0xf0000000 || std::countl_one(value) + std::countr_zero(value) != 32) {
    return Fail(Errc::kInvalidArgument, fmt::format("net: '{}' is no netmask", text),
                "Write a length from 4 to 32, or a mask like 255.255.255.0.");
  }
  return value;
}

// One of the addresses that must lie in the network; without a word it is number `standard` there.
Result<in_addr> ReadInside(std::string_view name, const std::string& text, const UserConfig& config,
                           std::uint32_t standard) {
  if (text.empty()) {
    return Ipv4(ntohl(config.network.s_addr) | (standard & ~ntohl(config.mask.s_addr)));
  }
  const std::optional<in_addr> address = ReadIpv4(text);
  if (!address) return BadAddress(name, text, "10.0.2.2");
  if ((address->s_addr & config.mask.s_addr) != config.network.s_addr) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("{} address '{}' does not belong to the network", name, text),
                "Choose one inside of net=, or change net=.");
  }
  return *address;
}

Status ReadIpv4Part(const UserWords& words, UserConfig& config) {
  config.network = Ipv4(0x0a000200);
  config.mask = Ipv4(0xffffff00);
  if (!words.net.empty()) {
    const std::size_t slash = words.net.find('/');
    const std::optional<in_addr> network = ReadIpv4(words.net.substr(0, slash));
    if (!network) return BadAddress("net", words.net, "10.0.2.0/24");
    std::uint32_t mask = UsualMask(ntohl(network->s_addr));
    if (slash != std::string::npos) {
      HF_TRY(mask, ReadMask(words.net.substr(slash + 1)));
    }
    config.mask = Ipv4(mask);
    config.network.s_addr = network->s_addr & config.mask.s_addr;
  }
  HF_TRY(config.host, ReadInside("host", words.host, config, 0x0202));
  HF_TRY(config.dhcp_start, ReadInside("dhcpstart", words.dhcpstart, config, 0x020f));
  HF_TRY(config.dns, ReadInside("dns", words.dns, config, 0x0203));
  if (config.dns.s_addr == config.host.s_addr) {
    return Fail(Errc::kInvalidArgument, "DNS must be different from host",
                "Give dns= and host= two addresses.");
  }
  if (config.dhcp_start.s_addr == config.host.s_addr ||
      config.dhcp_start.s_addr == config.dns.s_addr) {
    return Fail(Errc::kInvalidArgument, "DHCP must be different from host and DNS",
                "Give dhcpstart= an address of its own.");
  }
  return {};
}

Result<in6_addr> ReadIpv6(std::string_view name, const std::string& text, const in6_addr& prefix,
                          unsigned length, std::uint8_t standard) {
  in6_addr address = prefix;
  if (text.empty()) {
    address.s6_addr[15] = static_cast<std::uint8_t>(address.s6_addr[15] | standard);
    return address;
  }
  if (::inet_pton(AF_INET6, text.c_str(), &address) != 1) return BadAddress(name, text, "fec0::2");
  for (unsigned bit = 0; bit < length; ++bit) {
    const unsigned mask = 0x80U >> (bit % 8);
    if (((address.s6_addr[bit / 8] ^ prefix.s6_addr[bit / 8]) & mask) == 0) continue;
    return Fail(Errc::kInvalidArgument,
                fmt::format("{} address '{}' does not belong to the network", name, text),
                "Choose one inside of ipv6-net=, or change ipv6-net=.");
  }
  return address;
}

Status ReadIpv6Part(const UserWords& words, UserConfig& config) {
  const std::string prefix = words.prefix6.empty() ? "fec0::" : words.prefix6;
  if (::inet_pton(AF_INET6, prefix.c_str(), &config.prefix6) != 1) {
    return BadAddress("ipv6-prefix", prefix, "fec0::");
  }
  const std::uint64_t length = words.prefix6_length == 0 ? 64 : words.prefix6_length;
  if (length > 126) {
    return Fail(Errc::kInvalidArgument, "Invalid IPv6 prefix length",
                "ipv6-prefixlen is 1 to 126.");
  }
  config.prefix6_length = static_cast<std::uint8_t>(length);
  for (std::size_t bit = length; bit < 128; ++bit) {
    std::uint8_t& byte = config.prefix6.s6_addr[bit / 8];
    byte = static_cast<std::uint8_t>(byte & ~(0x80U >> (bit % 8)));
  }
  const auto bits = static_cast<unsigned>(length);
  HF_TRY(config.host6, ReadIpv6("ipv6-host", words.host6, config.prefix6, bits, 2));
  HF_TRY(config.dns6, ReadIpv6("ipv6-dns", words.dns6, config.prefix6, bits, 3));
  if (std::memcmp(&config.host6, &config.dns6, sizeof config.dns6) == 0) {
    return Fail(Errc::kInvalidArgument, "IPv6 DNS must be different from host",
                "Give ipv6-dns= and ipv6-host= two addresses.");
  }
  return {};
}

// What stands before `separator`, which goes too; nothing where there is none.
std::optional<std::string> TakeUntil(std::string_view& text, char separator) {
  const std::size_t end = text.find(separator);
  if (end == std::string_view::npos) return std::nullopt;
  std::string part(text.substr(0, end));
  text.remove_prefix(end + 1);
  return part;
}

std::optional<std::uint16_t> ReadPort(std::string_view text) {
  std::uint16_t port = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (text.empty() || error != std::errc{} || rest != text.data() + text.size()) {
    return std::nullopt;
  }
  return port;
}

constexpr const char* kForwardForm =
    "Write [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport, for example tcp::2222-:22.";

tl::unexpected<Error> BadForward(std::string_view rule, std::string_view why) {
  return Fail(Errc::kInvalidArgument,
              fmt::format("Invalid host forwarding rule '{}' ({})", rule, why), kForwardForm);
}

// The part that both forms share, up to the port's `end` (none: to the text's end).
Result<HostForward> ReadHostPart(std::string_view rule, std::string_view& rest,
                                 std::optional<char> end) {
  HostForward forward;
  const std::optional<std::string> protocol = TakeUntil(rest, ':');
  if (!protocol) return BadForward(rule, "No protocol");
  if (!protocol->empty() && *protocol != "tcp" && *protocol != "udp") {
    return BadForward(rule, "Bad protocol name");
  }
  forward.udp = *protocol == "udp";
  const std::optional<std::string> address = TakeUntil(rest, ':');
  if (!address) return BadForward(rule, "Missing : separator");
  if (!address->empty()) {
    const std::optional<in_addr> read = ReadIpv4(*address);
    if (!read) return BadForward(rule, "Bad host address");
    forward.host_address = *read;
  }
  std::optional<std::string> port;
  if (end) {
    port = TakeUntil(rest, *end);
    if (!port) return BadForward(rule, "Bad host port separator");
  } else {
    port = std::string(rest);
  }
  const std::optional<std::uint16_t> number = ReadPort(*port);
  if (!number) return BadForward(rule, "Bad host port");
  forward.host_port = *number;
  return forward;
}

}  // namespace

Result<HostForward> ParseHostForward(std::string_view rule) {
  std::string_view rest = rule;
  HF_TRY(HostForward forward, ReadHostPart(rule, rest, '-'));
  const std::optional<std::string> address = TakeUntil(rest, ':');
  if (!address) return BadForward(rule, "Missing guest address");
  if (!address->empty()) {
    const std::optional<in_addr> read = ReadIpv4(*address);
    if (!read) return BadForward(rule, "Bad guest address");
    forward.guest_address = *read;
  }
  const std::optional<std::uint16_t> port = ReadPort(rest);
  if (!port || *port == 0) return BadForward(rule, "Bad guest port");
  forward.guest_port = *port;
  return forward;
}

Result<HostForward> ParseHostForwardName(std::string_view name) {
  std::string_view rest = name;
  return ReadHostPart(name, rest, std::nullopt);
}

Result<UserConfig> ParseUserConfig(const object::KeyValues& values) {
  UserWords words;
  HF_TRY_STATUS(object::SetProperties<UserWords>(kProperties, kQemuOnly, words, values));
  const bool words4 = !words.net.empty() || !words.host.empty() || !words.dns.empty();
  const bool words6 = !words.prefix6.empty() || !words.host6.empty() || !words.dns6.empty();
  UserConfig config = std::move(words.config);
  config.restricted = words.restricted;
  // As in QEMU: one family turned on alone turns the other off.
  config.ipv4 = words.ipv4.value_or(!words.ipv6.value_or(false));
  config.ipv6 = words.ipv6.value_or(!words.ipv4.value_or(false));
  if (!config.ipv4 && words4) {
    return Fail(Errc::kInvalidArgument, "IPv4 disabled but netmask/host/dns provided",
                "Leave out net=, host= and dns=, or write ipv4=on.");
  }
  if (!config.ipv6 && words6) {
    return Fail(Errc::kInvalidArgument, "IPv6 disabled but prefix/host6/dns6 provided",
                "Leave out the ipv6-…= words, or write ipv6=on.");
  }
  if (!config.ipv4 && !config.ipv6) {
    return Fail(Errc::kInvalidArgument, "IPv4 and IPv6 disabled",
                "Leave one of ipv4= and ipv6= on.");
  }
  HF_TRY_STATUS(ReadIpv4Part(words, config));
  HF_TRY_STATUS(ReadIpv6Part(words, config));
  return config;
}

std::vector<object::PropertyInfo> UserProperties() {
  return {std::begin(kProperties), std::end(kProperties)};
}

}  // namespace holdfast::devices::net
