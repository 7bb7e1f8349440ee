// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>
#include <holdfast/kvm_system.h>
#include <holdfast/unique_fd.h>
#include <holdfast/vm.h>

#include <cerrno>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "conformance/fault_guard.h"
#include "conformance/guest_runner.h"
#include "model/kernel.h"

namespace holdfast::conformance {

/// The running kernel, asked by system calls: raw ones, because what it is asked is mostly wrong.
///
/// Thread-safety: one thread.
class HostKernel final : public model::Kernel {
 public:
  using Handle = model::Handle;

  /// Finds out which kernel this is: release, VM types, which of the two ways to private memory.
  /// @return why KVM cannot be used here
  static Result<std::unique_ptr<HostKernel>> Open();
  ~HostKernel() override;

  /// "6.18.44".
  const std::string& release() const noexcept { return release_; }
  /// Closes and unmaps everything but takes the VMs, with their slots removed, for later.
  void Recycle();
  /// Closes and unmaps everything.
  void CloseAll() {
    Recycle();
    spare_vms_.clear();
  }
  /// Poison() breaks memory of this machine for good; until it is allowed it answers EPERM.
  void AllowPoison() noexcept { may_poison_ = true; }

  const model::Rules& rules() const noexcept override { return rules_; }
  int CheckExtension(Handle vm, int capability) override;
  Handle CreateVm(unsigned type) override;
  void CloseVm(Handle vm) override;
  Handle CreateGuestMemfd(Handle vm, std::uint64_t size, std::uint64_t flags) override;
  int SetRegion(Handle vm, const model::Region& region) override;
  int SetVmAttributes(Handle vm, const kvm::abi::MemoryAttributes& request) override;
  int SetAttributes(Handle file, kvm::abi::MemoryAttributes2& request) override;
  model::GuestAccess GuestRead(Handle vm, std::uint64_t gpa) override;
  model::GuestAccess GuestWrite(Handle vm, std::uint64_t gpa, model::Value value) override;
  model::PreFaulted PreFault(Handle vm, std::uint64_t gpa, std::uint64_t size,
                             std::uint64_t flags) override;
  Handle Open(model::OtherFile kind) override;
  Handle Duplicate(Handle file) override;
  int Close(Handle file) override;
  model::FileStatus Stat(Handle file) override;
  int Fallocate(Handle file, int mode, std::int64_t offset, std::int64_t length) override;
  std::int64_t Call(Handle file, model::FileCall call) override;
  Handle Map(Handle file, std::uint64_t offset, std::uint64_t length, int protection,
             int flags) override;
  Handle MapAnonymous(std::uint64_t length) override;
  int Unmap(Handle mapping) override;
  int Advise(Handle mapping, std::uint64_t offset, std::uint64_t length, int advice) override;
  model::HostAccess Read(Handle mapping, std::uint64_t offset) override;
  model::HostAccess Write(Handle mapping, std::uint64_t offset, model::Value value) override;
  Handle Pin(Handle mapping, std::uint64_t offset) override;
  model::Value PinnedValue(Handle pin) override;
  void Unpin(Handle pin) override;
  int Poison(Handle mapping, std::uint64_t offset) override;
  int SetPolicy(Handle mapping, std::uint64_t offset, std::uint64_t length, int mode,
                unsigned node) override;
  int PolicyOf(Handle mapping, std::uint64_t offset) override;
  int NodeOf(Handle mapping, std::uint64_t offset) override;
  int Nodes() override;
  int RegisterUserfault(Handle mapping) override;
  std::int64_t InChild(const std::function<std::int64_t()>& what) override;

 private:
  struct VmEntry {
    unsigned type;
    kvm::Vm vm;
    std::unique_ptr<GuestRunner> runner;             // made at the first access
    std::vector<std::uint32_t> slots;                // that are there
    std::vector<kvm::abi::MemoryAttributes> closed;  // ranges that were made private
  };
  struct Pipe {
    UniqueFd out;
    UniqueFd in;
  };

  HostKernel(kvm::System system, std::string release)
      : system_(std::move(system)), release_(std::move(release)) {}
  // The answer of a system call as it is kept here: a negative errno instead of -1.
  template <typename T>
  static T Answer(T result) {
    return result < 0 ? static_cast<T>(-errno) : result;
  }
  Status FindRules();
  VmEntry* VmOf(Handle vm) const;
  GuestRunner* RunnerOf(Handle vm) const;
  int FdOf(Handle file) const;
  Mapping* MappingOf(Handle mapping);
  Handle AddFile(int fd);
  Result<Pipe> TakePipe();

  kvm::System system_;
  std::string release_;
  model::Rules rules_;
  bool may_poison_ = false;
  FaultGuard guard_;
  std::vector<std::unique_ptr<VmEntry>> vms_;
  std::vector<std::unique_ptr<VmEntry>> spare_vms_;
  std::vector<UniqueFd> files_;
  std::vector<Mapping> mappings_;
  std::set<Handle> unmapped_;  // whose addresses are only kept
  std::vector<Pipe> pins_;
  std::vector<Pipe> spare_pipes_;
};

}  // namespace holdfast::conformance
