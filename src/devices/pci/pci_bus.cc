// SPDX-License-Identifier: Apache-2.0
#include "devices/pci/pci_bus.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "devices/pci/bridge.h"
#include "devices/pci/config_regs.h"

namespace holdfast::devices::pci {
namespace {

std::optional<unsigned> ParseHex(std::string_view text) {
  if (text.starts_with("0x") || text.starts_with("0X")) text.remove_prefix(2);
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::optional<SlotFunction> ParseSlotFunction(std::string_view text) {
  const std::size_t dot = text.find('.');
  const auto slot = ParseHex(text.substr(0, dot));
  const auto function =
      dot == std::string_view::npos ? std::optional(0U) : ParseHex(text.substr(dot + 1));
  if (!slot || !function || *slot >= PciBus::kSlots || *function >= PciBus::kFunctions)
    return std::nullopt;
  return SlotFunction{static_cast<std::uint8_t>(*slot), static_cast<std::uint8_t>(*function)};
}

PciBus::PciBus(std::string name, Bridge* parent) : name_(std::move(name)), parent_(parent) {}
PciBus::~PciBus() = default;

bool PciBus::empty() const noexcept {
  return std::ranges::all_of(occupants_, [](const auto& one) { return one == nullptr; });
}

Result<SlotFunction> PciBus::Choose(const Placement& placement) const {
  if (!placement.address) {
    const unsigned slots = parent_ != nullptr ? 1 : kSlots;
    for (unsigned slot = 0; slot < slots; ++slot) {
      bool taken = false;
      for (unsigned function = 0; function < kFunctions; ++function)
        taken = taken || At(slot, function) != nullptr;
      if (!taken) return SlotFunction{static_cast<std::uint8_t>(slot), 0};
    }
    return Fail(Errc::kInvalidArgument,
                fmt::format("PCI: no slot/function available for {}, all in use or reserved",
                            placement.model),
                fmt::format("The bus is '{}'; more room is behind a pcie-root-port.", name_));
  }
  const SlotFunction where = *placement.address;
  if (parent_ != nullptr && where.slot != 0) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("PCI: slot {} is not valid for {}, parent device only allows plugging "
                            "into slot 0.",
                            where.slot, placement.model));
  }
  if (const Occupant* other = At(where.slot, where.function)) {
    return Fail(
        Errc::kInvalidArgument,
        fmt::format("PCI: slot {} function {} not available for {}, in use by {},id={}", where.slot,
                    where.function, placement.model, other->placement.model, other->placement.id));
  }
  const Occupant* first = At(where.slot, 0);
  if (where.function != 0 && first != nullptr && !first->placement.multifunction) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("PCI: single function device can't be populated in function {:x}.{:x}",
                            where.slot, where.function),
                "Give the device at function 0 multifunction=on.");
  }
  if (where.function == 0 && !placement.multifunction) {
    for (unsigned function = 1; function < kFunctions; ++function) {
      if (At(where.slot, function) == nullptr) continue;
      return Fail(Errc::kInvalidArgument,
                  fmt::format("PCI: {:x}.0 indicates single function, but {:x}.{:x} is already "
                              "populated.",
                              where.slot, where.slot, function),
                  "Give the device at function 0 multifunction=on.");
    }
  }
  return where;
}

PciBus::Occupant& PciBus::Put(Placement placement, SlotFunction where,
                              std::unique_ptr<Function> function) {
  auto occupant = std::make_unique<Occupant>();
  placement.address = where;
  occupant->bridge = dynamic_cast<Bridge*>(function.get());
  if (placement.multifunction) {
    const std::uint32_t type = function->PeekConfig(kRegHeaderType, 1);
    function->PresetConfig(kRegHeaderType, 1, type | kHeaderMultifunction);
  }
  for (unsigned bar = 0; bar < Function::kBars; ++bar)
    occupant->bars.push_back(std::make_unique<BarDevice>(*function, bar));
  occupant->placement = std::move(placement);
  occupant->function = std::move(function);
  auto& place = occupants_.at(std::size_t{where.slot} * kFunctions + where.function);
  place = std::move(occupant);
  return *place;
}

std::unique_ptr<PciBus::Occupant> PciBus::Take(SlotFunction where) noexcept {
  return std::move(occupants_.at(std::size_t{where.slot} * kFunctions + where.function));
}

}  // namespace holdfast::devices::pci
