// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/error.h>

#include "devices/bus.h"
#include "devices/pci/function.h"
#include "object/keyval.h"

namespace holdfast::devices::pci {

class Bridge;

/// A function's place on its bus: slot 0 to 31, function 0 to 7.
struct SlotFunction {
  std::uint8_t slot = 0;
  std::uint8_t function = 0;
  auto operator<=>(const SlotFunction&) const = default;
};

/// Reads `addr=` as QEMU does: "5", "05.0", "0x1f.7", the numbers being hexadecimal. Empty if it is
/// nothing of the kind.
std::optional<SlotFunction> ParseSlotFunction(std::string_view text);

/// Where and under which name a function is put.
struct Placement {
  std::string id = {};                                 ///< the user's; may be empty
  std::string model = {};                              ///< for messages
  std::optional<SlotFunction> address = std::nullopt;  ///< empty: the first free slot
  bool multifunction = false;
  object::KeyValues values = {};        ///< what the user said of it, for listings
  std::vector<std::string> buses = {};  ///< those it makes for other devices
};

/// A BAR of a function as a device on the I/O or memory bus.
class BarDevice final : public BusDevice {
 public:
  BarDevice(Function& function, unsigned bar) noexcept : function_(function), bar_(bar) {}
  std::string_view name() const noexcept override { return function_.name(); }
  void Read(std::uint64_t offset, std::span<std::byte> data) noexcept override {
    function_.AccessReadBar(bar_, offset, data);
  }
  void Write(std::uint64_t offset, std::span<const std::byte> data) noexcept override {
    function_.AccessWriteBar(bar_, offset, data);
  }
  void Reset() noexcept override {}

 private:
  Function& function_;
  const unsigned bar_;
};

/// One PCI bus and the functions on it.
///
/// Thread-safety: changed on the main thread while no vCPU runs; vCPU threads look functions up.
class PciBus {
 public:
  static constexpr unsigned kSlots = 32;
  static constexpr unsigned kFunctions = 8;

  struct Occupant {
    Placement placement;  // with its address filled in
    std::unique_ptr<Function> function;
    Bridge* bridge = nullptr;  // `function`, if it is one
    std::vector<std::unique_ptr<BarDevice>> bars;
    bool leaving = false;  // the guest was asked to let it go
    std::chrono::steady_clock::time_point asked_again_from = {};  // before, it has time to do that
  };

  /// @param parent  the bridge it is behind; null for a root bus. A port's bus has slot 0 only.
  PciBus(std::string name, Bridge* parent);
  PciBus(const PciBus&) = delete;
  PciBus& operator=(const PciBus&) = delete;
  ~PciBus();

  const std::string& name() const noexcept { return name_; }
  Bridge* parent() const noexcept { return parent_; }

  /// Judges whether a function may be put there, as QEMU does and in its words, and finds a free
  /// slot if none is asked for.
  Result<SlotFunction> Choose(const Placement& placement) const;
  /// Puts a function where Choose() said.
  Occupant& Put(Placement placement, SlotFunction where, std::unique_ptr<Function> function);
  /// Takes it away; null if there is none.
  std::unique_ptr<Occupant> Take(SlotFunction where) noexcept;

  Occupant* At(unsigned slot, unsigned function) const noexcept {
    return slot < kSlots && function < kFunctions ? occupants_[slot * kFunctions + function].get()
                                                  : nullptr;
  }
  /// Calls fn(Occupant&) in order of addresses.
  template <typename Fn>
  void ForEach(Fn&& fn) const {
    for (const auto& occupant : occupants_)
      if (occupant != nullptr) fn(*occupant);
  }
  bool empty() const noexcept;

 private:
  const std::string name_;
  Bridge* const parent_;
  std::array<std::unique_ptr<Occupant>, std::size_t{kSlots} * kFunctions> occupants_;
};

}  // namespace holdfast::devices::pci
