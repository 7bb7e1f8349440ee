// SPDX-License-Identifier: Apache-2.0
// Spec: PCI Express Base 5.0, 6.7 (hotplug) and 7.5.3 (capability).
#include "devices/pci/root_port.h"

#include <fmt/format.h>

#include "base/event_loop.h"
#include "devices/pci/bridge.h"
#include "devices/pci/config_regs.h"
#include "devices/pci/pci_bus.h"

namespace holdfast::devices::pci {
namespace {

using object::Property;
using object::PropertyType;

struct PortConfig {
  std::uint8_t port = 0;
  std::uint8_t chassis = 0;
  std::uint16_t slot = 0;
  bool hotplug = true;
};

constexpr Property<PortConfig> kProperties[] = {
    {{.name = "port",
      .type = PropertyType::kUint,
      .default_text = "0",
      .description = "port number",
      .max = 0xff},
     object::SetField<&PortConfig::port>},
    {{.name = "chassis",
      .type = PropertyType::kUint,
      .default_text = "0",
      .description = "chassis the slot is in; chassis and slot name a slot",
      .max = 0xff},
     object::SetField<&PortConfig::chassis>},
    {{.name = "slot",
      .type = PropertyType::kUint,
      .default_text = "0",
      .description = "physical slot number that the guest is told",
      .max = 0x1fff},
     object::SetField<&PortConfig::slot>},
    {{.name = "hotplug",
      .type = PropertyType::kBool,
      .default_text = "on",
      .description = "whether a device may come and go while the guest runs"},
     object::SetField<&PortConfig::hotplug>},
};

Result<PortConfig> ParseConfig(const object::KeyValues& values) {
  PortConfig config;
  HF_TRY_STATUS(object::SetProperties<PortConfig>(kProperties, {}, config, values));
  return config;
}

// Registers, from the start of the PCI Express capability.
constexpr std::uint16_t kCapabilities = 0x02;
constexpr std::uint16_t kLinkCapabilities = 0x0c;
constexpr std::uint16_t kLinkStatus = 0x12;
constexpr std::uint16_t kSlotCapabilities = 0x14;
constexpr std::uint16_t kSlotControl = 0x18;
constexpr std::uint16_t kSlotStatus = 0x1a;
constexpr std::uint16_t kRootControl = 0x1c;

constexpr std::uint32_t kSlotImplemented = 1 << 8;
constexpr std::uint32_t kActiveReporting = 1 << 20;  // link capabilities
constexpr std::uint32_t kLinkUp = 0x2011;            // active, one lane of 2.5 GT/s
// Slot capabilities: attention button, power controller, both indicators, hotplug; commands are
// done as soon as they are written.
constexpr std::uint32_t kHotplugSlot = 0x1 | 0x2 | 0x8 | 0x10 | 0x40 | (1U << 18);
// Slot control.
constexpr std::uint32_t kIndicatorsOn = (1 << 6) | (1 << 8);
constexpr std::uint32_t kIndicatorsOff = (3 << 6) | (3 << 8);
constexpr std::uint32_t kPowerIndicator = 3 << 8;
constexpr std::uint32_t kPowerIndicatorOn = 1 << 8;
constexpr std::uint32_t kPowerIndicatorBlinks = 2 << 8;
constexpr std::uint32_t kPowerOff = 1 << 10;
constexpr std::uint32_t kInterruptEnable = 1 << 5;
constexpr std::uint32_t kSlotControlWritable = 0x17ff;
// Slot status: what happened. The same bits of slot control let each interrupt, but for the link's.
constexpr std::uint32_t kButtonPressed = 1 << 0;
constexpr std::uint32_t kPresenceChanged = 1 << 3;
constexpr std::uint32_t kLinkChanged = 1 << 8;
constexpr std::uint32_t kLinkChangedEnable = 1 << 12;
constexpr std::uint32_t kPresent = 1 << 6;

class RootPort final : public Bridge {
 public:
  static Result<std::unique_ptr<Function>> Create(const DeviceEnvironment& environment,
                                                  std::string_view id,
                                                  const object::KeyValues& values) {
    HF_TRY(const PortConfig config, ParseConfig(values));
    auto port = std::make_unique<RootPort>(environment, std::string(id), config);
    HF_TRY_STATUS(port->AddMsix(1, 0, 0, 0x800));
    return port;
  }

  RootPort(const DeviceEnvironment& environment, std::string id, const PortConfig& config)
      : Bridge(environment.pci,
               {.vendor = 0x1b36,
                .device = 0x000c,
                .subsystem_vendor = 0x1b36,
                .subsystem = 0x0000,
                .class_code = 0x060400},
               std::move(id)),
        loop_(environment.loop),
        hotplug_(config.hotplug),
        express_(AddExpressCapability(kExpressRootPort)) {
    AddBar(0, BarKind::kMemory32, 0x1000);
    PresetConfig(At(kCapabilities), 2, 2U | (kExpressRootPort << 4) | kSlotImplemented);
    PresetConfig(At(kLinkCapabilities), 4,
                 0x0011 | kActiveReporting | (std::uint32_t{config.port} << 24));
    PresetConfig(At(kLinkStatus), 2, 0);
    PresetConfig(At(kSlotCapabilities), 4,
                 (hotplug_ ? kHotplugSlot : 0U) | (std::uint32_t{config.slot} << 19));
    PresetConfig(At(kSlotControl), 2, kIndicatorsOff | kPowerOff,
                 hotplug_ ? kSlotControlWritable : 0U);
    ClearByOne(At(kSlotStatus), 2, kButtonPressed | kPresenceChanged | kLinkChanged);
    ChangesItself(At(kSlotStatus), 2, kPresent);
    ChangesItself(At(kLinkStatus), 2, kLinkUp);
    PresetConfig(At(kRootControl), 2, 0, 0x001f);
  }

