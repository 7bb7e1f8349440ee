// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/kvm_abi.h>
#include <sys/types.h>

#include <cstdint>
#include <optional>

namespace holdfast::machine {

/// A CPU the machine can have, by QEMU's names of its place.
struct CpuInfo {
  unsigned index = 0;
  unsigned socket_id = 0;
  unsigned core_id = 0;                            ///< in its socket
  unsigned thread_id = 0;                          ///< in its core
  std::optional<unsigned> node_id = std::nullopt;  ///< empty: the machine has no NUMA
  std::uint32_t apic_id = 0;
};

/// A CPU the machine has, and the host thread that runs it.
struct VcpuInfo : CpuInfo {
  pid_t tid = 0;
};

/// What a vCPU's registers hold while it stands.
struct VcpuRegisters {
  kvm_regs regs{};
  kvm_sregs sregs{};
  kvm_fpu fpu{};
  kvm_debugregs debug{};
  bool halted = false;  ///< in HLT, waiting for an interrupt
};

}  // namespace holdfast::machine
