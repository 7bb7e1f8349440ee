// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/ioctl.h>

#include <cerrno>
#include <cstddef>
#include <string_view>

#include <holdfast/error.h>
#include <holdfast/kvm_abi.h>

#include "kvm/ioctl_handler.h"

namespace holdfast::kvm {

/// One ioctl that takes a pointer: its number, its C name (for messages), its argument type.
/// Construction is consteval, so a struct that does not fit the number does not compile.
template <typename Arg>
struct Request {
  consteval Request(unsigned long nr, const char* n) : number(nr), name(n) {
    if (_IOC_SIZE(nr) != sizeof(Arg)) throw "argument struct does not match the ioctl number";
  }
  unsigned long number;
  const char* name;
};

/// An ioctl that takes a plain number (or nothing: pass 0).
struct ValueRequest {
  consteval ValueRequest(unsigned long nr, const char* n) : number(nr), name(n) {
    if (_IOC_SIZE(nr) != 0) throw "this ioctl takes a pointer";
  }
  unsigned long number;
  const char* name;
};

/// An ioctl whose struct ends in a flexible array: `Header` is what stands before it, and the
/// number carries its size as C sees it (see kvm_abi.h).
template <unsigned kHeaderSize>
struct FlexRequest {
  consteval FlexRequest(unsigned dir, unsigned nr, const char* n)
      : number(_IOC(dir, abi::kIoctlType, nr, kHeaderSize)), name(n) {}
  unsigned long number;
  const char* name;
};

namespace internal {
// EINTR before the work began: again. (KVM_RUN is not called through here: there EINTR answers.)
inline int CallRaw(int fd, unsigned long number, unsigned long argument) noexcept {
  int ret = 0;
  do {
    ret = Ioctl(fd, number, argument);
  } while (ret < 0 && errno == EINTR);
  return ret;
}
inline int CallRaw(int fd, unsigned long number, void* argument) noexcept {
  return CallRaw(fd, number, reinterpret_cast<unsigned long>(argument));
}
}  // namespace internal

/// Issues `request` on `fd`. Returns the ioctl's non-negative result.
template <typename Arg>
Result<int> Call(int fd, const Request<Arg>& request, Arg& arg) {
  const int ret = internal::CallRaw(fd, request.number, &arg);
  if (ret < 0) return FailErrno(request.name);
  return ret;
}
template <typename Arg>
Result<int> Call(int fd, const Request<Arg>& request, const Arg& arg) {
  Arg copy = arg;  // the kernel only reads it, but the ioctl's signature is not const
  return Call(fd, request, copy);
}
inline Result<int> Call(int fd, const ValueRequest& request, unsigned long value = 0) {
  const int ret = internal::CallRaw(fd, request.number, value);
  if (ret < 0) return FailErrno(request.name);
  return ret;
}
/// `arg` points at the header followed by its entries.
template <unsigned kHeaderSize>
Result<int> Call(int fd, const FlexRequest<kHeaderSize>& request, void* arg) {
  const int ret = internal::CallRaw(fd, request.number, arg);
  if (ret < 0) return FailErrno(request.name);
  return ret;
}

// ---- System -----------------------------------------------------------------------------------
inline constexpr ValueRequest kGetApiVersion{KVM_GET_API_VERSION, "KVM_GET_API_VERSION"};
inline constexpr ValueRequest kCreateVm{KVM_CREATE_VM, "KVM_CREATE_VM"};
inline constexpr ValueRequest kCheckExtension{KVM_CHECK_EXTENSION, "KVM_CHECK_EXTENSION"};
inline constexpr ValueRequest kGetVcpuMmapSize{KVM_GET_VCPU_MMAP_SIZE, "KVM_GET_VCPU_MMAP_SIZE"};
inline constexpr FlexRequest<abi::kCpuid2HeaderSize> kGetSupportedCpuid{
    _IOC_READ | _IOC_WRITE, 0x05, "KVM_GET_SUPPORTED_CPUID"};
inline constexpr FlexRequest<abi::kMsrListHeaderSize> kGetMsrIndexList{_IOC_READ | _IOC_WRITE, 0x02,
                                                                       "KVM_GET_MSR_INDEX_LIST"};
static_assert(kGetSupportedCpuid.number == 0xc008ae05UL);
static_assert(kGetMsrIndexList.number == 0xc004ae02UL);

// ---- VM -----------------------------------------------------------------------------------------
inline constexpr Request<abi::CreateGuestMemfd> kCreateGuestMemfd{
    _IOWR(abi::kIoctlType, 0xd4, abi::CreateGuestMemfd), "KVM_CREATE_GUEST_MEMFD"};
static_assert(kCreateGuestMemfd.number == 0xc040aed4UL);
inline constexpr Request<abi::UserspaceMemoryRegion2> kSetUserMemoryRegion2{
    _IOW(abi::kIoctlType, 0x49, abi::UserspaceMemoryRegion2), "KVM_SET_USER_MEMORY_REGION2"};
static_assert(kSetUserMemoryRegion2.number == 0x40a0ae49UL);
inline constexpr Request<abi::MemoryAttributes> kSetMemoryAttributes{
    _IOW(abi::kIoctlType, 0xd2, abi::MemoryAttributes), "KVM_SET_MEMORY_ATTRIBUTES"};
static_assert(kSetMemoryAttributes.number == 0x4020aed2UL);
/// Of a guest_memfd, not of a VM.
inline constexpr Request<abi::MemoryAttributes2> kSetMemoryAttributes2{
    _IOWR(abi::kIoctlType, 0xd2, abi::MemoryAttributes2), "KVM_SET_MEMORY_ATTRIBUTES2"};
static_assert(kSetMemoryAttributes2.number == 0xc080aed2UL);
inline constexpr Request<kvm_dirty_log> kGetDirtyLog{KVM_GET_DIRTY_LOG, "KVM_GET_DIRTY_LOG"};
inline constexpr Request<kvm_clear_dirty_log> kClearDirtyLog{KVM_CLEAR_DIRTY_LOG,
                                                             "KVM_CLEAR_DIRTY_LOG"};
inline constexpr ValueRequest kResetDirtyRings{KVM_RESET_DIRTY_RINGS, "KVM_RESET_DIRTY_RINGS"};
inline constexpr ValueRequest kCreateVcpu{KVM_CREATE_VCPU, "KVM_CREATE_VCPU"};
inline constexpr ValueRequest kCreateIrqchip{KVM_CREATE_IRQCHIP, "KVM_CREATE_IRQCHIP"};
inline constexpr ValueRequest kSetTssAddr{KVM_SET_TSS_ADDR, "KVM_SET_TSS_ADDR"};
inline constexpr Request<__u64> kSetIdentityMapAddr{KVM_SET_IDENTITY_MAP_ADDR,
                                                    "KVM_SET_IDENTITY_MAP_ADDR"};
inline constexpr Request<kvm_pit_config> kCreatePit2{KVM_CREATE_PIT2, "KVM_CREATE_PIT2"};
inline constexpr Request<kvm_pit_state2> kGetPit2{KVM_GET_PIT2, "KVM_GET_PIT2"};
inline constexpr Request<kvm_pit_state2> kSetPit2{KVM_SET_PIT2, "KVM_SET_PIT2"};
inline constexpr Request<kvm_irqchip> kGetIrqchip{KVM_GET_IRQCHIP, "KVM_GET_IRQCHIP"};
// linux/kvm.h declares KVM_SET_IRQCHIP as a read ioctl; the number is what counts.
inline constexpr Request<kvm_irqchip> kSetIrqchip{KVM_SET_IRQCHIP, "KVM_SET_IRQCHIP"};
inline constexpr Request<kvm_clock_data> kGetClock{KVM_GET_CLOCK, "KVM_GET_CLOCK"};
inline constexpr Request<kvm_clock_data> kSetClock{KVM_SET_CLOCK, "KVM_SET_CLOCK"};
inline constexpr Request<kvm_irq_level> kIrqLine{KVM_IRQ_LINE, "KVM_IRQ_LINE"};
inline constexpr FlexRequest<abi::kIrqRoutingHeaderSize> kSetGsiRouting{_IOC_WRITE, 0x6a,
                                                                        "KVM_SET_GSI_ROUTING"};
static_assert(kSetGsiRouting.number == 0x4008ae6aUL);
inline constexpr Request<kvm_irqfd> kIrqfd{KVM_IRQFD, "KVM_IRQFD"};
inline constexpr Request<kvm_ioeventfd> kIoeventfd{KVM_IOEVENTFD, "KVM_IOEVENTFD"};
/// Of a VM or a vCPU.
inline constexpr ValueRequest kGetStatsFd{KVM_GET_STATS_FD, "KVM_GET_STATS_FD"};
inline constexpr Request<kvm_enable_cap> kEnableCap{KVM_ENABLE_CAP, "KVM_ENABLE_CAP"};

// ---- vCPU
// -----------------------------------------------------------------------------------------
inline constexpr Request<abi::PreFaultMemory> kPreFaultMemory{
    _IOWR(abi::kIoctlType, 0xd5, abi::PreFaultMemory), "KVM_PRE_FAULT_MEMORY"};
static_assert(kPreFaultMemory.number == 0xc040aed5UL);
inline constexpr ValueRequest kRun{KVM_RUN, "KVM_RUN"};
inline constexpr ValueRequest kNmi{KVM_NMI, "KVM_NMI"};
inline constexpr Request<kvm_regs> kGetRegs{KVM_GET_REGS, "KVM_GET_REGS"};
inline constexpr Request<kvm_regs> kSetRegs{KVM_SET_REGS, "KVM_SET_REGS"};
inline constexpr Request<kvm_sregs> kGetSregs{KVM_GET_SREGS, "KVM_GET_SREGS"};
inline constexpr Request<kvm_sregs> kSetSregs{KVM_SET_SREGS, "KVM_SET_SREGS"};
inline constexpr Request<kvm_fpu> kGetFpu{KVM_GET_FPU, "KVM_GET_FPU"};
inline constexpr Request<kvm_fpu> kSetFpu{KVM_SET_FPU, "KVM_SET_FPU"};
inline constexpr Request<kvm_lapic_state> kGetLapic{KVM_GET_LAPIC, "KVM_GET_LAPIC"};
inline constexpr Request<kvm_lapic_state> kSetLapic{KVM_SET_LAPIC, "KVM_SET_LAPIC"};
inline constexpr Request<kvm_mp_state> kGetMpState{KVM_GET_MP_STATE, "KVM_GET_MP_STATE"};
inline constexpr Request<kvm_mp_state> kSetMpState{KVM_SET_MP_STATE, "KVM_SET_MP_STATE"};
inline constexpr Request<kvm_vcpu_events> kGetVcpuEvents{KVM_GET_VCPU_EVENTS,
                                                         "KVM_GET_VCPU_EVENTS"};
inline constexpr Request<kvm_vcpu_events> kSetVcpuEvents{KVM_SET_VCPU_EVENTS,
                                                         "KVM_SET_VCPU_EVENTS"};
inline constexpr Request<kvm_debugregs> kGetDebugregs{KVM_GET_DEBUGREGS, "KVM_GET_DEBUGREGS"};
inline constexpr Request<kvm_debugregs> kSetDebugregs{KVM_SET_DEBUGREGS, "KVM_SET_DEBUGREGS"};
inline constexpr Request<kvm_xcrs> kGetXcrs{KVM_GET_XCRS, "KVM_GET_XCRS"};
inline constexpr Request<kvm_xcrs> kSetXcrs{KVM_SET_XCRS, "KVM_SET_XCRS"};
inline constexpr Request<kvm_sregs2> kGetSregs2{KVM_GET_SREGS2, "KVM_GET_SREGS2"};
inline constexpr Request<kvm_sregs2> kSetSregs2{KVM_SET_SREGS2, "KVM_SET_SREGS2"};
inline constexpr FlexRequest<abi::kXsaveHeaderSize> kGetXsave{_IOC_READ, 0xa4, "KVM_GET_XSAVE"};
inline constexpr FlexRequest<abi::kXsaveHeaderSize> kSetXsave{_IOC_WRITE, 0xa5, "KVM_SET_XSAVE"};
inline constexpr FlexRequest<abi::kXsaveHeaderSize> kGetXsave2{_IOC_READ, 0xcf, "KVM_GET_XSAVE2"};
static_assert(kGetXsave.number == 0x9000aea4UL);
static_assert(kSetXsave.number == 0x5000aea5UL);
static_assert(kGetXsave2.number == 0x9000aecfUL);
inline constexpr FlexRequest<abi::kNestedStateHeaderSize> kGetNestedState{
    _IOC_READ | _IOC_WRITE, 0xbe, "KVM_GET_NESTED_STATE"};
inline constexpr FlexRequest<abi::kNestedStateHeaderSize> kSetNestedState{_IOC_WRITE, 0xbf,
                                                                          "KVM_SET_NESTED_STATE"};
static_assert(kGetNestedState.number == 0xc080aebeUL);
static_assert(kSetNestedState.number == 0x4080aebfUL);
inline constexpr ValueRequest kSetTscKhz{KVM_SET_TSC_KHZ, "KVM_SET_TSC_KHZ"};
inline constexpr ValueRequest kGetTscKhz{KVM_GET_TSC_KHZ, "KVM_GET_TSC_KHZ"};
inline constexpr Request<kvm_device_attr> kHasDeviceAttr{KVM_HAS_DEVICE_ATTR,
                                                         "KVM_HAS_DEVICE_ATTR"};
inline constexpr Request<kvm_device_attr> kGetDeviceAttr{KVM_GET_DEVICE_ATTR,
                                                         "KVM_GET_DEVICE_ATTR"};
inline constexpr Request<kvm_device_attr> kSetDeviceAttr{KVM_SET_DEVICE_ATTR,
                                                         "KVM_SET_DEVICE_ATTR"};
inline constexpr ValueRequest kKvmclockCtrl{KVM_KVMCLOCK_CTRL, "KVM_KVMCLOCK_CTRL"};
inline constexpr Request<kvm_translation> kTranslate{KVM_TRANSLATE, "KVM_TRANSLATE"};
inline constexpr FlexRequest<abi::kCpuid2HeaderSize> kSetCpuid2{_IOC_WRITE, 0x90, "KVM_SET_CPUID2"};
inline constexpr FlexRequest<abi::kCpuid2HeaderSize> kGetCpuid2{_IOC_READ | _IOC_WRITE, 0x91,
                                                                "KVM_GET_CPUID2"};
inline constexpr FlexRequest<abi::kMsrsHeaderSize> kGetMsrs{_IOC_READ | _IOC_WRITE, 0x88,
                                                            "KVM_GET_MSRS"};
inline constexpr FlexRequest<abi::kMsrsHeaderSize> kSetMsrs{_IOC_WRITE, 0x89, "KVM_SET_MSRS"};
static_assert(kSetCpuid2.number == 0x4008ae90UL);
static_assert(kGetCpuid2.number == 0xc008ae91UL);
static_assert(kGetMsrs.number == 0xc008ae88UL);
static_assert(kSetMsrs.number == 0x4008ae89UL);

}  // namespace holdfast::kvm
