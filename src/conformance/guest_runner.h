// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>
#include <holdfast/kvm_system.h>
#include <holdfast/mapping.h>
#include <holdfast/vcpu.h>
#include <holdfast/vm.h>

#include <cstdint>
#include <memory>

#include "model/kernel.h"

namespace holdfast::conformance {

/// A vCPU that reads and writes words of guest memory on request. Its program of fifty bytes runs
/// in ring 3, which every kind of KVM runs well, takes an address from a mailbox and leaves through
/// a port, so that an access costs one KVM_RUN.
///
/// Its tables, program and mailbox take the first 256 KiB of guest memory and one memslot.
/// Thread-safety: one thread.
class GuestRunner {
 public:
  /// The memslot it takes.
  static constexpr std::uint32_t kSlot = 32000;
  /// Guest memory that it can reach: [kFirstAddress, kEndAddress).
  static constexpr std::uint64_t kFirstAddress = 0x100000;
  static constexpr std::uint64_t kEndAddress = 16ULL << 30;

  /// @return what KVM refused
  static Result<std::unique_ptr<GuestRunner>> Create(const kvm::System& system, const kvm::Vm& vm);

  model::GuestAccess Read(std::uint64_t gpa) { return Access(gpa, false, 0); }
  model::GuestAccess Write(std::uint64_t gpa, model::Value value) {
    return Access(gpa, true, value);
  }
  int vcpu_fd() const noexcept { return vcpu_.fd(); }

 private:
  GuestRunner(Mapping memory, kvm::Vcpu vcpu)
      : memory_(std::move(memory)), vcpu_(std::move(vcpu)) {}
  void SetWord(std::uint64_t address, std::uint64_t value) const;
  std::uint64_t Word(std::uint64_t address) const;
  void LayTables() const;
  Status Start();
  Status Restart();
  model::GuestAccess Access(std::uint64_t gpa, bool write, model::Value value);

  Mapping memory_;
  kvm::Vcpu vcpu_;
};

}  // namespace holdfast::conformance
