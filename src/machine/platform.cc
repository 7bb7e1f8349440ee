// SPDX-License-Identifier: Apache-2.0
#include "machine/platform.h"

#include <fmt/format.h>

#include "devices/acpi_pm_regs.h"
#include "devices/serial_regs.h"

namespace holdfast::machine {
namespace {

// COM1 to COM4 of a PC. COM1 and COM3, COM2 and COM4 share an interrupt.
struct SerialPort {
  std::uint16_t io;
  std::uint32_t irq;
};
constexpr std::array<SerialPort, 4> kSerialPorts = {SerialPort{0x3f8, 4}, SerialPort{0x2f8, 3},
                                                    SerialPort{0x3e8, 4}, SerialPort{0x2e8, 3}};
constexpr std::uint64_t kSerialPortSize = 8;

}  // namespace

Platform::Platform(EventLoop& loop, const kvm::Vm& vm, const AddressSpace& memory,
                   const MachineConfig& config, const devices::CmosConfig& cmos,
                   const Requests& requests)
    : sci_(vm, devices::acpi::kSciIrq),
      rtc_line_(vm, devices::Rtc::kIrq),
      pm_(sci_, {.reset = requests.reset, .shutdown = requests.shutdown}),
      rtc_(&loop, rtc_line_, cmos, MakeRtcClock(config.rtc, running_time_)),
      i8042_(requests.reset),
      fw_cfg_(memory) {
  for (std::size_t i = 0; i < kSerialPorts.size(); ++i) {
    if (config.serial[i] == nullptr) continue;
    serial_lines_[i] = std::make_unique<GsiLine>(vm, kSerialPorts[i].irq);
    serials_[i] = std::make_unique<devices::Serial>(config.serial[i], *serial_lines_[i]);
  }
  rtc_.SetTimeChanged(requests.time_set);
  if (config.rtc.clock == RtcConfig::Clock::kHost) rtc_.CatchUpWith(&HostTime);
  if (config.debug_exit) debug_exit_ = std::make_unique<devices::DebugExit>(requests.exit);
  if (config.pvpanic) {
    pvpanic_ = std::make_unique<devices::Pvpanic>(config.pvpanic->events, requests.panic);
  }
}

Result<std::unique_ptr<Platform>> Platform::Create(EventLoop& loop, const kvm::Vm& vm,
                                                   const AddressSpace& memory,
                                                   const MachineConfig& config,
                                                   const devices::CmosConfig& cmos,
                                                   const Requests& requests) {
  std::unique_ptr<Platform> platform(new Platform(loop, vm, memory, config, cmos, requests));
  HF_TRY_STATUS(platform->MapDevices(config));
  return platform;
}

Status Platform::MapDevices(const MachineConfig& config) {
  HF_TRY_STATUS(pm_.MapOn(io_));
  HF_TRY_STATUS(i8042_.MapOn(io_));
  HF_TRY_STATUS(io_.Map(devices::Rtc::kPort, devices::Rtc::kPortCount, rtc_));
  HF_TRY_STATUS(io_.Map(devices::FwCfg::kPort, devices::FwCfg::kPortCount, fw_cfg_));
  for (std::size_t i = 0; i < kSerialPorts.size(); ++i) {
    if (serials_[i] == nullptr) continue;
    HF_TRY_STATUS(io_.Map(kSerialPorts[i].io, kSerialPortSize, *serials_[i]));
  }
  if (debug_exit_ != nullptr) {
    HF_TRY_STATUS(io_.Map(config.debug_exit->iobase, config.debug_exit->iosize, *debug_exit_));
  }
  if (pvpanic_ != nullptr) HF_TRY_STATUS(io_.Map(config.pvpanic->ioport, 1, *pvpanic_));
  return {};
}

void Platform::ListState(std::vector<state::Section>& sections) {
  const auto add = [&sections](std::string name, auto& device) {
    sections.push_back({.name = std::move(name),
                        .visit = [&device](state::Fields& fields) { device.VisitState(fields); }});
  };
  add("acpi-pm", pm_);
  add("rtc", rtc_);
  add("i8042", i8042_);
  add("fw-cfg", fw_cfg_);
  for (std::size_t i = 0; i < serials_.size(); ++i) {
    if (serials_[i] != nullptr) add(fmt::format("serial/{}", i), *serials_[i]);
  }
}

void Platform::Reset() noexcept {
  pm_.Reset();
  rtc_.Reset();
  i8042_.Reset();
  fw_cfg_.Reset();
  for (const auto& serial : serials_)
    if (serial != nullptr) serial->Reset();
}

}  // namespace holdfast::machine
