// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>
#include <holdfast/guest_address.h>
#include <holdfast/guest_converter.h>
#include <holdfast/kvm_abi.h>
#include <linux/kvm.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace holdfast::machine {

/// What a guest asks of its memory, by the hypercall KVM_HC_MAP_GPA_RANGE or by an access of the
/// other kind (KVM_EXIT_MEMORY_FAULT), answered on the thread of the vCPU that asks.
///
/// The guest chooses every number: a range that cannot be converted is its error, never ours.
/// Thread-safety: all functions on any vCPU's thread.
class ConversionExits {
 public:
  /// A request that was refused because it can never be met.
  struct Refusal {
    GuestAddress address;
    std::uint64_t size = 0;
    MemoryAttribute to = MemoryAttribute::kPrivate;
    std::string reason;
    std::uint64_t unreported = 0;  ///< refusals since the last report that got none
  };

  /// `converter` outlives this. `refused` may be empty; it is called at most once a second, on the
  /// vCPU's thread.
  ConversionExits(GuestConverter& converter, std::function<void(const Refusal&)> refused)
      : converter_(converter), engine_(converter.engine()), refused_(std::move(refused)) {}

  /// Whether a conversion takes the pages out of the guest's page tables. Guard pages do not: they
  /// concern the host's view alone.
  bool unmaps() const noexcept { return engine_ != ConversionEngineKind::kGuard; }

  struct Range {
    GuestAddress start;
    std::uint64_t size;
    friend bool operator==(const Range&, const Range&) = default;
  };

  /// Answers a KVM_EXIT_HYPERCALL in `run`: 0, or what Linux guests expect in its place: -EINVAL
  /// for a range that cannot be, -EAGAIN where a device holds a page of it for longer than a guest
  /// should wait, -ENOMEM, and KVM's own -1000 for another hypercall.
  /// @return what has changed and is to be mapped in before the guest touches it
  std::optional<Range> OnHypercall(kvm_run& run);

  /// The guest touched memory as private that is shared, or the other way round: makes it so.
  /// @return why the guest cannot go on; kUnsupported if the attribute was not what kept it out
  Result<std::optional<Range>> OnMemoryFault(const kvm::abi::MemoryFaultExit& fault);

 private:
  void Report(Refusal refusal);

  GuestConverter& converter_;
  const std::optional<ConversionEngineKind> engine_;
  const std::function<void(const Refusal&)> refused_;
  std::atomic<std::chrono::steady_clock::rep> next_report_{0};
  std::atomic<std::uint64_t> unreported_{0};
};

}  // namespace holdfast::machine
