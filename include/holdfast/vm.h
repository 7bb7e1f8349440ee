// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>
#include <holdfast/guest_address.h>
#include <holdfast/kvm_abi.h>
#include <holdfast/unique_fd.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

namespace holdfast::kvm {

class DirtyRings;
class GuestMemfd;
class System;

/// One memslot as KVM_SET_USER_MEMORY_REGION2 takes it.
struct Memslot {
  std::uint32_t slot = 0;            ///< below KVM_CAP_NR_MEMSLOTS
  std::uint32_t flags = 0;           ///< KVM_MEM_LOG_DIRTY_PAGES …; the bound flag is set for you
  GuestAddress base;                 ///< page aligned
  std::uint64_t size = 0;            ///< bytes, page multiple; 0 is refused, see DeleteMemslot
  std::uint64_t userspace_addr = 0;  ///< page-aligned host address of the guest view
  const GuestMemfd* guest_memfd = nullptr;  ///< set: the slot is bound to it (Linux 6.8)
  std::uint64_t guest_memfd_offset = 0;     ///< page-aligned offset in it
};

/// Guest writes that KVM turns into a count of an eventfd instead of leaving the guest.
struct Ioeventfd {
  std::uint64_t address = 0;  ///< guest physical, or an I/O port
  bool io = false;
  std::uint32_t size = 0;  ///< bytes of the write; 0: any, as long as it starts at `address`
  std::optional<std::uint64_t> match = std::nullopt;  ///< only writes of this value
  int event_fd = -1;
};

/// A KVM virtual machine. Its ioctls work only in the process (address space) that made it; from
/// any other they fail with EIO.
///
/// Thread-safety: the kernel serialises the ioctls; const functions on any thread.
class Vm {
 public:
  /// @param type  a kVmType… number; anything but the default needs kCapVmTypes
  static Result<Vm> Create(const System& system, unsigned type = abi::kVmTypeDefault);

  int fd() const noexcept { return fd_.get(); }
  std::size_t vcpu_mmap_size() const noexcept { return vcpu_mmap_size_; }
  /// KVM_CHECK_EXTENSION for this VM; 0 when unknown.
  int CheckExtension(int capability) const noexcept;

  /// Creates or changes a memslot. A bound slot's userspace_addr must be a mapping of the same
  /// guest_memfd at the same offset: KVM takes any address silently, and then its emulator and
  /// kvmclock see other memory than the guest. RamBlock and AddressSpace make sure of it.
  Status SetMemslot(const Memslot& slot) const;
  Status DeleteMemslot(std::uint32_t slot) const;

  /// How KVM's dirty log works in this VM.
  enum class DirtyLogMode : std::uint8_t {
    kPlain,   ///< taking the log clears it and write-protects
    kManual,  ///< only ClearDirtyLog() does that
    /// As kManual, and every page of a slot counts as dirty when its log begins: pages are write-
    /// protected as they are cleared, not all at once.
    kManualAllSet,
  };
  /// Has the dirty log of all slots whose logging begins later work the best way that KVM offers
  /// (KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2). @return which one that is
  DirtyLogMode EnableManualDirtyLog() const noexcept;
  /// The log of a slot with KVM_MEM_LOG_DIRTY_PAGES: bit p of `bitmap` is its page p; it has a bit
  /// for each page, rounded up to whole words. @return the failed ioctl
  Status GetDirtyLog(std::uint32_t slot, std::span<std::uint64_t> bitmap) const;
  /// kManual…: takes the pages whose bits are set out of the log and write-protects them. The first
  /// bit is page `first`, a multiple of 64; so is `count`, unless the slot ends there.
  /// @return the failed ioctl
  Status ClearDirtyLog(std::uint32_t slot, std::uint64_t first, std::uint32_t count,
                       std::span<const std::uint64_t> bitmap) const;

  /// From now on writes to slots with KVM_MEM_LOG_DIRTY_PAGES are told in rings, one a vCPU
  /// (KVM_CAP_DIRTY_LOG_RING, Linux 5.11), and there is no GetDirtyLog() any more. Before the first
  /// vCPU. @param entries  of each ring, a power of two @return kUnsupported, with the remedy, on a
  /// kernel without or with smaller ones; else the failed ioctl
  Status EnableDirtyRings(std::uint32_t entries);
  /// Null unless they are enabled.
  const std::shared_ptr<DirtyRings>& dirty_rings() const noexcept { return rings_; }

  /// Makes [from, from + size) private or shared on the VM's level (KVM_SET_MEMORY_ATTRIBUTES,
  /// Linux 6.8): private accesses are then served from the guest_memfd of the slot, shared ones
  /// from its userspace_addr. Contents are not carried over. @return the failed ioctl
  Status SetMemoryAttributes(GuestAddress from, std::uint64_t size, std::uint64_t attributes) const;

  /// In-kernel PIC, IOAPIC and local APICs, and the PIT. Before the first vCPU.
  Status CreateIrqchip() const;
  Status CreatePit() const;
  /// Three pages below 4 GiB that Intel hosts need for real mode, outside RAM.
  Status SetTssAddress(GuestAddress address) const;
  Status SetIdentityMapAddress(GuestAddress address) const;
  /// Raises or lowers a global system interrupt.
  Status SetIrqLine(std::uint32_t gsi, bool level) const;
  /// Replaces the whole table of what a GSI stands for: pins of interrupt controllers, or messages.
  Status SetGsiRouting(std::span<const kvm_irq_routing_entry> entries) const;
  /// From now on (or no longer) a write to the eventfd is an edge of `gsi`. What the eventfd counts
  /// already becomes an interrupt at once.
  Status AddIrqfd(int event_fd, std::uint32_t gsi) const;
  Status RemoveIrqfd(int event_fd, std::uint32_t gsi) const;
  /// After the memslots: each made later waits for a grace period.
  Status AddIoeventfd(const Ioeventfd& request) const;
  Status RemoveIoeventfd(const Ioeventfd& request) const;
  /// State of PIC master (chip 0), slave (1) and IOAPIC (2).
  Result<kvm_irqchip> GetIrqchip(std::uint32_t chip) const;
  Status SetIrqchip(const kvm_irqchip& chip) const;
  Result<kvm_pit_state2> GetPit() const;
  Status SetPit(const kvm_pit_state2& pit) const;
  /// The guest's kvmclock: nanoseconds since the VM was made, or since SetClock() said otherwise.
  Result<std::uint64_t> GetClock() const;
  Status SetClock(std::uint64_t nanoseconds) const;
  /// KVM_ENABLE_CAP with up to one argument.
  Status EnableCapability(std::uint32_t capability, std::uint64_t argument = 0) const;

 private:
  Vm(UniqueFd fd, std::size_t vcpu_mmap_size)
      : fd_(std::move(fd)), vcpu_mmap_size_(vcpu_mmap_size) {}
  UniqueFd fd_;
  std::size_t vcpu_mmap_size_;
  std::shared_ptr<DirtyRings> rings_;
};

}  // namespace holdfast::kvm
