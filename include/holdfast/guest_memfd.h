// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>
#include <holdfast/kvm_abi.h>
#include <holdfast/unique_fd.h>

#include <cstdint>
#include <optional>

namespace holdfast::kvm {

class Vm;

/// A guest_memfd: guest memory that belongs to one VM and lives as long as the last of its file
/// descriptors, mappings and I/O in flight.
///
/// All folios are 4 KiB; the memory is neither swapped nor migrated; st_blocks and RSS do not
/// show it. Thread-safety: const functions on any thread.
class GuestMemfd {
 public:
  enum class Access : std::uint8_t {
    kPrivate,     ///< the host may not map it (Linux 6.8)
    kHostShared,  ///< the host may map it, every page starts shared (Linux 6.18)
  };

  /// Creates `size` bytes (a non-zero page multiple) of guest memory in `vm`. Nothing is allocated
  /// until it is touched.
  /// @return kInvalidArgument for a bad size; kUnsupported when the kernel lacks guest_memfd
  ///         ("KVM does not support guest_memfd") or host access to it ("KVM does not support
  ///         using guest_memfd for shared memory"); else the failed ioctl.
  static Result<GuestMemfd> Create(const Vm& vm, std::uint64_t size, Access access);

  /// Takes over the guest_memfd of another VM, one of an earlier program of this process or of
  /// another process. Its contents stay. KVM takes it for no memslot of a VM of this process
  /// (KVM_MEM_GUEST_MEMFD answers EINVAL): only its mapping can be guest memory. The VM it was made
  /// in lives on without use until the last descriptor of it is closed.
  /// @return kInvalidArgument for a descriptor that is none, or of another size
  static Result<GuestMemfd> Adopt(UniqueFd fd, std::uint64_t size);
  /// Whether a descriptor is a guest_memfd.
  static bool Is(int fd) noexcept;

  int fd() const noexcept { return fd_.get(); }
  std::uint64_t size() const noexcept { return size_; }

  /// Allocates [offset, offset + length), page aligned, without touching it. Pages are zeroed at
  /// their first use. A signal ends it early with EINTR; what was allocated stays.
  Status Allocate(std::uint64_t offset, std::uint64_t length) const;
  /// Frees [offset, offset + length), page aligned: its next use finds zeroes. Never changes
  /// whether a page is shared or private.
  Status PunchHole(std::uint64_t offset, std::uint64_t length) const;

  /// What SetAttributes did.
  struct AttributesAnswer {
    /// A page of the range is in use (EAGAIN): nothing has changed; this is the first one's offset.
    std::optional<std::uint64_t> busy_offset;
  };
  /// In-place conversion by the kernel (KVM_SET_MEMORY_ATTRIBUTES2, as applied for Linux 7.4):
  /// all of [offset, offset + length) gets `attributes`, or nothing. Any process that has the fd
  /// may. @return the failed ioctl: ENOTTY where the kernel does not have it, EINVAL, ENOMEM
  Result<AttributesAnswer> SetAttributes(std::uint64_t offset, std::uint64_t length,
                                         std::uint64_t attributes) const;

 private:
  GuestMemfd(UniqueFd fd, std::uint64_t size) : fd_(std::move(fd)), size_(size) {}
  UniqueFd fd_;
  std::uint64_t size_;
};

}  // namespace holdfast::kvm
