// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/kvm.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <holdfast/kvm_abi.h>

#include "kvm/ioctl_handler.h"
#include "kvm/sev_abi.h"
#include "kvm/tdx_abi.h"

namespace holdfast::object {

/// A fake: no KVM, no processor and no firmware of SEV-SNP or TDX, but something that answers their
/// ioctls for tests, because no test machine has them. It takes every struct apart as the kernel
/// (Linux 7.3, and in place as applied for 7.4) would, refuses what that would refuse, and keeps
/// what it was told, in order. What hardware does with it, it cannot tell.
///
/// It stands before the kernel from its making until it goes. Thread-safety: one thread.
class FakeConfidentialKvm final : public kvm::IoctlHandler {
 public:
  struct Options {
    unsigned vm_type = kvm::abi::kVmTypeSnp;  ///< the one type there is besides the default
    bool in_place = false;                    ///< KVM_SET_MEMORY_ATTRIBUTES2 and address 0
    std::uint64_t pages_at_once = 3;          ///< so many at most in one update
    bool busy_at_first = true;                ///< each update says EAGAIN once before it goes on
    /// Firmware status (SNP) or TDX module status by command, given with EIO.
    std::map<std::uint32_t, std::uint64_t> fail = {};
    std::uint32_t refuse_cpuid_function = 0;  ///< an entry that the firmware changes and refuses
  };
  explicit FakeConfidentialKvm(Options options);
  ~FakeConfidentialKvm() override;
  FakeConfidentialKvm(const FakeConfidentialKvm&) = delete;
  FakeConfidentialKvm& operator=(const FakeConfidentialKvm&) = delete;

  /// A page that a launch has given away.
  struct Page {
    unsigned type = 0;  ///< of SNP; 1 for TDX
    bool measured = true;
    bool in_place = false;
    std::vector<std::byte> bytes;
  };

  /// The commands, in order; updates that follow each other are one: "update normal 0x1000+0x3000".
  const std::vector<std::string>& commands() const noexcept { return commands_; }
  const std::map<std::uint64_t, Page>& pages() const noexcept { return pages_; }

  // What the launch was told.
  kvm::abi::SnpLaunchStart start{};
  kvm::abi::SnpLaunchFinish finish{};
  std::vector<std::byte> id_block;
  std::vector<std::byte> id_auth;
  kvm::abi::TdxInitVm tdx_init{};
  std::vector<kvm_cpuid_entry2> tdx_cpuid;
  std::uint64_t apic_bus_ns = 0;

  // What the machine is.
  kvm_regs regs{};
  kvm_sregs sregs{};
  std::vector<kvm_cpuid_entry2> cpuid;        ///< of KVM and of a vCPU
  std::uint64_t tdx_attributes = 1ULL << 28;  ///< that the TDX module knows
  std::uint64_t tdx_xfam = 0x7;
  std::vector<kvm_cpuid_entry2> tdx_configurable;

  std::optional<int> Ioctl(int fd, unsigned long number, unsigned long argument) override;

 private:
  struct Slot {
    std::uint64_t gpa, size;
    int memfd;
    std::uint64_t offset;
  };
  enum class Stage : std::uint8_t { kNothing, kInitialized, kStarted, kFinished };

  std::optional<int> Make(int fd, unsigned long number, unsigned long argument);
  int CheckExtension(unsigned long capability) const;
  int CreateGuestMemfd(unsigned long argument);
  int SetAttributes(const kvm::abi::MemoryAttributes& request);
  int SetAttributes2(int fd, kvm::abi::MemoryAttributes2& request);
  int GetCpuid(unsigned long argument) const;
  int Sev(kvm::abi::SevCommand& command);
  int SnpUpdate(kvm::abi::SnpLaunchUpdate& update, std::uint32_t& status);
  int SnpFinish();
  int SevPlatform(kvm::abi::SevIssueCommand& command) const;
  int Tdx(bool of_vcpu, kvm::abi::TdxCommand& command);
  int TdxCapabilities(unsigned long data) const;
  int TdxInitVm(unsigned long data);
  int TdxAdd(kvm::abi::TdxMemRegion& region, bool measure);
  const Slot* SlotOf(std::uint64_t gpa) const;
  bool IsPrivate(std::uint64_t gpa) const;
  int Take(std::uint64_t gpa, std::uint64_t source, Page page);
  void Note(const std::string& what, std::uint64_t gpa, std::uint64_t size);
  bool BusyNow();

  const Options options_;
  kvm::IoctlHandler* const before_;
  bool vm_made_ = false;
  std::set<int> vcpus_;
  std::map<int, std::uint64_t> memfds_;  // and their sizes
  std::vector<Slot> slots_;
  std::set<std::uint64_t> private_gfns_;
  std::set<std::pair<int, std::uint64_t>> private_pages_;  // in place: memfd and page in it
  Stage stage_ = Stage::kNothing;
  std::size_t ready_vcpus_ = 0;
  bool was_busy_ = false;
  std::vector<std::string> commands_;
  std::string last_what_;  // of the last update, which may be continued
  std::uint64_t last_begin_ = 0;
  std::uint64_t last_end_ = 0;
  std::map<std::uint64_t, Page> pages_;
};

}  // namespace holdfast::object
