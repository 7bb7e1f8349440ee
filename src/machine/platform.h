// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/state.h"
#include "devices/acpi_pm.h"
#include "devices/bus.h"
#include "devices/debug_exit.h"
#include "devices/fw_cfg.h"
#include "devices/i8042.h"
#include "devices/pvpanic.h"
#include "devices/rtc.h"
#include "devices/serial.h"
#include "machine/config.h"
#include "machine/gsi_line.h"

namespace holdfast {
class EventLoop;
}

namespace holdfast::machine {

/// The devices a PC has without anybody asking, and the ISA ones from the command line, on their
/// ports and interrupt lines. The interrupt controllers and the timer are KVM's.
///
/// Thread-safety: built and reset on the main thread with the vCPUs standing; the buses are read
/// by vCPU threads, the devices lock themselves.
class Platform {
 public:
  /// What devices ask of the machine; called on the vCPU's thread.
  struct Requests {
    std::function<void()> reset;
    std::function<void()> shutdown;
    std::function<void(devices::Pvpanic::Event)> panic;
    std::function<void(int status)> exit;
    /// The guest has set its clock; it differs from what -rtc says by so many seconds.
    std::function<void(std::int64_t seconds)> time_set;
  };

  /// `loop`, `vm` and `memory` outlive the platform.
  static Result<std::unique_ptr<Platform>> Create(EventLoop& loop, const kvm::Vm& vm,
                                                  const AddressSpace& memory,
                                                  const MachineConfig& config,
                                                  const devices::CmosConfig& cmos,
                                                  const Requests& requests);
  Platform(const Platform&) = delete;
  Platform& operator=(const Platform&) = delete;
  ~Platform() = default;

  const devices::Bus& io() const noexcept { return io_; }
  const devices::Bus& mmio() const noexcept { return mmio_; }
  devices::Bus& io_bus() noexcept { return io_; }
  devices::Bus& mmio_bus() noexcept { return mmio_; }
  /// To be filled before the guest runs.
  devices::FwCfg& fw_cfg() noexcept { return fw_cfg_; }
  void Reset() noexcept;
  /// Adds a section for each device that has a state.
  void ListState(std::vector<state::Section>& sections);
  /// Whether the guest runs from now on: for a clock that stands with it.
  void SetRunning(bool running) { running_time_.Set(running); }
  /// Tells the guest that vmgenid's number has changed.
  void TellNewGeneration() noexcept { pm_.Raise(devices::acpi::kGenerationEvent); }
  void PressPowerButton() noexcept { pm_.PressPowerButton(); }
  void SendBreak(std::size_t port) noexcept {
    if (port < serials_.size() && serials_[port] != nullptr) serials_[port]->ReceiveBreak();
  }

 private:
  Platform(EventLoop& loop, const kvm::Vm& vm, const AddressSpace& memory,
           const MachineConfig& config, const devices::CmosConfig& cmos, const Requests& requests);
  Status MapDevices(const MachineConfig& config);

  // Lines before devices: a device may lower its line when it goes.
  GsiLine sci_;
  GsiLine rtc_line_;
  std::array<std::unique_ptr<GsiLine>, 4> serial_lines_;
  devices::AcpiPm pm_;
  RunningTime running_time_;
  devices::Rtc rtc_;
  devices::I8042 i8042_;
  devices::FwCfg fw_cfg_;
  std::array<std::unique_ptr<devices::Serial>, 4> serials_;
  std::unique_ptr<devices::DebugExit> debug_exit_;
  std::unique_ptr<devices::Pvpanic> pvpanic_;
  devices::Bus io_;
  devices::Bus mmio_;
};

}  // namespace holdfast::machine
