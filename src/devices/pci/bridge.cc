// SPDX-License-Identifier: Apache-2.0
#include "devices/pci/bridge.h"

#include "devices/pci/config_regs.h"
#include "devices/pci/pci_bus.h"

namespace holdfast::devices::pci {
namespace {

constexpr std::uint8_t kCapSubsystem = 0x0d;

// A window's base and limit registers hold the address' upper 12 bits of 32 (memory) or upper 4 of
// 16 (I/O); a base above the limit closes it.
std::uint32_t Upper(std::uint64_t address) noexcept {
  return static_cast<std::uint32_t>(address >> 16) & 0xfff0U;
}

}  // namespace

Bridge::Bridge(PciServices& services, const Identity& identity, std::string bus_name)
    : Function(services, {.vendor = identity.vendor,
                          .device = identity.device,
                          .class_code = identity.class_code,
                          .revision = identity.revision,
                          .interrupt_pin = identity.interrupt_pin}),
      secondary_(std::make_unique<PciBus>(std::move(bus_name), this)) {
  PresetConfig(kRegHeaderType, 1, kHeaderBridge);
  PresetConfig(kRegPrimaryBus, 4, 0, 0x00ffffff);
  // 16-bit I/O, 32-bit memory, 64-bit prefetchable memory; all closed.
  PresetConfig(kRegIoBase, 1, 0xf0, 0xf0);
  PresetConfig(kRegIoLimit, 1, 0x00, 0xf0);
  PresetConfig(kRegMemoryBase, 4, 0x0000fff0, 0xfff0fff0);
  PresetConfig(kRegPrefetchBase, 4, 0x0001fff1, 0xfff0fff0);
  PresetConfig(kRegPrefetchBaseUpper, 4, 0, 0xffffffff);
  PresetConfig(kRegPrefetchLimitUpper, 4, 0, 0xffffffff);
  PresetConfig(kRegBridgeControl, 2, 0, 0x0043);  // parity, SERR, secondary bus reset
  const std::uint8_t subsystem[] = {0,
                                    0,
                                    static_cast<std::uint8_t>(identity.subsystem_vendor),
                                    static_cast<std::uint8_t>(identity.subsystem_vendor >> 8),
                                    static_cast<std::uint8_t>(identity.subsystem),
                                    static_cast<std::uint8_t>(identity.subsystem >> 8)};
  AddCapability(kCapSubsystem, subsystem);
}

Bridge::~Bridge() = default;

Bridge::Numbers Bridge::numbers() const noexcept {
  const std::uint32_t value = PeekConfig(kRegPrimaryBus, 4);
  return {.secondary = static_cast<std::uint8_t>(value >> 8),
          .subordinate = static_cast<std::uint8_t>(value >> 16)};
}

void Bridge::Assign(std::uint8_t primary, Numbers numbers, const Window& memory,
                    const Window& prefetch, const Window& io) noexcept {
  WriteConfig(kRegPrimaryBus, 4,
              primary | (std::uint32_t{numbers.secondary} << 8) |
                  (std::uint32_t{numbers.subordinate} << 16));
  const auto last = [](const Window& window) { return window.base + window.size - 1; };
  if (memory.size != 0)
    WriteConfig(kRegMemoryBase, 4, Upper(memory.base) | (Upper(last(memory)) << 16));
  if (prefetch.size != 0) {
    WriteConfig(kRegPrefetchBase, 4, Upper(prefetch.base) | (Upper(last(prefetch)) << 16));
    WriteConfig(kRegPrefetchBaseUpper, 4, static_cast<std::uint32_t>(prefetch.base >> 32));
    WriteConfig(kRegPrefetchLimitUpper, 4, static_cast<std::uint32_t>(last(prefetch) >> 32));
  }
  if (io.size != 0)
    WriteConfig(kRegIoBase, 2,
                static_cast<std::uint32_t>(((io.base >> 8) & 0xf0U) | (last(io) & 0xf000U)));
}

}  // namespace holdfast::devices::pci
