// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::devices::net {

class NetBackend;

using MacAddress = std::array<std::uint8_t, 6>;

/// "52:54:00:12:34:56".
std::string MacText(const MacAddress& mac);
/// One of QEMU's kind (52:54:…) that nobody else has, by all chances.
MacAddress RandomMac();
/// Reads that form. @return whether `text` has it
bool ReadMac(std::string_view text, MacAddress& mac) noexcept;

/// Which frames a network card lets through, as the driver has set it.
struct RxFilter {
  bool promiscuous = false;
  bool all_unicast = false, no_unicast = false;
  bool all_multicast = false, no_multicast = false, no_broadcast = false;
  bool unicast_overflow = false, multicast_overflow = false;
  bool filters_vlans = false;
  MacAddress main_mac = {};
  std::vector<MacAddress> unicast = {}, multicast = {};
  std::vector<std::uint16_t> vlans = {};  ///< where filters_vlans: those that pass
};

/// A guest's network card as the control protocol knows it.
///
/// Thread-safety: the main loop's thread.
class Nic {
 public:
  Nic() = default;
  Nic(const Nic&) = delete;
  Nic& operator=(const Nic&) = delete;
  virtual ~Nic() = default;

  /// The device's id; without one, a name of its own.
  virtual const std::string& nic_name() const noexcept = 0;
  virtual std::string_view model() const noexcept = 0;
  /// What it was given; the driver may have set another since.
  virtual MacAddress mac() const = 0;
  /// Gives it another, in the middle of its work. The driver goes on with the one it has until it
  /// looks again (Linux: when it is bound anew), and frames for that one still arrive.
  virtual void SetMac(const MacAddress& mac) = 0;
  /// Null without one.
  virtual NetBackend* backend() const noexcept = 0;
  virtual bool link() const noexcept = 0;
  virtual void SetLink(bool up) = 0;
  /// The back end is about to go: nothing is sent to it any more, the link is down for good.
  virtual void DropBackend() = 0;
  virtual RxFilter rx_filter() = 0;
  /// Makes itself known to the switches around it. @return whether the driver helps
  virtual bool Announce() = 0;
};

}  // namespace holdfast::devices::net
