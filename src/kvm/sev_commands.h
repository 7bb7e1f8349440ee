// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

#include "kvm/sev_abi.h"

namespace holdfast::kvm {

class Vm;

/// What a status of the SEV firmware means, in a few words. Any thread.
std::string_view SevFirmwareError(std::uint32_t status) noexcept;

/// Whether KVM answers SEV commands on this VM at all (the AMD module with `sev=1`). Any thread.
bool SevIsEnabled(const Vm& vm) noexcept;

/// The AMD secure processor's device, /dev/sev.
///
/// Thread-safety: any thread; the kernel serialises the commands.
class SevDevice {
 public:
  /// @return kNotFound without the device, kPermission without the right to it, each with what to
  ///   do; else the failed open
  static Result<SevDevice> Open(const std::string& path);

  int fd() const noexcept { return fd_.get(); }
  /// The firmware's version and TCB. @return the failed command, with the firmware's status
  Result<abi::SnpPlatformStatus> SnpStatus() const;
  /// The platform's Diffie-Hellman key and the certificates that vouch for it.
  struct PlatformKey {
    std::vector<std::byte> pdh;
    std::vector<std::byte> chain;
  };
  Result<PlatformKey> ExportPdh() const;
  /// The unique id of the processor in socket 0.
  Result<std::vector<std::byte>> CpuId() const;

 private:
  explicit SevDevice(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

/// The commands of a VM of type kVmTypeSnp, in the order in which a launch gives them.
///
/// Every error names command and, where the firmware was asked, its status. The VM and the device
/// outlive it. Thread-safety: one thread, before the first vCPU runs.
class SnpCommands {
 public:
  SnpCommands(const Vm& vm, const SevDevice& device) noexcept;

  /// KVM_SEV_INIT2, once, before memslots are filled and vCPUs made.
  Status Init(std::uint64_t vmsa_features) const;
  /// KVM_SEV_SNP_LAUNCH_START: makes the guest's key and binds its ASID.
  Status LaunchStart(const abi::SnpLaunchStart& start) const;
  /// KVM_SEV_SNP_LAUNCH_UPDATE until all of `update` is done; it is moved on as the kernel does it.
  /// @param firmware_status  out: the status that goes with a failure
  Status LaunchUpdate(abi::SnpLaunchUpdate& update, std::uint32_t& firmware_status) const;
  /// KVM_SEV_SNP_LAUNCH_FINISH: measures the vCPUs and closes the launch.
  Status LaunchFinish(const abi::SnpLaunchFinish& finish) const;

 private:
  Status Issue(std::uint32_t id, std::string_view name, void* data,
               std::uint32_t& firmware_status) const;
  int vm_fd_;
  int device_fd_;
};

}  // namespace holdfast::kvm
