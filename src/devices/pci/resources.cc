// SPDX-License-Identifier: Apache-2.0
// What a PC's firmware does before the operating system starts: bus numbers, places for BARs and
// windows of bridges. Kernels keep what they find if it lies in the host bridge's windows.
#include <fmt/format.h>
#include <holdfast/units.h>

#include <algorithm>
#include <vector>

#include "base/log.h"
#include "devices/pci/bridge.h"
#include "devices/pci/config_regs.h"
#include "devices/pci/pci_host.h"

namespace holdfast::devices::pci {
namespace {

// Room that a port has for functions that come later, as much as Linux gives by itself.
constexpr std::uint64_t kHotplugMemory = 2 * kMiB;
constexpr std::uint64_t kHotplugPrefetch = 2 * kMiB;

/// Hands out pieces of a range, aligned, from below.
class Allocator {
 public:
  explicit Allocator(const AddressRange& range)
      : next_(range.base), end_(range.base + range.size) {}
  std::optional<std::uint64_t> Take(std::uint64_t size, std::uint64_t alignment) {
    const auto up = CheckedAdd(next_, alignment - 1);
    if (!up) return std::nullopt;
    const std::uint64_t base = AlignDown(*up, alignment);
    if (base > end_ || size > end_ - base) return std::nullopt;
    next_ = base + size;
    return base;
  }
  std::uint64_t next() const noexcept { return next_; }

 private:
  std::uint64_t next_;
  std::uint64_t end_;
};

struct Allocators {
  Allocator io;
  Allocator memory32;
  Allocator memory64;
};

struct Wish {
  PciBus::Occupant* occupant;
  unsigned bar;
  Function::BarInfo info;
};

// Largest first: each piece then lies right behind the one before.
std::vector<Wish> WishesOf(const PciBus& bus) {
  std::vector<Wish> wishes;
  bus.ForEach([&](PciBus::Occupant& occupant) {
    for (unsigned bar = 0; bar < Function::kBars; ++bar) {
      const Function::BarInfo info = occupant.function->bar(bar);
      if (info.size != 0) wishes.push_back({&occupant, bar, info});
    }
  });
  std::ranges::sort(wishes, [](const Wish& a, const Wish& b) {
    if (a.info.size != b.info.size) return a.info.size > b.info.size;
    const auto order = [](const Wish& wish) {
      return std::pair(wish.occupant->placement.address, wish.bar);
    };
    return order(a) < order(b);
  });
  return wishes;
}

void Place(const PciBus& bus, Allocators& from, const Bus& ports) {
  for (const Wish& wish : WishesOf(bus)) {
    const std::uint64_t size = wish.info.size;
    std::optional<std::uint64_t> base;
    if (wish.info.kind == BarKind::kIo) {
      // A user may have put an ISA device into the window.
      const auto meets = [&](std::uint64_t at) {
        bool taken = false;
        ports.ForEach([&](std::uint64_t other, std::uint64_t length, const BusDevice&) {
          taken = taken || (at < other + length && other < at + size);
        });
        return taken;
      };
      do {
        base = from.io.Take(size, size);
      } while (base && meets(*base));
    } else {
      // Behind a bridge only prefetchable BARs may lie above 4 GiB.
      const bool high = wish.info.kind == BarKind::kMemory64Prefetchable ||
                        (wish.info.kind == BarKind::kMemory64 && bus.parent() == nullptr);
      if (high) base = from.memory64.Take(size, size);
      if (!base) base = from.memory32.Take(size, size);
    }
    if (base) {
      wish.occupant->function->PlaceBar(wish.bar, GuestAddress(*base));
    } else {
      log::Warn(fmt::format("there is no room for BAR {} of {} '{}', {}: the guest may not see it",
                            wish.bar, wish.occupant->placement.model, wish.occupant->placement.id,
                            FormatSize(size)));
    }
  }
}

// The bridges of `bus` and what is behind them. @return the last bus number given away
std::uint8_t PlaceBridges(const PciBus& bus, std::uint8_t number, Allocators& from,
                          const Bus& ports) {
  std::uint8_t last = number;
  bus.ForEach([&](PciBus::Occupant& occupant) {
    if (occupant.bridge == nullptr || last == 0xff) return;
    const auto secondary = static_cast<std::uint8_t>(last + 1);
    Bridge& bridge = *occupant.bridge;
    // Functions are found through the numbers, so a bridge has them before what is behind it.
    bridge.Assign(number, {secondary, 0xff}, {}, {}, {});
    // A window starts where the allocators stand, rounded up, and ends where they stand after
    // everything behind the bridge has its place.
    const auto open = [](Allocator& allocator, std::uint64_t unit) {
      return allocator.Take(0, unit);
    };
    const auto memory = open(from.memory32, kMiB);
    const auto prefetch = open(from.memory64, kMiB);
    const auto io = open(from.io, 4 * kKiB);
    Place(bridge.secondary(), from, ports);
    last = PlaceBridges(bridge.secondary(), secondary, from, ports);
    const auto close = [](Allocator& allocator, std::optional<std::uint64_t> base,
                          std::uint64_t least, std::uint64_t unit) -> Bridge::Window {
      if (!base) return {};
      const std::uint64_t used = allocator.next() - *base;
      if (used < least && !allocator.Take(least - used, 1)) return {};
      if (!allocator.Take(0, unit)) return {};
      return {*base, allocator.next() - *base};
    };
    const std::uint64_t reserve = bridge.hotplug() ? kHotplugMemory : 0;
    const Bridge::Window memory_window = close(from.memory32, memory, reserve, kMiB);
    const Bridge::Window prefetch_window =
        close(from.memory64, prefetch, bridge.hotplug() ? kHotplugPrefetch : 0, kMiB);
    const Bridge::Window io_window = close(from.io, io, 0, 4 * kKiB);
    bridge.Assign(number, {secondary, last}, memory_window, prefetch_window, io_window);
  });
  return last;
}

}  // namespace

void PciHost::AssignResources() {
  Allocators from{Allocator(windows_.io), Allocator(windows_.memory32),
                  Allocator(windows_.memory64)};
  Place(root_, from, io_);
  PlaceBridges(root_, 0, from, io_);
}

}  // namespace holdfast::devices::pci
