// SPDX-License-Identifier: Apache-2.0
#include "machine/pci_services.h"

#include <fmt/format.h>
#include <holdfast/unique_fd.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>

#include "base/log.h"

namespace holdfast::machine {
namespace {

constexpr std::uint32_t kIoApicPins = 24;
constexpr std::uint32_t kPicPins = 8;

kvm_irq_routing_entry ChipEntry(std::uint32_t gsi, std::uint32_t chip, std::uint32_t pin) {
  kvm_irq_routing_entry entry{};
  entry.gsi = gsi;
  entry.type = KVM_IRQ_ROUTING_IRQCHIP;
  entry.u.irqchip.irqchip = chip;
  entry.u.irqchip.pin = pin;
  return entry;
}

// A PC's wiring: ISA interrupts go to the pair of 8259s and to the I/O APIC, there with the timer
// at pin 2, which the MADT says too.
std::vector<kvm_irq_routing_entry> ChipEntries() {
  std::vector<kvm_irq_routing_entry> entries;
  for (std::uint32_t gsi = 0; gsi < kIoApicPins; ++gsi) {
    if (gsi < kPicPins && gsi != 2) entries.push_back(ChipEntry(gsi, KVM_IRQCHIP_PIC_MASTER, gsi));
    if (gsi >= kPicPins && gsi < 2 * kPicPins)
      entries.push_back(ChipEntry(gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - kPicPins));
    if (gsi != 2) entries.push_back(ChipEntry(gsi, KVM_IRQCHIP_IOAPIC, gsi == 0 ? 2 : gsi));
  }
  return entries;
}

}  // namespace

class PciServices::Route final : public devices::pci::MsiRoute {
 public:
  Route(PciServices& services, std::uint32_t gsi, UniqueFd event)
      : services_(services), gsi_(gsi), event_(std::move(event)) {}
  ~Route() override {
    (void)Connect(false);
    services_.Release(gsi_);
  }

  Status SetMessage(const devices::pci::MsiMessage& message) override {
    return services_.SetMessage(gsi_, message);
  }
  Status Connect(bool on) override {
    if (on == connected_) return {};
    HF_TRY_STATUS(on ? services_.vm_.AddIrqfd(event_.get(), gsi_)
                     : services_.vm_.RemoveIrqfd(event_.get(), gsi_));
    connected_ = on;
    return {};
  }
  void Trigger() noexcept override { ::eventfd_write(event_.get(), 1); }
  int event_fd() const noexcept override { return event_.get(); }
  bool pending() const noexcept override {
    pollfd ready{.fd = event_.get(), .events = POLLIN, .revents = 0};
    return !connected_ && ::poll(&ready, 1, 0) == 1;
  }

 private:
  PciServices& services_;
  const std::uint32_t gsi_;
  const UniqueFd event_;
  bool connected_ = false;
};

PciServices::PciServices(const kvm::Vm& vm) : vm_(vm) {}

Result<std::unique_ptr<PciServices>> PciServices::Create(const kvm::Vm& vm) {
  std::unique_ptr<PciServices> services(new PciServices(vm));
  services->gsis_ = static_cast<std::uint32_t>(
      std::max(vm.CheckExtension(KVM_CAP_IRQ_ROUTING), static_cast<int>(kIoApicPins)));
  const MutexLock lock(services->mutex_);
  services->used_.resize(services->gsis_);
  std::fill_n(services->used_.begin(), kIoApicPins, true);
  HF_TRY_STATUS(services->WriteTable());
  return services;
}

Status PciServices::WriteTable() {
  std::vector<kvm_irq_routing_entry> entries = ChipEntries();
  for (const auto& [gsi, message] : messages_) {
    kvm_irq_routing_entry entry{};
    entry.gsi = gsi;
    entry.type = KVM_IRQ_ROUTING_MSI;
    entry.u.msi.address_lo = static_cast<std::uint32_t>(message.address);
    entry.u.msi.address_hi = static_cast<std::uint32_t>(message.address >> 32);
    entry.u.msi.data = message.data;
    entries.push_back(entry);
  }
  return vm_.SetGsiRouting(entries);
}

Result<std::unique_ptr<devices::pci::MsiRoute>> PciServices::MakeMsiRoute() {
  UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event) return FailErrno("eventfd of a PCI interrupt");
  const MutexLock lock(mutex_);
  // The table holds fewer entries than GSIs by what the ISA interrupts take twice.
  const auto free = std::ranges::find(used_, false);
  const auto gsi = static_cast<std::uint32_t>(free - used_.begin());
  if (free == used_.end() || messages_.size() + ChipEntries().size() >= gsis_) {
    return Fail(Errc::kExhausted, fmt::format("KVM has no more than {} interrupt routes", gsis_),
                "Give the devices fewer vectors or queues.");
  }
  *free = true;
  return std::make_unique<Route>(*this, gsi, std::move(event));
}

Status PciServices::SetMessage(std::uint32_t gsi, const devices::pci::MsiMessage& message) {
  const MutexLock lock(mutex_);
  const auto found = messages_.find(gsi);
  if (found != messages_.end() && found->second == message) return {};
  messages_[gsi] = message;
  return WriteTable();
}

void PciServices::Release(std::uint32_t gsi) noexcept {
  const MutexLock lock(mutex_);
  // Its entry leaves KVM's table with the next change: no irqfd uses it any more.
  messages_.erase(gsi);
  used_[gsi] = false;
}

void PciServices::SetGsi(std::uint32_t gsi, bool level) noexcept {
  (void)vm_.SetIrqLine(gsi, level);  // fails only for a GSI that KVM does not have
}

Status PciServices::AddDoorbell(GuestAddress address, unsigned size,
                                std::optional<std::uint64_t> match, int event_fd) {
  return vm_.AddIoeventfd(
      {.address = address.value(), .size = size, .match = match, .event_fd = event_fd});
}

void PciServices::RemoveDoorbell(GuestAddress address, unsigned size,
                                 std::optional<std::uint64_t> match, int event_fd) noexcept {
  (void)vm_.RemoveIoeventfd(
      {.address = address.value(), .size = size, .match = match, .event_fd = event_fd});
}

}  // namespace holdfast::machine
