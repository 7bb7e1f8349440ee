// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>
#include <holdfast/kvm_abi.h>
#include <holdfast/unique_fd.h>

#include <cstdint>
#include <string>
#include <vector>

namespace holdfast::kvm {

/// /dev/kvm.
///
/// Thread-safety: const functions on any thread.
class System {
 public:
  /// Opens the KVM device. The error says why it cannot be used and what to do: no such device,
  /// no permission, or not KVM (API version other than 12).
  static Result<System> Open(const std::string& path = "/dev/kvm");

  int fd() const noexcept { return fd_.get(); }
  /// KVM_CHECK_EXTENSION at system scope; 0 when the kernel does not know `capability`.
  int CheckExtension(int capability) const noexcept;
  /// Bytes of a vCPU's shared kvm_run area.
  std::size_t vcpu_mmap_size() const noexcept { return vcpu_mmap_size_; }
  /// Everything this host's KVM can give a guest (KVM_GET_SUPPORTED_CPUID).
  Result<std::vector<kvm_cpuid_entry2>> SupportedCpuid() const;
  /// The MSRs that make up a vCPU's state here (KVM_GET_MSR_INDEX_LIST).
  Result<std::vector<std::uint32_t>> MsrIndexList() const;

 private:
  System(UniqueFd fd, std::size_t vcpu_mmap_size)
      : fd_(std::move(fd)), vcpu_mmap_size_(vcpu_mmap_size) {}
  UniqueFd fd_;
  std::size_t vcpu_mmap_size_;
};

}  // namespace holdfast::kvm
