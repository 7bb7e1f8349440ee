// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::kvm {

class System;

/// What this host's KVM can do, found out once. Every field is detected on its own: that one is
/// missing says nothing about another.
struct Capabilities {
  bool guest_memfd = false;                ///< KVM_CAP_GUEST_MEMFD (6.8)
  std::uint64_t guest_memfd_flags = 0;     ///< flags KVM_CREATE_GUEST_MEMFD takes (6.18)
  bool guest_memfd_mapping_works = false;  ///< tried: created, mapped, written through
  bool user_memory2 = false;               ///< KVM_SET_USER_MEMORY_REGION2 (6.8)
  bool memory_fault_info = false;          ///< KVM_EXIT_MEMORY_FAULT is filled in (6.8)
  std::uint64_t memory_attributes = 0;     ///< VM-level attributes' mask (6.8)
  bool guest_memfd_attributes = false;     ///< tried: KVM_SET_MEMORY_ATTRIBUTES2 is known
  bool pre_fault_memory = false;           ///< KVM_PRE_FAULT_MEMORY (6.11)
  bool guest_memfd_mempolicy = false;      ///< guest_memfd has a file system of its own (6.19)
  std::uint32_t vm_types = 1;              ///< mask of VM types
  std::uint32_t dirty_ring_bytes = 0;      ///< largest dirty ring, 0: none (5.11)
  std::uint32_t manual_dirty_log = 0;      ///< KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2's mask (4.20)
  bool irqchip = false;                    ///< in-kernel interrupt controllers
  bool immediate_exit = false;             ///< kvm_run.immediate_exit (4.13)
  bool kernel_mode_guests = false;         ///< tried: guest code in ring 0 really runs
  std::uint32_t max_vcpus = 0;
  std::uint32_t max_memslots = 0;

  /// Asks the capabilities and tries what a number alone does not prove; makes (and forgets) a VM.
  static Result<Capabilities> Detect(const System& system);

  /// Guests can run with all their RAM in a guest_memfd that the host may map.
  bool CanRunOnGuestMemfd() const noexcept;
};

/// One row of the table `holdfastctl probe` prints.
struct CapabilityRow {
  std::string_view id;       ///< for scripts: "guest_memfd"
  std::string_view feature;  ///< for people
  bool available;
  std::string detail;        ///< "flags 0x3", empty if there is nothing to add
  std::string_view needs;    ///< kernel release, hardware, module parameter
  std::string_view without;  ///< what Holdfast does when it is missing
};

/// The table, in reading order.
std::vector<CapabilityRow> Describe(const Capabilities& capabilities);

}  // namespace holdfast::kvm
