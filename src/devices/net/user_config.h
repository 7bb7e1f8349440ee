// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <netinet/in.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/error.h>

#include "object/keyval.h"
#include "object/property.h"

namespace holdfast::devices::net {

/// A port of the host that leads to one of the guest: one `hostfwd=`.
struct HostForward {
  bool udp = false;
  in_addr host_address = {};  ///< any, if zero
  std::uint16_t host_port = 0;
  in_addr guest_address = {};  ///< the first that DHCP gives, if zero
  std::uint16_t guest_port = 0;
};

/// The network that `-netdev user` makes, checked and complete. Addresses in network order.
struct UserConfig {
  bool ipv4 = true;
  in_addr network = {};
  in_addr mask = {};
  in_addr host = {};
  in_addr dhcp_start = {};
  in_addr dns = {};
  bool ipv6 = true;
  in6_addr prefix6 = {};
  std::uint8_t prefix6_length = 64;
  in6_addr host6 = {};
  in6_addr dns6 = {};
  bool restricted = false;
  std::string hostname;
  std::string domain_name;
  std::vector<std::string> dns_search;
  std::string tftp_folder;
  std::string tftp_server;
  std::string boot_file;
  std::vector<HostForward> forwards;
};

/// Reads `[tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport`. @return kInvalidArgument
Result<HostForward> ParseHostForward(std::string_view rule);
/// Reads `[tcp|udp]:[hostaddr]:hostport`, which names a rule to take away; the guest's part of the
/// answer is empty. @return kInvalidArgument
Result<HostForward> ParseHostForwardName(std::string_view name);

/// Reads the properties of `-netdev user` (without type and id) by QEMU's rules.
Result<UserConfig> ParseUserConfig(const object::KeyValues& values);
/// Its properties, for help texts.
std::vector<object::PropertyInfo> UserProperties();

}  // namespace holdfast::devices::net
