// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/address_space.h>
#include <holdfast/error.h>
#include <holdfast/guest_address.h>
#include <holdfast/guest_converter.h>
#include <holdfast/kvm_system.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>
#include <holdfast/vcpu.h>
#include <holdfast/vm.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>
#include <vector>

namespace holdfast::test {

/// An access of a guest to an address where no RAM is.
struct MmioAccess {
  GuestAddress address;
  bool write;
  std::uint64_t value;  ///< what was written; of a read, what it was given
};

/// What one vCPU's guest did until it ended.
struct GuestOutcome {
  std::string console;                 ///< guests::kConsolePort
  std::vector<std::uint64_t> reports;  ///< guests::kReportPort
  std::vector<MmioAccess> mmio;
  int end_code = -1;  ///< guests::kEndPort
  std::string error;  ///< why the guest did not get to its end; empty if it did
};

/// A VM with all its RAM in one guest_memfd at guest physical address 0, whose vCPUs start in
/// ring 3 of 64-bit mode (guests/abi.h): page tables and descriptors are laid into its first pages
/// from outside.
///
/// Thread-safety: one thread; Run() makes and joins those of the vCPUs.
class GuestVm {
 public:
  struct Options {
    std::uint64_t ram_size = 64 * kMiB;  ///< at most 2 GiB
    bool bound = false;
    bool memfd = false;  ///< the RAM is an ordinary memfd, unbound: to compare with
    unsigned vcpus = 1;
    /// Not memfd: pages can become private, with this engine; guests ask by guests::Mailbox.
    std::optional<ConversionEngineKind> conversion = {};
    /// Not 0: the upper half of the RAM lies here instead (below 4 GiB), in a memslot of its own.
    std::uint64_t high_ram = 0;
    std::uint32_t dirty_ring = 0;  ///< entries of the vCPUs' dirty rings; 0: a dirty log instead
    double patience = 60;          ///< seconds until Run() stops a guest that does not end
  };
  /// rdi, rsi, rdx, rcx, r8 of one vCPU.
  struct Arguments {
    std::uint64_t a = 0, b = 0, c = 0, d = 0, e = 0;
  };
  /// RAM from here on is free for the test's own use.
  static constexpr std::uint64_t kFreeRam = kMiB;
  /// What the guest reads where no RAM is.
  static constexpr std::uint64_t kMmioValue = 0x5aa55aa5'0ff0f00f;

  static Result<std::unique_ptr<GuestVm>> Create(const Options& options);

  const kvm::Vm& vm() const { return vm_; }
  RamBlock& ram() const { return *ram_; }
  AddressSpace& space() { return space_; }
  GuestConverter& converter() { return converter_; }
  /// Held for a moment by each conversion that a guest asks for: who holds it exclusively sees no
  /// page change.
  std::shared_mutex& conversions() { return conversions_; }

  /// Runs `image` on one vCPU per element of `arguments`, all at once, until each has ended, failed
  /// or (generously) run out of time. May be called again, with another image too.
  std::vector<GuestOutcome> Run(std::span<const std::byte> image,
                                const std::vector<Arguments>& arguments);
  GuestOutcome Run(std::span<const std::byte> image, const Arguments& arguments);

  /// Fills pages from the host with the pattern memcheck expects.
  void WritePattern(std::uint64_t start, std::uint64_t pages, std::uint64_t seed);
  /// The word at a guest physical address, through the host view.
  std::uint64_t Word(std::uint64_t address) const;
  void SetWord(std::uint64_t address, std::uint64_t value);

  /// The RAM's memslot as AddressSpace made it, but bound or not as asked: for tests that exchange
  /// slots.
  kvm::Memslot RamSlot(bool bound, std::uint32_t flags = 0) const;

 private:
  GuestVm(kvm::System system, kvm::Vm vm, double patience)
      : system_(std::move(system)),
        vm_(std::move(vm)),
        patience_(patience),
        space_(&vm_),
        converter_(space_) {}
  std::string OnDoorbell(std::uint64_t page);
  Status LayTables();
  Status StartInRing3(kvm::Vcpu& vcpu, const Arguments& arguments) const;

  kvm::System system_;
  kvm::Vm vm_;
  double patience_;
  std::unique_ptr<RamBlock> ram_;
  AddressSpace space_;
  GuestConverter converter_;
  std::shared_mutex conversions_;
  std::vector<kvm::Vcpu> vcpus_;
};

/// Seconds scaled by HOLDFAST_TEST_SLOWNESS: emulated and sanitized machines are slow.
double ScaledSeconds(double seconds);

}  // namespace holdfast::test
