// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "control/context.h"
#include "kvm/stats.h"
#include "machine/cpu_info.h"

namespace holdfast::control {

/// A statistic that the host's kernel keeps outside KVM.
struct HostStat {
  kvm::StatDescription description;
  std::vector<std::uint64_t> values;  ///< one, but for a histogram
};

/// Of the virtual machine: how large its RAM is, how much memory it really takes (in all, and on
/// each node of the host), what the control group of this process is charged with, and, where
/// memory can be private, what has been converted.
std::vector<HostStat> VmHostStats(const VmContext& vm);

/// Of a vCPU: the processor time its thread has used.
std::vector<HostStat> VcpuHostStats(const machine::VcpuInfo& cpu);

/// Bytes that the memory control group of this process is charged with; its guest_memfds are among
/// them. Empty where there is no such group to be read.
std::optional<std::uint64_t> CgroupMemory();

}  // namespace holdfast::control
