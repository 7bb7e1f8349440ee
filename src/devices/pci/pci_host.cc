// SPDX-License-Identifier: Apache-2.0
#include "devices/pci/pci_host.h"

#include <algorithm>
#include <cstring>

#include "devices/pci/bridge.h"
#include "devices/pci/config_regs.h"

namespace holdfast::devices::pci {
namespace {

constexpr std::uint64_t kAddressPort = 0xcf8;
constexpr std::uint64_t kDataPort = 0xcfc;
constexpr std::uint32_t kAddressEnable = 1U << 31;

/// The memory controller hub of QEMU's q35. Nothing in it but its identity.
class HostBridge final : public Function {
 public:
  explicit HostBridge(PciServices& services)
      : Function(services, {.vendor = 0x8086,
                            .device = 0x29c0,
                            .subsystem_vendor = 0x1af4,
                            .subsystem = 0x1100,
                            .class_code = 0x060000,
                            .interrupt_pin = false}) {}
  std::string_view name() const noexcept override { return "mch"; }
};

std::uint32_t FromBytes(std::span<const std::byte> data) noexcept {
  std::uint32_t value = 0;
  std::memcpy(&value, data.data(), std::min(data.size(), sizeof value));
  return value;
}

void ToBytes(std::uint32_t value, std::span<std::byte> data) noexcept {
  std::ranges::fill(data, std::byte{0xff});
  std::memcpy(data.data(), &value, std::min(data.size(), sizeof value));
}

}  // namespace

// Configuration mechanism 1: an address port and a data port (PCI Local Bus 3.0, 3.2.2.3.2).
class PciHost::Ports final : public BusDevice {
 public:
  explicit Ports(const PciHost& host) : host_(host) {}
  std::string_view name() const noexcept override { return "pci-conf"; }

  // Offsets are port numbers.
  void Read(std::uint64_t port, std::span<std::byte> data) noexcept override {
    const MutexLock lock(mutex_);
    if (port < kDataPort) {
      ToBytes(data.size() == 4 ? address_ : 0xffffffff, data);
      return;
    }
    Function* function = Selected();
    ToBytes(function == nullptr
                ? 0xffffffff
                : function->ReadConfig(Register(port), static_cast<unsigned>(data.size())),
            data);
  }
  void Write(std::uint64_t port, std::span<const std::byte> data) noexcept override {
    Function* function = nullptr;
    std::uint16_t reg = 0;
    {
      const MutexLock lock(mutex_);
      if (port < kDataPort) {
        if (data.size() == 4) address_ = FromBytes(data);
        return;
      }
      function = Selected();
      reg = Register(port);
    }
    if (function != nullptr)
      function->WriteConfig(reg, static_cast<unsigned>(data.size()), FromBytes(data));
  }
  void Reset() noexcept override {
    const MutexLock lock(mutex_);
    address_ = 0;
  }
  void VisitState(state::Fields& fields) {
    const MutexLock lock(mutex_);
    fields.Value("address", address_);
  }

 private:
  Function* Selected() const noexcept HF_REQUIRES(mutex_) {
    if ((address_ & kAddressEnable) == 0) return nullptr;
    return host_.Find((address_ >> 16) & 0xff, (address_ >> 11) & 0x1f, (address_ >> 8) & 7);
  }
  std::uint16_t Register(std::uint64_t port) const noexcept HF_REQUIRES(mutex_) {
    return static_cast<std::uint16_t>((address_ & 0xfc) | (port & 3));
  }

  const PciHost& host_;
  Mutex mutex_;
  std::uint32_t address_ HF_GUARDED_BY(mutex_) = 0;
};

// Configuration space as memory (PCI Express Base 5.0, 7.2.2).
class PciHost::Ecam final : public BusDevice {
 public:
  explicit Ecam(const PciHost& host) : host_(host) {}
  std::string_view name() const noexcept override { return "pcie-mmcfg-mmio"; }
  void Read(std::uint64_t offset, std::span<std::byte> data) noexcept override {
    Function* function = At(offset);
    ToBytes(function == nullptr ? 0xffffffff
                                : function->ReadConfig(static_cast<std::uint16_t>(offset & 0xfff),
                                                       static_cast<unsigned>(data.size())),
            data);
  }
  void Write(std::uint64_t offset, std::span<const std::byte> data) noexcept override {
    if (Function* function = At(offset); function != nullptr)
      function->WriteConfig(static_cast<std::uint16_t>(offset & 0xfff),
                            static_cast<unsigned>(data.size()), FromBytes(data));
  }
  void Reset() noexcept override {}

