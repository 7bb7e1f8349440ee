// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "devices/device_request.h"
#include "machine/actions.h"
#include "machine/numa.h"
#include "machine/rtc_clock.h"
#include "machine/smbios/smbios_config.h"

namespace holdfast::devices {
struct Backends;
class Chardev;
}  // namespace holdfast::devices
namespace holdfast::object {
class ConfidentialGuest;
}

namespace holdfast::machine {

/// xAPIC ids end at 254 (255 is broadcast); the MADT's local APIC entries need them.
inline constexpr unsigned kMaxCpus = 255;
inline constexpr std::uint64_t kDefaultRamSize = 128ULL << 20;  // as QEMU

/// `-smp`: filled in completely, sockets * cores * threads == max_cpus.
struct CpuTopology {
  unsigned cpus = 1;
  unsigned max_cpus = 1;
  unsigned sockets = 1;
  unsigned cores = 1;
  unsigned threads = 1;
};

/// `-device isa-debug-exit,iobase=,iosize=`: the guest ends the monitor with (value << 1) | 1.
struct DebugExitConfig {
  std::uint16_t iobase = 0x501;
  std::uint16_t iosize = 0x02;
};

/// `-device pvpanic,ioport=,events=`.
struct PvpanicConfig {
  std::uint16_t ioport = 0x505;
  std::uint8_t events = 0x03;
};

/// `-device vmgenid,guid=`.
struct VmgenidConfig {
  std::string guid = "auto";  ///< or a well-formed UUID; auto: a random one
};

/// `-fw_cfg name=,string=` or `,file=`.
struct FwCfgFile {
  std::string name;
  std::string text;
  std::string path;  ///< empty: `text` is it
};

/// All a machine is built from; the command line's answer. Everything is checked for form already;
/// what only the host can tell (does the kernel load, does RAM fit) is checked by Machine::Create.
struct MachineConfig {
  std::string kernel;   // -kernel, empty: none
  std::string initrd;   // -initrd, empty: none
  std::string cmdline;  // -append
  /// What the user asked for the RAM with, for messages about its size.
  std::string ram_option = "-m";
  /// -m slots=, maxmem=: how far memory may grow by hot-plug. There are no memory devices yet, so
  /// that this is an answer for the control protocol and the guest is told nothing of it.
  std::uint64_t ram_slots = 0;
  std::uint64_t max_ram_size = 0;  // bytes; 0: as much as there is
  bool mem_merge = true;           ///< -machine mem-merge=: for backends that do not say
  bool dump_guest_core = true;     ///< -machine dump-guest-core=: likewise
  CpuTopology smp;
  NumaConfig numa;
  std::array<devices::Chardev*, 4> serial{};  // COM1 to COM4, null: no such port; not owned
  std::optional<DebugExitConfig> debug_exit;
  std::optional<PvpanicConfig> pvpanic;
  RtcConfig rtc;
  std::optional<VmgenidConfig> vmgenid;
  std::vector<FwCfgFile> fw_cfg;
  SmbiosConfig smbios;
  /// -machine confidential-guest-support=: who keeps memory from the host. Null: nobody; else it
  /// outlives the machine, and the RAM blocks convert as its Initialize() said.
  object::ConfidentialGuest* confidential = nullptr;
  /// -device, but for the ISA ones above; in order.
  std::vector<devices::DeviceRequest> devices;
  /// What they may name. Null: nothing; else it outlives the machine.
  const devices::Backends* backends = nullptr;
  bool no_reboot = false;    // -no-reboot: a guest reset ends the monitor
  bool no_shutdown = false;  // -no-shutdown: a guest power-off stops the vCPUs instead
  PanicPolicy panic = PanicPolicy::kShutdown;        ///< -action panic=
  WatchdogAction watchdog = WatchdogAction::kReset;  ///< -action watchdog=
  bool start_paused = false;                         // -S
  /// -incoming: the state comes from elsewhere. Nothing is loaded into RAM and no vCPU is put on an
  /// entry point; the machine waits in RunState::kInMigrate for Machine::LoadState(). A reset of
  /// the guest after that loads kernel and tables as ever.
  bool incoming = false;
};

}  // namespace holdfast::machine
