// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/guest_address.h>
#include <holdfast/guest_io_vec.h>

namespace holdfast {

class HostWrites;
class PopulationGate;
class RamBlock;
namespace kvm {
class Vm;
}

/// Says, for as long as it exists, that somebody gets at guest RAM without AddressSpace: the
/// kernel's vhost, a vhost-user back end. Dirty tracking and lazy population ask for it.
///
/// Thread-safety: one thread at a time. May outlive the address space.
class ExternalAccess {
 public:
  ExternalAccess() = default;  ///< nobody's
  ExternalAccess(ExternalAccess&& other) noexcept;
  ExternalAccess& operator=(ExternalAccess&& other) noexcept;
  ExternalAccess(const ExternalAccess&) = delete;
  ExternalAccess& operator=(const ExternalAccess&) = delete;
  ~ExternalAccess();

 private:
  friend class AddressSpace;
  ExternalAccess(std::shared_ptr<HostWrites> writes, std::uint64_t id);

  std::shared_ptr<HostWrites> writes_;
  std::uint64_t id_ = 0;
};

/// The guest physical address space as far as it is RAM: which part of which RAM block lies
/// where. It owns the memslots (adding RAM makes one, destroying the address space deletes them)
/// and is the one place through which the monitor itself touches guest memory.
///
/// Thread-safety: built and changed on the main thread while no vCPU runs; the const access
/// functions run on any thread.
class AddressSpace {
 public:
  /// A piece of guest RAM.
  struct Region {
    GuestAddress base;
    std::uint64_t size;          ///< bytes, a page multiple
    RamBlock* block;             ///< outlives the address space
    std::uint64_t block_offset;  ///< where in the block the region starts
    std::uint32_t memslot;       ///< KVM's slot number
  };

  /// An address space of `vm`, which must outlive it. `vm` may be null: then no memslot is made
  /// (loaders under test and fuzzing use plain memory that way).
  explicit AddressSpace(kvm::Vm* vm);
  AddressSpace(const AddressSpace&) = delete;
  AddressSpace& operator=(const AddressSpace&) = delete;
  ~AddressSpace();

  /// Maps [block_offset, block_offset + size) of `block` at `base`.
  /// @return kInvalidArgument for an empty, unaligned, overlapping or wrapping range or one outside
  ///         the block; otherwise the memslot ioctl's error, with nothing changed.
  Status AddRam(GuestAddress base, std::uint64_t size, RamBlock& block, std::uint64_t block_offset);

  const std::vector<Region>& regions() const noexcept { return regions_; }
  /// One past the highest RAM address; 0 without RAM.
  GuestAddress end() const noexcept;
  /// RAM bytes in all regions.
  std::uint64_t total_size() const noexcept;

  /// Copies between guest RAM and a buffer through the host view. All or nothing.
  /// @return kInvalidArgument naming the range if it is not all RAM.
  Status Read(GuestAddress from, std::span<std::byte> to) const;
  Status Write(GuestAddress to, std::span<const std::byte> from) const;
  /// Zeroes RAM.
  Status Fill(GuestAddress to, std::uint64_t size, std::byte value) const;
  /// Gives RAM back to the host (RamBlock::Discard): its next use finds zeroes.
  /// @return kInvalidArgument if the range is not all RAM, or not whole pages of it; then what came
  ///         before the piece that failed is given back
  Status Discard(GuestAddress from, std::uint64_t size) const;
  /// The same for the whole pages in each piece that Pin() made.
  Status Discard(const GuestIoVec& pinned) const;
  /// Reads `size` bytes of `fd` from `file_offset` straight into guest RAM, no buffer between.
  /// @return kMalformed if the file ends before; the read's error; kInvalidArgument as Write.
  Status ReadFile(int fd, std::uint64_t file_offset, GuestAddress to, std::uint64_t size) const;

  /// How many accesses were refused because a page was private.
  std::uint64_t private_refusals() const noexcept {
    return private_refusals_.load(std::memory_order_relaxed);
  }
  /// Appends the host addresses of guest physical [address, address + size) to `to`, for as long as
  /// `to` exists. This is the one way by which a device gets at guest memory. An empty range adds
  /// nothing. @return kInvalidArgument naming the range if it is not all RAM, kPrivate if a page of
  /// it is private; `to` is as before
  Status Pin(GuestAddress address, std::uint64_t size, MemoryAccess access, GuestIoVec& to) const;

  /// To be asked by whoever hands guest RAM, or its host addresses, to the kernel or to another
  /// process for good, before it does; `who` is what a user calls it. RAM that is populated lazily
  /// is first filled altogether.
  /// @return the error of memory that could not be filled
  /// Thread-safety: any thread.
  Result<ExternalAccess> GrantExternalAccess(std::string who) const;

  /// RAM that is populated lazily is filled altogether, and waited for. @return why it cannot be
  Status PopulateAll() const;

  /// How memslots have to be beyond what their blocks say.
  struct SlotNeeds {
    bool unbound = false;    ///< bound slots are made again unbound, on their guest view
    bool dirty_log = false;  ///< KVM logs writes; this means unbound too
  };
  /// Makes the memslots so, until ReleaseSlots() with the same needs: several may need something at
  /// once. Contents stay. vCPUs must stand still: a slot is not there for a moment. Without a VM
  /// this does nothing.
  /// @return kInvalidArgument where a slot has to stay bound, with nothing changed; else the failed
  ///         ioctl, with the slots as before if KVM let them
  Status NeedSlots(const SlotNeeds& needs);
  Status ReleaseSlots(const SlotNeeds& needs);

  /// For those who track and populate memory (src/memory).
  HostWrites& host_writes() const noexcept { return *writes_; }
  /// What every access has to pass from now on, null: nothing. On the main thread. What was set
  /// before is kept until this is destroyed, as somebody may be inside.
  void SetPopulationGate(std::shared_ptr<PopulationGate> gate);

 private:
  const Region* Find(GuestAddress address) const noexcept;
  /// Calls fn(region, offset in its block, length) for each piece of the range; checks the whole
  /// range first.
  template <typename Fn>
  Status ForEachPart(GuestAddress address, std::uint64_t size, Fn&& fn) const;
  /// Holds the range's pages in `holder` if they can become private.
  Status Hold(GuestAddress address, std::uint64_t size, GuestIoVec& holder) const;
  /// Calls fn(host_bytes) for each piece of the range, which it holds meanwhile.
  template <typename Fn>
  Status Access(GuestAddress address, std::uint64_t size, MemoryAccess access, Fn&& fn) const;
  /// Makes sure that the range, if it is RAM, is populated.
  Status Populate(GuestAddress address, std::uint64_t size) const;
  Status SetSlot(const Region& region, const SlotNeeds& needs) const;
  Status ChangeSlots(const SlotNeeds& from, const SlotNeeds& to);
  SlotNeeds needs() const noexcept { return {unbound_needed_ > 0, dirty_log_needed_ > 0}; }

  kvm::Vm* vm_;
  std::vector<Region> regions_;  // sorted by base
  std::uint32_t next_memslot_ = 0;
  unsigned unbound_needed_ = 0;
  unsigned dirty_log_needed_ = 0;
  mutable std::atomic<std::uint64_t> private_refusals_{0};
  const std::shared_ptr<HostWrites> writes_;
  std::atomic<PopulationGate*> gate_{nullptr};
  std::vector<std::shared_ptr<PopulationGate>>
      gates_;  // the last one is gate_, unless that is null
};

}  // namespace holdfast
