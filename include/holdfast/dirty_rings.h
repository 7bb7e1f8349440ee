// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include <holdfast/error.h>

namespace holdfast::kvm {

/// KVM's dirty rings: each vCPU has one, into which KVM writes which pages the vCPU has written
/// (Documentation/virt/kvm/api.rst, 8.29). Pages that are taken out of a ring are kept here, in a
/// bitmap for each memslot that is watched, until somebody asks for them. Vm::EnableDirtyRings()
/// makes it; Vcpu::Create() adds the vCPU's ring, and Vcpu::Run() empties the rings when one is
/// full.
///
/// What a running vCPU has written shows when it has left guest mode once: some processors keep it
/// for themselves until then (PML).
///
/// Thread-safety: any thread.
class DirtyRings {
 public:
  /// Entries a ring can have: powers of two.
  static constexpr std::uint32_t kLeast = 1024;
  static constexpr std::uint32_t kMost = 65536;

  /// @param entries  of each ring @param vm  the VM's descriptor, which outlives this
  DirtyRings(int vm, std::uint32_t entries);
  DirtyRings(const DirtyRings&) = delete;
  DirtyRings& operator=(const DirtyRings&) = delete;
  ~DirtyRings();

  std::uint32_t entries() const noexcept;
  /// Maps the ring of a vCPU. @return the failed mmap
  Status Add(int vcpu);

  /// From now on pages of this memslot are kept; what came before is forgotten.
  void Watch(std::uint32_t slot, std::uint64_t pages);
  /// No pages of any memslot are kept any more.
  void Forget();
  /// Empties all rings and has KVM report the pages anew when they are written again.
  /// @return the failed ioctl; what was taken out is kept
  Status Harvest();
  /// Hands out what is kept of a memslot, one bit a page, and forgets it. Nothing for one that is
  /// not watched. `take` may not call back.
  void Take(std::uint32_t slot, const std::function<void(std::span<const std::uint64_t>)>& take);
  /// Pages that each vCPU has been found to have written so far, in the order they were added.
  std::vector<std::uint64_t> Counts() const;

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast::kvm