  std::string_view name() const noexcept override { return kPcieRootPort.name; }
  bool hotplug() const noexcept override { return hotplug_; }

  void OccupantCame() noexcept override {
    ShowOccupant();
    Happened(kPresenceChanged | kLinkChanged);
  }
  void OccupantWent() noexcept override {
    ShowOccupant();
    Happened(kPresenceChanged | kLinkChanged);
  }
  void RequestRemoval() noexcept override {
    asked_ = true;
    Happened(kButtonPressed);
  }
  bool busy() const noexcept override { return indicator_ == kPowerIndicatorBlinks; }

  // As firmware leaves it: an occupied slot has power.
  void Reset() noexcept override {
    Bridge::Reset();
    ShowOccupant();
    const bool occupied = !secondary().empty();
    PokeConfig(At(kSlotControl), 2, occupied ? kIndicatorsOn : kIndicatorsOff | kPowerOff);
    powered_ = occupied;
    asked_ = false;
    indicator_ = 0;
    Bridge::SetIntx(false);
  }

  void VisitState(state::Fields& fields) override {
    Bridge::VisitState(fields);
    bool powered = powered_;
    bool asked = asked_;
    bool wanted = wanted_;
    std::uint32_t indicator = indicator_;
    fields.Value("powered", powered);
    fields.Value("asked", asked);
    fields.Value("wanted", wanted);
    fields.Value("indicator", indicator);
    fields.Check((indicator & ~kPowerIndicator) == 0, "the power indicator has no such state");
    if (!fields.loading() || !fields.ok()) return;
    powered_ = powered;
    asked_ = asked;
    wanted_ = wanted;
    indicator_ = indicator;
  }

  void ConfigWritten(std::uint16_t offset, unsigned size) noexcept override {
    if (offset >= At(kSlotStatus) + 2 || offset + size <= At(kSlotControl)) return;
    const std::uint32_t control = PeekConfig(At(kSlotControl), 2);
    const bool powered = (control & kPowerOff) == 0;
    // The guest lets its occupant go: no power, and the light is out.
    const bool let_go = !powered && (control & kPowerIndicator) == kPowerIndicator;
    if (powered) powered_ = true;
    if (let_go && powered_.exchange(false) && released()) {
      asked_ = false;
      loop_.Post([released = released()] { released(); });
    }
    // The light blinked and is on again: what was asked for, the guest will not do.
    const std::uint32_t indicator = control & kPowerIndicator;
    const bool blinked = indicator_.exchange(indicator) == kPowerIndicatorBlinks;
    if (blinked && powered && indicator == kPowerIndicatorOn && asked_.exchange(false) &&
        refused()) {
      loop_.Post([refused = refused()] { refused(); });
    }
    UpdateInterrupt(false);
  }

 private:
  std::uint16_t At(std::uint16_t reg) const noexcept {
    return static_cast<std::uint16_t>(express_ + reg);
  }

  void ShowOccupant() noexcept {
    const bool occupied = !secondary().empty();
    const std::uint32_t status = PeekConfig(At(kSlotStatus), 2) & ~kPresent;
    PokeConfig(At(kSlotStatus), 2, status | (occupied ? kPresent : 0U));
    PokeConfig(At(kLinkStatus), 2, occupied ? kLinkUp : 0);
  }

  void Happened(std::uint32_t events) noexcept {
    PokeConfig(At(kSlotStatus), 2, PeekConfig(At(kSlotStatus), 2) | events);
    UpdateInterrupt(true);
  }

  // A message is sent when something happens, the line is up as long as something stands there.
  void UpdateInterrupt(bool happened) noexcept {
    const std::uint32_t control = PeekConfig(At(kSlotControl), 2);
    const std::uint32_t enabled = (control & (kButtonPressed | kPresenceChanged)) |
                                  ((control & kLinkChangedEnable) != 0 ? kLinkChanged : 0U);
    const bool wanted =
        (control & kInterruptEnable) != 0 && (PeekConfig(At(kSlotStatus), 2) & enabled) != 0;
    if (msix_enabled()) {
      SetIntx(false);
      if (wanted && (happened || !wanted_.exchange(wanted))) (void)TriggerMsix(0);
      wanted_ = wanted;
      return;
    }
    wanted_ = wanted;
    SetIntx(wanted);
  }

  EventLoop& loop_;
  const bool hotplug_;
  const std::uint16_t express_;
  std::atomic<bool> powered_ = false;
  std::atomic<bool> asked_ = false;  // to let the occupant go, and has not answered
  std::atomic<std::uint32_t> indicator_ = 0;
  std::atomic<bool> wanted_ = false;
};

}  // namespace

constinit const DeviceModel kPcieRootPort = {
    .name = "pcie-root-port",
    .description = "PCI Express Root Port",
    .properties =
        [] {
          return std::vector<object::PropertyInfo>(std::begin(kProperties), std::end(kProperties));
        },
    .check = [](const object::KeyValues& values) -> Status {
      HF_TRY_STATUS(ParseConfig(values));
      return {};
    },
    .create = &RootPort::Create,
};

}  // namespace holdfast::devices::pci
