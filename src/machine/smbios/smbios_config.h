// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace holdfast::machine {

/// What `-smbios` says: the fields of the tables, as QEMU names them. Empty texts stay out of the
/// tables. Speeds are in MHz.
struct SmbiosConfig {
  /// type=0
  struct Bios {
    std::string vendor = "Holdfast";
    std::string version;
    std::string date = "01/01/2026";
    std::uint8_t major = 0;
    std::uint8_t minor = 0;
    bool uefi = false;
  };
  /// type=1
  struct System {
    std::string manufacturer = "Holdfast";
    std::string product = "Holdfast Virtual Machine";
    std::string version;
    std::string serial;
    std::string uuid = "00000000-0000-0000-0000-000000000000";  ///< also -uuid; well formed
    std::string sku;
    std::string family;
  };
  /// type=2; there is no such table unless asked for
  struct Board {
    std::string manufacturer = "Holdfast";
    std::string product;
    std::string version;
    std::string serial;
    std::string asset;
    std::string location;
  };
  /// type=3
  struct Chassis {
    std::string manufacturer = "Holdfast";
    std::string version;
    std::string serial;
    std::string asset;
    std::string sku;
  };
  /// type=4, one for each socket
  struct Processor {
    std::string socket_prefix = "CPU";
    std::string manufacturer = "Holdfast";
    std::string version;
    std::string serial;
    std::string asset;
    std::string part;
    std::uint16_t max_speed = 2000;
    std::uint16_t current_speed = 2000;
    std::uint16_t family = 1;  ///< other
    std::optional<std::uint64_t> id;
  };
  /// A text of type=11, given itself or as a file that holds it.
  struct OemString {
    std::string value;
    std::string path;
  };
  /// type=17, one for each 16 GiB
  struct MemoryDevice {
    std::string locator_prefix = "DIMM";
    std::string bank;
    std::string manufacturer = "Holdfast";
    std::string serial;
    std::string asset;
    std::string part;
    std::uint16_t speed = 0;
  };

  Bios bios;
  System system;
  std::optional<Board> board;
  Chassis chassis;
  Processor processor;
  std::vector<OemString> oem_strings;
  MemoryDevice memory_device;
  /// file=: each holds one structure, which replaces those of its type made here.
  std::vector<std::string> files;
};

}  // namespace holdfast::machine