 private:
  Function* At(std::uint64_t offset) const noexcept {
    return host_.Find(static_cast<unsigned>(offset >> 20) & 0xff,
                      static_cast<unsigned>(offset >> 15) & 0x1f,
                      static_cast<unsigned>(offset >> 12) & 7);
  }
  const PciHost& host_;
};

PciHost::PciHost(PciServices& services, Bus& io, Bus& mmio, const Windows& windows)
    : services_(services),
      io_(io),
      mmio_(mmio),
      windows_(windows),
      ports_(std::make_unique<Ports>(*this)),
      ecam_(std::make_unique<Ecam>(*this)),
      root_(std::string(kRootBus), nullptr) {}

PciHost::~PciHost() = default;

Result<std::unique_ptr<PciHost>> PciHost::Create(PciServices& services, Bus& io, Bus& mmio,
                                                 GuestAddress ecam, const Windows& windows) {
  std::unique_ptr<PciHost> host(new PciHost(services, io, mmio, windows));
  // A byte at 0xcf9 is another register (reset), which lies inside the four bytes of the address.
  HF_TRY_STATUS(io.Map(kAddressPort, 1, *host->ports_, kAddressPort, 3));
  HF_TRY_STATUS(io.Map(kDataPort, 4, *host->ports_, kDataPort));
  HF_TRY_STATUS(mmio.Map(ecam.value(), kEcamSize, *host->ecam_));
  HF_TRY_STATUS(host->Add(host->root_, {.model = "mch", .address = SlotFunction{0, 0}},
                          std::make_unique<HostBridge>(services)));
  return host;
}

// ---- Looking things up ------------------------------------------------------------------------

Function* PciHost::Find(unsigned number, unsigned slot, unsigned function) const noexcept {
  const PciBus* bus = &root_;
  unsigned here = 0;
  // Each step goes to a higher bus number: the guest cannot make a circle.
  while (here != number) {
    const Bridge* next = nullptr;
    bus->ForEach([&](const PciBus::Occupant& occupant) {
      if (occupant.bridge == nullptr || next != nullptr) return;
      const Bridge::Numbers behind = occupant.bridge->numbers();
      if (behind.secondary > here && behind.secondary <= number && number <= behind.subordinate)
        next = occupant.bridge;
    });
    if (next == nullptr) return nullptr;
    here = std::max<unsigned>(here + 1, next->numbers().secondary);
    if (here > number) return nullptr;
    bus = &next->secondary();
  }
  const PciBus::Occupant* occupant = bus->At(slot, function);
  return occupant == nullptr ? nullptr : occupant->function.get();
}

namespace {
void Walk(PciBus& bus, const std::function<void(PciBus&, PciBus::Occupant&)>& fn) {
  bus.ForEach([&](PciBus::Occupant& occupant) {
    fn(bus, occupant);
    if (occupant.bridge != nullptr) Walk(occupant.bridge->secondary(), fn);
  });
}
}  // namespace

void PciHost::ForEach(const std::function<void(PciBus&, PciBus::Occupant&)>& fn) {
  Walk(root_, fn);
}

PciBus* PciHost::FindBus(std::string_view name) {
  if (name == root_.name()) return &root_;
  PciBus* found = nullptr;
  ForEach([&](PciBus&, PciBus::Occupant& occupant) {
    if (occupant.bridge != nullptr && occupant.bridge->secondary().name() == name)
      found = &occupant.bridge->secondary();
  });
  return found;
}

PciHost::Found PciHost::FindById(std::string_view id) {
  Found found;
  ForEach([&](PciBus& bus, PciBus::Occupant& occupant) {
    if (!id.empty() && occupant.placement.id == id) found = {&bus, &occupant};
  });
  return found;
}

// ---- Functions come and go --------------------------------------------------------------------

Result<PciBus::Occupant*> PciHost::Add(PciBus& bus, Placement placement,
                                       std::unique_ptr<Function> function) {
  HF_TRY(const SlotFunction where, bus.Choose(placement));
  PciBus::Occupant& occupant = bus.Put(std::move(placement), where, std::move(function));
  // Each bridge on the way passes an interrupt on as the pin that slot and pin add up to.
  unsigned slot = where.slot;
  unsigned pin = 0;
  for (const Bridge* bridge = bus.parent(); bridge != nullptr;) {
    pin = (pin + slot) % kGsis;
    const Found above = [&] {
      Found found;
      ForEach([&](PciBus& on, PciBus::Occupant& other) {
        if (other.bridge == bridge) found = {&on, &other};
      });
      return found;
    }();
    if (above.occupant == nullptr) break;  // it is not in the tree yet
    slot = above.occupant->placement.address->slot;
    bridge = above.bus->parent();
  }
  const std::uint32_t gsi = GsiOf(slot, pin);
  occupant.function->set_intx([this, gsi](bool level) { SetIntx(gsi, level); });
  occupant.function->set_bar_moved([this, &occupant](unsigned bar, std::optional<GuestAddress> to) {
    const Function::BarInfo info = occupant.function->bar(bar);
    Move(*occupant.bars.at(bar), info.kind == BarKind::kIo, to, info.size);
  });
  return &occupant;
}

void PciHost::Remove(PciBus& bus, SlotFunction where) {
  const PciBus::Occupant* occupant = bus.At(where.slot, where.function);
  if (occupant == nullptr) return;
  occupant->function->Reset();  // nowhere decoded, no interrupt asserted
  (void)bus.Take(where);
}

void PciHost::Reset() noexcept {
  ForEach([](PciBus&, PciBus::Occupant& occupant) { occupant.function->Reset(); });
  ports_->Reset();
  AssignResources();
}

void PciHost::VisitState(state::Fields& fields) {
  ports_->VisitState(fields);
}

// ---- What functions do to the machine ---------------------------------------------------------

void PciHost::SetIntx(std::uint32_t gsi, bool level) {
  const MutexLock lock(intx_mutex_);
  unsigned& count = intx_count_.at(gsi - kFirstGsi);
  level ? ++count : --count;
  if (count == (level ? 1U : 0U)) services_.SetGsi(gsi, level);
}

// A BAR that a guest puts on top of something else is not decoded until that makes room: BARs that
// change places do so one after the other.
void PciHost::Move(BarDevice& bar, bool io, std::optional<GuestAddress> where, std::uint64_t size) {
  const MutexLock lock(moves_);
  const auto bus_of = [this](bool ports) -> Bus& { return ports ? io_ : mmio_; };
  if (const auto old = decoded_.find(&bar); old != decoded_.end()) {
    if (old->second.mapped) bus_of(old->second.io).Unmap(old->second.base);
    decoded_.erase(old);
  }
  if (where) decoded_.emplace(&bar, Decoded{io, where->value(), size, false});
  for (auto& [device, range] : decoded_) {
    if (range.mapped) continue;
    range.mapped = bus_of(range.io).Map(range.base, range.size, *device).has_value();
  }
}

}  // namespace holdfast::devices::pci
