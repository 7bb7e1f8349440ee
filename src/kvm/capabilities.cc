// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <holdfast/capabilities.h>
#include <holdfast/guest_memfd.h>
#include <holdfast/kvm_system.h>
#include <holdfast/mapping.h>
#include <holdfast/units.h>
#include <holdfast/vm.h>
#include <sys/mman.h>
#include <sys/vfs.h>

#include "kvm/ioctl.h"
#include "kvm/kernel_mode_probe.h"

namespace holdfast::kvm {
namespace {

// f_type of guest_memfd's own file system, "GMEM"; before 6.19 it lives on the anonymous-inode fs.
constexpr long kGuestMemfdMagic = 0x474d454d;

std::uint32_t Positive(int answer) {
  return answer > 0 ? static_cast<std::uint32_t>(answer) : 0;
}

// A guest_memfd that the host has really written through and read back from.
bool MappingWorks(const GuestMemfd& memfd) {
  auto first = Mapping::MapFile(memfd.fd(), 0, kPageSize, PROT_READ | PROT_WRITE, "guest_memfd");
  auto second = Mapping::MapFile(memfd.fd(), 0, kPageSize, PROT_READ | PROT_WRITE, "guest_memfd");
  // Writing must not end in SIGBUS on a kernel that maps but never shares: ask for the page first.
  if (!first || !second || ::madvise(first->data(), kPageSize, MADV_POPULATE_WRITE) != 0)
    return false;
  first->data()[0] = std::byte{0x5a};
  return second->data()[0] == std::byte{0x5a};
}

// Whether the fd knows the in-place conversion ioctl. An empty range is refused with EINVAL by a
// kernel that has it and changes nothing; one that has not says ENOTTY.
bool HasAttributesIoctl(const GuestMemfd& memfd) {
  abi::MemoryAttributes2 request{};
  const auto answer = Call(memfd.fd(), kSetMemoryAttributes2, request);
  return answer || answer.error().os_errno() == EINVAL;
}

bool HasOwnFileSystem(const GuestMemfd& memfd) {
  struct statfs info{};
  return ::fstatfs(memfd.fd(), &info) == 0 && info.f_type == kGuestMemfdMagic;
}

}  // namespace

Result<Capabilities> Capabilities::Detect(const System& system) {
  HF_TRY(const Vm vm, Vm::Create(system));
  Capabilities caps;
  caps.guest_memfd = vm.CheckExtension(abi::kCapGuestMemfd) > 0;
  caps.guest_memfd_flags = Positive(vm.CheckExtension(abi::kCapGuestMemfdFlags));
  caps.user_memory2 = vm.CheckExtension(abi::kCapUserMemory2) > 0;
  caps.memory_fault_info = vm.CheckExtension(abi::kCapMemoryFaultInfo) > 0;
  // At system scope: a VM of the default type has no private memory and answers 0.
  caps.memory_attributes = Positive(system.CheckExtension(abi::kCapMemoryAttributes));
  caps.pre_fault_memory = vm.CheckExtension(abi::kCapPreFaultMemory) > 0;
  const std::uint32_t types = Positive(system.CheckExtension(abi::kCapVmTypes));
  caps.vm_types = types | 1U;  // the default type exists without the capability
  caps.dirty_ring_bytes = std::max(Positive(vm.CheckExtension(KVM_CAP_DIRTY_LOG_RING)),
                                   Positive(vm.CheckExtension(KVM_CAP_DIRTY_LOG_RING_ACQ_REL)));
  caps.manual_dirty_log = Positive(vm.CheckExtension(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2));
  caps.irqchip = vm.CheckExtension(KVM_CAP_IRQCHIP) > 0;
  caps.immediate_exit = vm.CheckExtension(KVM_CAP_IMMEDIATE_EXIT) > 0;
  caps.max_vcpus = Positive(vm.CheckExtension(KVM_CAP_MAX_VCPUS));
  caps.max_memslots = Positive(vm.CheckExtension(KVM_CAP_NR_MEMSLOTS));

  if (const auto shared = GuestMemfd::Create(vm, kPageSize, GuestMemfd::Access::kHostShared)) {
    caps.guest_memfd_mapping_works = MappingWorks(*shared);
    caps.guest_memfd_attributes = HasAttributesIoctl(*shared);
    caps.guest_memfd_mempolicy = HasOwnFileSystem(*shared);
  }
  caps.kernel_mode_guests = KernelModeGuestsRun(vm);
  return caps;
}

bool Capabilities::CanRunOnGuestMemfd() const noexcept {
  return guest_memfd && user_memory2 && irqchip && guest_memfd_mapping_works;
}

std::vector<CapabilityRow> Describe(const Capabilities& c) {
  const auto mask = [](std::uint64_t value) {
    return value == 0 ? std::string() : fmt::format("{:#x}", value);
  };
  const auto type = [&](unsigned number) { return (c.vm_types >> number & 1U) != 0; };
  constexpr std::uint64_t kSharedFlags = abi::kGuestMemfdFlagMmap | abi::kGuestMemfdFlagInitShared;
  return {
      {"guest_memfd", "guest_memfd", c.guest_memfd, "", "Linux 6.8, CONFIG_KVM_GUEST_MEMFD",
       "cannot run guests"},
      {"guest_memfd_shared", "host-mappable guest_memfd",
       (c.guest_memfd_flags & kSharedFlags) == kSharedFlags && c.guest_memfd_mapping_works,
       mask(c.guest_memfd_flags), "Linux 6.18", "cannot run guests"},
      {"user_memory2", "bound memslots (user memory 2)", c.user_memory2, "", "Linux 6.8",
       "cannot run guests"},
      {"irqchip", "in-kernel interrupt controllers", c.irqchip, "", "any KVM on x86",
       "cannot run guests"},
      {"kernel_mode_guests", "guest kernels at full speed", c.kernel_mode_guests, "",
       "hardware virtualisation (Intel VT-x or AMD SVM), nested if this is a VM",
       "runs only guests that do their work in ring 3; `make demo` uses the lab"},
      {"memory_fault_info", "memory fault exits", c.memory_fault_info, "", "Linux 6.8",
       "a failed guest access is reported without its address"},
      {"dirty_ring", "dirty ring", c.dirty_ring_bytes != 0,
       c.dirty_ring_bytes == 0 ? "" : fmt::format("{} entries", c.dirty_ring_bytes / 16),
       "Linux 5.11", "no -accel kvm,dirty-ring-size="},
      {"manual_dirty_log", "manual dirty-log protection", c.manual_dirty_log != 0,
       mask(c.manual_dirty_log), "Linux 4.20",
       "a live snapshot makes the guest stand longer at its start"},
      {"guest_memfd_mempolicy", "NUMA policy on guest_memfd", c.guest_memfd_mempolicy, "",
       "Linux 6.19", "a policy on guest_memfd needs prealloc=on"},
      {"pre_fault_memory", "pre-faulting guest memory", c.pre_fault_memory, "",
       "Linux 6.11 and two-dimensional paging (EPT or NPT)", "the guest faults pages in itself"},
      {"memory_attributes", "private memory by VM attributes", c.memory_attributes != 0,
       mask(c.memory_attributes), "Linux 6.8 with SEV-SNP, TDX or CONFIG_KVM_SW_PROTECTED_VM",
       "guard pages make memory private (sw-protected-guest)"},
      {"guest_memfd_attributes", "in-place conversion by guest_memfd attributes",
       c.guest_memfd_attributes, "", "a kernel after 7.3 with kvm.gmem_in_place_conversion=1",
       "guard pages convert in place (sw-protected-guest)"},
      {"vm_sw_protected", "software-protected VMs", type(abi::kVmTypeSwProtected), "",
       "Linux 6.8, CONFIG_KVM_SW_PROTECTED_VM, EPT or NPT", "ordinary VMs"},
      {"vm_sev_snp", "SEV-SNP VMs", type(abi::kVmTypeSnp), "",
       "Linux 6.11, AMD EPYC Milan or later, kvm_amd.sev_snp=1", "ordinary VMs"},
      {"vm_tdx", "TDX VMs", type(abi::kVmTypeTdx), "",
       "Linux 6.16, Intel with TDX, kvm_intel.tdx=1", "ordinary VMs"},
  };
}

}  // namespace holdfast::kvm
