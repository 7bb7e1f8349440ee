// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <holdfast/dirty_rings.h>
#include <holdfast/guest_memfd.h>
#include <holdfast/kvm_system.h>
#include <holdfast/vm.h>

#include "base/trace.h"
#include "kvm/flex_buffer.h"
#include "kvm/ioctl.h"

namespace holdfast::kvm {

Result<Vm> Vm::Create(const System& system, unsigned type) {
  auto fd = Call(system.fd(), kCreateVm, type);
  if (!fd) {
    return Fail(std::move(fd).error().Wrap(fmt::format("creating a VM of type {}", type)));
  }
  return Vm(UniqueFd(*fd), system.vcpu_mmap_size());
}

int Vm::CheckExtension(int capability) const noexcept {
  const auto answer = Call(fd_.get(), kCheckExtension, static_cast<unsigned long>(capability));
  return answer ? *answer : 0;
}

Status Vm::SetMemslot(const Memslot& slot) const {
  if (slot.size == 0) {
    return Fail(Errc::kInvalidArgument, fmt::format("memslot {} would be empty", slot.slot));
  }
  abi::UserspaceMemoryRegion2 region{};
  region.slot = slot.slot;
  region.flags = slot.flags;
  region.guest_phys_addr = slot.base.value();
  region.memory_size = slot.size;
  region.userspace_addr = slot.userspace_addr;
  if (slot.guest_memfd != nullptr) {
    region.flags |= abi::kMemGuestMemfd;
    region.guest_memfd = static_cast<std::uint32_t>(slot.guest_memfd->fd());
    region.guest_memfd_offset = slot.guest_memfd_offset;
  }
  auto answer = Call(fd_.get(), kSetUserMemoryRegion2, region);
  HF_TRACE(kvm_set_user_memory, 0, region.slot, region.flags, region.guest_phys_addr,
           region.memory_size, region.userspace_addr,
           slot.guest_memfd != nullptr ? slot.guest_memfd->fd() : -1, region.guest_memfd_offset,
           answer ? 0 : -answer.error().os_errno());
  if (!answer) {
    return Fail(std::move(answer).error().Wrap(
        fmt::format("making memslot {} of {:#x} bytes at guest physical address {:#x}", slot.slot,
                    slot.size, slot.base.value())));
  }
  return {};
}

Status Vm::DeleteMemslot(std::uint32_t slot) const {
  abi::UserspaceMemoryRegion2 region{};
  region.slot = slot;
  auto answer = Call(fd_.get(), kSetUserMemoryRegion2, region);
  if (!answer) {
    return Fail(std::move(answer).error().Wrap(fmt::format("deleting memslot {}", slot)));
  }
  return {};
}

Vm::DirtyLogMode Vm::EnableManualDirtyLog() const noexcept {
  // Before Linux 5.2 the answer is 0, before 5.7 only the first flag.
  const auto offered =
      static_cast<std::uint64_t>(CheckExtension(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2));
  constexpr std::uint64_t kManual = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE;
  constexpr std::uint64_t kAllSet = KVM_DIRTY_LOG_INITIALLY_SET;
  for (const std::uint64_t flags : {kManual | kAllSet, kManual}) {
    if ((offered & flags) != flags) continue;
    kvm_enable_cap request{};
    request.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2;
    request.args[0] = flags;
    if (!Call(fd_.get(), kEnableCap, request)) continue;
    return (flags & kAllSet) != 0 ? DirtyLogMode::kManualAllSet : DirtyLogMode::kManual;
  }
  return DirtyLogMode::kPlain;
}

Status Vm::EnableDirtyRings(std::uint32_t entries) {
  // KVM says how many bytes a ring may have. The first one (Linux 6.2) is the same with its memory
  // order promised, which x86 has anyway.
  for (const int capability : {KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_CAP_DIRTY_LOG_RING}) {
    const int most = CheckExtension(capability) / static_cast<int>(sizeof(kvm_dirty_gfn));
    if (most <= 0) continue;
    if (entries > static_cast<std::uint32_t>(most)) {
      return Fail(Errc::kUnsupported,
                  fmt::format("this host's KVM has dirty rings of at most {} entries", most),
                  fmt::format("Ask for {}.", most));
    }
    HF_TRY_STATUS(EnableCapability(static_cast<std::uint32_t>(capability),
                                   std::uint64_t{entries} * sizeof(kvm_dirty_gfn)));
    rings_ = std::make_shared<DirtyRings>(fd_.get(), entries);
    return {};
  }
  return Fail(Errc::kUnsupported, "this host's KVM has no dirty rings",
              "Leave dirty-ring-size= out, or use Linux 5.11 or newer on x86-64.");
}

Status Vm::GetDirtyLog(std::uint32_t slot, std::span<std::uint64_t> bitmap) const {
  kvm_dirty_log request{};
  request.slot = slot;
  request.dirty_bitmap = bitmap.data();
  HF_TRY_STATUS(Call(fd_.get(), kGetDirtyLog, request));
  return {};
}

Status Vm::ClearDirtyLog(std::uint32_t slot, std::uint64_t first, std::uint32_t count,
                         std::span<const std::uint64_t> bitmap) const {
  kvm_clear_dirty_log request{};
  request.slot = slot;
  request.num_pages = count;
  request.first_page = first;
  // The kernel only reads it.
  request.dirty_bitmap = const_cast<std::uint64_t*>(bitmap.data());
  HF_TRY_STATUS(Call(fd_.get(), kClearDirtyLog, request));
  return {};
}

Status Vm::SetMemoryAttributes(GuestAddress from, std::uint64_t size,
                               std::uint64_t attributes) const {
  const abi::MemoryAttributes request{
      .address = from.value(), .size = size, .attributes = attributes, .flags = 0};
  auto answer = Call(fd_.get(), kSetMemoryAttributes, request);
  if (!answer) {
    return Fail(std::move(answer).error().Wrap(
        fmt::format("setting the attributes of {:#x} bytes at guest physical address {:#x}", size,
                    from.value())));
  }
  return {};
}

Status Vm::CreateIrqchip() const {
  HF_TRY_STATUS(Call(fd_.get(), kCreateIrqchip));
  return {};
}

Status Vm::CreatePit() const {
  kvm_pit_config config{};
  // The speaker port (0x61) is KVM's too: Linux calibrates its TSC through it.
  config.flags = KVM_PIT_SPEAKER_DUMMY;
  HF_TRY_STATUS(Call(fd_.get(), kCreatePit2, config));
  return {};
}

Status Vm::SetTssAddress(GuestAddress address) const {
  HF_TRY_STATUS(Call(fd_.get(), kSetTssAddr, address.value()));
  return {};
}

Status Vm::SetIdentityMapAddress(GuestAddress address) const {
  const __u64 value = address.value();
  HF_TRY_STATUS(Call(fd_.get(), kSetIdentityMapAddr, value));
  return {};
}

Status Vm::SetIrqLine(std::uint32_t gsi, bool level) const {
  kvm_irq_level request{};
  request.irq = gsi;
  request.level = level ? 1 : 0;
  HF_TRY_STATUS(Call(fd_.get(), kIrqLine, request));
  return {};
}

Status Vm::SetGsiRouting(std::span<const kvm_irq_routing_entry> entries) const {
  FlexBuffer<kvm_irq_routing_entry, abi::kIrqRoutingHeaderSize> table(entries);
  HF_TRY_STATUS(Call(fd_.get(), kSetGsiRouting, table.data()));
  return {};
}

namespace {
Status ChangeIrqfd(int vm, int event_fd, std::uint32_t gsi, std::uint32_t flags) {
  kvm_irqfd request{};
  request.fd = static_cast<std::uint32_t>(event_fd);
  request.gsi = gsi;
  request.flags = flags;
  HF_TRY_STATUS(Call(vm, kIrqfd, request));
  return {};
}

Status ChangeIoeventfd(int vm, const Ioeventfd& what, std::uint32_t flags) {
  kvm_ioeventfd request{};
  request.addr = what.address;
  request.len = what.size;
  request.fd = what.event_fd;
  request.datamatch = what.match.value_or(0);
  request.flags = flags | (what.io ? KVM_IOEVENTFD_FLAG_PIO : 0U) |
                  (what.match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0U);
  HF_TRY_STATUS(Call(vm, kIoeventfd, request));
  return {};
}
}  // namespace

Status Vm::AddIrqfd(int event_fd, std::uint32_t gsi) const {
  return ChangeIrqfd(fd_.get(), event_fd, gsi, 0);
}
Status Vm::RemoveIrqfd(int event_fd, std::uint32_t gsi) const {
  return ChangeIrqfd(fd_.get(), event_fd, gsi, KVM_IRQFD_FLAG_DEASSIGN);
}
Status Vm::AddIoeventfd(const Ioeventfd& request) const {
  return ChangeIoeventfd(fd_.get(), request, 0);
}
Status Vm::RemoveIoeventfd(const Ioeventfd& request) const {
  return ChangeIoeventfd(fd_.get(), request, KVM_IOEVENTFD_FLAG_DEASSIGN);
}

Result<kvm_irqchip> Vm::GetIrqchip(std::uint32_t chip) const {
  kvm_irqchip state{};
  state.chip_id = chip;
  HF_TRY_STATUS(Call(fd_.get(), kGetIrqchip, state));
  return state;
}

Status Vm::SetIrqchip(const kvm_irqchip& chip) const {
  HF_TRY_STATUS(Call(fd_.get(), kSetIrqchip, chip));
  return {};
}

Result<kvm_pit_state2> Vm::GetPit() const {
  kvm_pit_state2 state{};
  HF_TRY_STATUS(Call(fd_.get(), kGetPit2, state));
  return state;
}

Status Vm::SetPit(const kvm_pit_state2& pit) const {
  HF_TRY_STATUS(Call(fd_.get(), kSetPit2, pit));
  return {};
}

Result<std::uint64_t> Vm::GetClock() const {
  kvm_clock_data clock{};
  HF_TRY_STATUS(Call(fd_.get(), kGetClock, clock));
  return clock.clock;
}

Status Vm::SetClock(std::uint64_t nanoseconds) const {
  kvm_clock_data clock{};
  clock.clock = nanoseconds;
  HF_TRY_STATUS(Call(fd_.get(), kSetClock, clock));
  return {};
}

Status Vm::EnableCapability(std::uint32_t capability, std::uint64_t argument) const {
  kvm_enable_cap request{};
  request.cap = capability;
  request.args[0] = argument;
  HF_TRY_STATUS(Call(fd_.get(), kEnableCap, request));
  return {};
}

}  // namespace holdfast::kvm
